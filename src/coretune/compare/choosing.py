"""What each run chooses: its own sub-pool, its own seed, the same amount as every other arm."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coretune import methods, run_folder
from coretune.compare.arms import EVERY_EPOCH, FULL, LENGTH_MATCHED, RANDOM, UNTUNED, Arm, Run
from coretune.compare.ground import Ground
from coretune.knowledge import Knowledge
from coretune.partitions import by_quantile, proportional, within
from coretune.pickers import uniform
from coretune.pool import Pool
from coretune.rounds import Outcome, Round
from coretune.rounds import run as run_method
from coretune.runs import file_options, make_method
from coretune.selection import Budget, Selection
from coretune.shapes import Int64
from coretune.splits import sub_pool
from coretune.store.digests import digest, words

if TYPE_CHECKING:
    from coretune.lab import Lab, Stage

SELECTION, CHOSEN = "selection.parquet", "chosen.json"
LENGTH_CELLS = 20  # of answer length, in which random is matched


@dataclass(frozen=True)
class Own:
    """The model that a method has tuned while it chose: where it lies, and what stands for it."""

    address: str
    digest: str
    path: str


@dataclass(frozen=True, eq=False)
class Chosen:
    """What a run tunes on: rows of the pool in order of picking, what each counts, and what choosing took.

    `epochs` is None where the tuning's own hold. `cost` has seconds, tokens and tokens_back, as if nothing had been
    stored; `notes` is what the method wrote down, `own` the model of its last round.
    """

    rows: Int64[np.ndarray, " k"]
    weights: np.ndarray | None
    epochs: float | None
    cost: Mapping[str, float]
    notes: Mapping[str, Any]
    own: Own | None = None


def identity(ground: Ground, run: Run, epochs: float, others: Sequence[str] = ()) -> str:
    """What a run chooses among and how, as a digest; `others` are the runs that it is matched to."""
    said = {
        "pool": words(ground.pool.keys[ground.train]),
        "rows": words(ground.train),
        "ids": words([str(each) for each in ground.pool.column("id")[ground.train]]),
        "method": [run.arm.method, words(dict(run.arm.options))],
        "files": {name: file.fingerprint for name, file in files_of(run.arm).items()},
        "arm": run.arm.name,
        "target": None if ground.target is None or run.arm.kind != "targeted" else ground.target.fingerprint,
        "budget": words(ground.amount(run.budget)) if run.arm.chooses else run.budget,
        "seed": [ground.plan.seed, run.seed],
        "sub_pool": ground.plan.sub_pool,
        "models": words(dict(ground.digests)),
        "template": ground.plan.template,
        "epochs": epochs if run.arm.method == EVERY_EPOCH else None,
        "others": list(others),
    }
    return digest(said)


def seed_of(ground: Ground, run: Run) -> int:
    """A seed of the run's own: for its sub-pool, its method and its tuning."""
    return int(digest([ground.plan.seed, run.arm.name, run.seed])[:8], 16)


def choose(ground: Ground, run: Run, lab: Lab, epochs: float, others: Sequence[Chosen] = ()) -> Chosen:
    """Choose for a run that is tuned for so many epochs; `others` are the choices that a control is matched to.

    Raises what the method raises.
    """
    if run.arm.method == FULL:
        return Chosen(ground.train, None, None, cost_of_stages([]), {})
    seed = seed_of(ground, run)
    rows = choosable(ground, seed)
    before = len(lab.stages)
    if run.arm.method == LENGTH_MATCHED:
        chosen, notes, own = _matched(ground, rows, others, ground.amount(run.budget), seed), {}, None
    elif run.arm.method == EVERY_EPOCH:
        return _every_epoch(ground, run, rows, lab, epochs)
    else:
        done = by_method(ground, run, rows, lab, seed)
        chosen, own = done.selection, _own_model(done.rounds[-1])
        notes = {**done.rounds[-1].notes, "left out": {why: len(each) for why, each in done.pool.excluded.items()}}
    weights = chosen.weights if ground.plan.weights and not (chosen.weights == 1).all() else None
    return Chosen(rows[chosen.rows], weights, None, cost_of_stages(lab.stages[before:]), notes, own)


def choosable(ground: Ground, seed: int) -> Int64[np.ndarray, " m"]:
    """The sub-pool of a run with this seed: the rows that it may choose from."""
    train, source = ground.train, ground.pool.column("source")[ground.train]
    return sub_pool(train, ground.pool.keys[train], share=ground.plan.sub_pool, seed=seed, strata=source)


def by_method(ground: Ground, run: Run, rows: Int64[np.ndarray, " m"], lab: Lab, seed: int) -> Outcome:
    """What the arm's method chooses of these rows. Raises what the method raises."""
    plan, name = ground.plan, run.arm.method
    options = dict(run.arm.options) | files_of(run.arm)
    given = {"model": plan.model, "embedder": plan.embedder, "template": plan.template, "target": ground.target}
    known = _fields(name)
    filled = {key: value for key, value in given.items() if key in known and value is not None}
    method = make_method(name, {**filled, **options})
    amount = ground.amount(run.budget)
    return run_method(
        method, ground.pool.subset(rows), amount, lab, seed=seed, model=plan.model, template=plan.template
    )


def _own_model(last: Round) -> Own | None:
    """The model that a method's last round has tuned."""
    if last.model is None:
        return None
    kept = last.model.checkpoints[-1]
    return Own(last.model.address, kept.digest, str(kept.path))


@cache
def files_of(arm: Arm) -> dict[str, Pool | Knowledge]:
    """The options of an arm that are files, read once in this process."""
    if arm.method in (UNTUNED, FULL, EVERY_EPOCH, LENGTH_MATCHED):
        return {}
    asked = dict(arm.options)
    return {key: read(asked[key]) for key, read in file_options(arm.method).items() if isinstance(asked.get(key), str)}


def _fields(name: str) -> set[str]:
    return {each.name for each in dataclasses.fields(methods.find(name))}  # type: ignore[arg-type]


def _every_epoch(ground: Ground, run: Run, rows: Int64[np.ndarray, " m"], lab: Lab, epochs: float) -> Chosen:
    """Another random draw for every epoch: as many draws, one after the other, seen once each."""
    amount, seed = ground.amount(run.budget), seed_of(ground, run)
    there = int(ground.tokens[rows].sum()) if amount.in_tokens else len(rows)
    wide = replace(amount, amount=min(round(int(amount.amount or 0) * epochs), there))
    view, options = ground.pool.subset(rows), {"seed": seed, "model": ground.plan.model}
    done = run_method(make_method(RANDOM, {}), view, wide, lab, **options, template=ground.plan.template)  # type: ignore[arg-type]
    seen = int(amount.amount or 0) * epochs / max(1, int(wide.amount or 0))
    return Chosen(rows[done.selection.rows], None, seen, cost_of_stages([]), {"draws": epochs})


def _matched(
    ground: Ground, rows: Int64[np.ndarray, " m"], others: Sequence[Chosen], amount: Budget, seed: int
) -> Selection:
    """Random rows whose answers are as long as those that the methods choose, all methods counting alike."""
    lengths = ground.tokens[rows].astype(np.float64)
    cells = by_quantile(lengths, LENGTH_CELLS)
    edges = np.array(cells.notes["edges"])
    shares = np.zeros(len(cells))
    filled = np.flatnonzero(cells.sizes)
    for each in others:
        place = np.searchsorted(edges, ground.tokens[each.rows], side="right")
        shares[filled] += np.bincount(place, minlength=len(filled))[: len(filled)] / len(each.rows)
    budget = amount.on(len(rows), len(rows), ground.tokens[rows])

    def drawn(k: int, rng: np.random.Generator) -> Selection:
        quota = proportional(cells.sizes, k, weights=shares)
        return within(cells, quota, lambda own, q, rng: uniform(len(own), q, rng=rng), rng)

    return budget.fill(drawn, np.random.default_rng(seed))


def cost_of_stages(stages: Sequence[Stage]) -> dict[str, float]:
    """What stages took, with what the store has spared."""
    return {
        "seconds": sum(each.seconds + each.spared_seconds for each in stages),
        "tokens": sum(each.tokens + each.spared_tokens for each in stages),
        "tokens_back": sum(each.tokens_back + each.spared_tokens_back for each in stages),
        "spared_seconds": sum(each.spared_seconds for each in stages),
        "judge_tokens": sum(each.judge_tokens for each in stages),
        "money": sum(each.money for each in stages),
    }


def write_chosen(folder: Path, chosen: Chosen, stages: Sequence[Stage]) -> None:
    """Put a choice into a folder that appears complete or not at all."""
    with run_folder.in_place_at_once(folder) as draft:
        weights = np.ones(len(chosen.rows), dtype=np.float32) if chosen.weights is None else chosen.weights
        table = {"row": chosen.rows, "rank": np.arange(len(chosen.rows)), "weight": weights}
        pq.write_table(pa.table(table), draft / SELECTION, compression="zstd")
        said = {
            "weighted": chosen.weights is not None,
            "epochs": chosen.epochs,
            "cost": dict(chosen.cost),
            "own": None if chosen.own is None else dataclasses.asdict(chosen.own),
            "notes": json.loads(json.dumps(dict(chosen.notes), default=str)),
            "stages": [run_folder.stage_words(each) for each in stages],
        }
        (draft / CHOSEN).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def read_chosen(folder: Path) -> Chosen | None:
    """The choice in a folder; None where there is none."""
    if not (folder / CHOSEN).is_file():
        return None
    said = json.loads((folder / CHOSEN).read_text(encoding="utf-8"))
    table = pq.read_table(folder / SELECTION)
    weights = table["weight"].to_numpy() if said["weighted"] else None
    own = None if said.get("own") is None else Own(**said["own"])
    return Chosen(table["row"].to_numpy(), weights, said["epochs"], said["cost"], said["notes"], own)
