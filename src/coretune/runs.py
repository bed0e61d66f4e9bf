"""A run: a request carried out, from the input files to a finished run folder."""

from __future__ import annotations

import dataclasses
import logging
import time
import tomllib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coretune import methods, run_folder
from coretune.errors import FolderError, PoolError, nearest
from coretune.evaluation.items import read_items
from coretune.knowledge import Knowledge, read_knowledge
from coretune.overlap import decontaminate, leaks, warn_of_targets
from coretune.pool import Pool
from coretune.readers import read_pool
from coretune.rounds import DUPLICATE, Outcome, run
from coretune.run_facts import run_tables, same_models
from coretune.runs_identity import identity_of, with_scores
from coretune.runs_rounds import held_out_of, rounds_writer
from coretune.selection import Budget, Selection
from coretune.shapes import Float32
from coretune.writers import write_records, write_rejected

if TYPE_CHECKING:
    from coretune.lab import Lab
    from coretune.methods import Method

GIVEN = ("model", "embedder", "target", "template")  # flags that fill a method's field of that name
FOR_COUNTING = ("model", "template")  # of use to every method, for they count answer tokens


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a user asks for, as `run.toml` holds it: inputs and pools among the options are paths."""

    inputs: tuple[str, ...]
    method: str
    budget: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    model: str | None = None
    template: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    scores: tuple[str, ...] = ()  # files of scores, FILE or FILE:COLUMN
    dedup: bool = False
    decontaminate: tuple[str, ...] = ()  # evaluation files; rows that overlap with their items are not chosen
    format: str | None = None
    fingerprint: str | None = None  # of the pool that is meant; None takes the inputs as they are now
    digests: Mapping[str, str] = field(default_factory=dict)  # of the models that are meant, by name
    held_out: str | None = None  # a file on which the model of every round is measured

    @classmethod
    def read(cls, path: Path) -> Request:
        """The request of a run, from its `run.toml`. Raises `FolderError` where the file does not hold one."""
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
            digests = {each["name"]: each["digest"] for each in tables.get("models", {}).values()}
            asked = tables["request"] | {"fingerprint": tables["pool"]["fingerprint"], "digests": digests}
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError) as error:
            raise FolderError(f"{path} is not the {run_folder.RUN} of a run: {error!r}") from error
        known = [each.name for each in dataclasses.fields(cls)]
        for name in asked:
            if name not in known:
                raise FolderError(f"{path} asks for {name!r}, which is not known{nearest(name, known)}")
        plain: dict[str, Any] = {name: None if value == "none" else value for name, value in asked.items()}
        plain["options"] = {name: None if v == "none" else v for name, v in asked.get("options", {}).items()}
        plain |= {name: tuple(asked.get(name, ())) for name in ("inputs", "scores", "decontaminate")}
        return cls(**plain)


def select(  # noqa: PLR0913 - everything a user may say
    pool: Pool,
    method: str | Method,
    budget: str,
    *,
    lab: Lab | None = None,
    seed: int = 0,
    model: str | None = None,
    template: str | None = None,
    select_model: str | None = None,
    **options: Any,
) -> Selection:
    """Choose from a pool: `select(pool, "ltd", budget="5%", task="category=closed_qa")`.

    `method` is a name or a method object, `options` are the fields of the method's dataclass, `model` counts answer
    tokens and fills the method's field of that name, unless `select_model` does. Raises `ValueError` for an unknown
    method or option.
    """
    from coretune.lab import Lab as NewLab

    if isinstance(method, str):
        filled = {"model": select_model or model, "template": template}
        made = make_method(method, {**{name: value for name, value in filled.items() if value}, **options})
    else:
        made = method
    return run(made, pool, Budget.parse(budget), lab or NewLab(), seed=seed, model=model, template=template).selection


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """A method by name with these options; a `model` or `template` it has no field for is none of its affairs.

    Raises `ValueError`, naming the nearest, for an option that the method does not have, or lacks.
    """
    kind = methods.find(name)
    known = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    options = {key: value for key, value in options.items() if key in known or key not in FOR_COUNTING}
    for key in options:
        if key not in known:
            raise ValueError(
                f"method {name} takes no {key!r}{nearest(key, known)} It has: {', '.join(known) or 'none'}"
            )
    for each in dataclasses.fields(kind):  # type: ignore[arg-type]
        if each.name not in options and each.default is each.default_factory is dataclasses.MISSING:
            flag = each.name if each.name in GIVEN else f"{name}.{each.name}"
            raise ValueError(f"method {name} needs --{flag}; see coretune select --method {name} --help")
    hints = typing.get_type_hints(kind)
    return kind(**{key: _built(hints[key], value) for key, value in options.items()})


def _built(hint: Any, value: Any) -> Any:
    """An option as its field has it: a table of `run.toml` becomes the dataclass that it stands for."""
    if not isinstance(value, Mapping):
        return value
    kinds = [each for each in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(each)]
    if not kinds:
        return value
    hints = typing.get_type_hints(kinds[0])
    known = {each.name for each in dataclasses.fields(kinds[0])}
    for key in value:
        if key not in known:
            raise ValueError(f"{getattr(kinds[0], '__name__', kinds[0])} takes no {key!r}{nearest(key, known)}")
    plain = {key: None if each == "none" else each for key, each in value.items()}
    return kinds[0](**{key: _built(hints[key], each) for key, each in plain.items()})  # type: ignore[operator]


def file_options(name: str) -> dict[str, Callable[[str], Pool | Knowledge]]:
    """The options of a method that the command line takes as files, and what reads each: a pool, or knowledge."""
    found: dict[str, Callable[[str], Pool | Knowledge]] = {}
    for key, kind in typing.get_type_hints(methods.find(name)).items():
        kinds = {kind, *typing.get_args(kind)}
        if kinds & {Pool, Knowledge}:
            found[key] = read_pool if Pool in kinds else read_knowledge
    return found


@dataclass(frozen=True)
class Finished:
    """A run folder that is complete; `outcome` is None where the same run was there already."""

    folder: Path
    outcome: Outcome | None
    pool: Pool


def carry_out(request: Request, out: Path, lab: Lab, *, overwrite: bool = False) -> Finished:
    """Read, choose, lay out and write; the folder appears complete or not at all, but for rounds as they are done.

    The same request on a complete folder does nothing, and goes on where there are rounds alone; another one's folder
    raises `FolderError` unless `overwrite`.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    budget = Budget.parse(request.budget)
    there = run_folder.identity_of(out)
    same_models(request.digests)
    files = {
        name: read(request.options[name])
        for name, read in file_options(request.method).items()
        if request.options.get(name) is not None
    }
    filled = {"model": request.model, "template": request.template}
    method = make_method(
        request.method, {**{name: value for name, value in filled.items() if value}, **request.options, **files}
    )
    pool, score_digest = _read(request, lab)
    sets = [read_items(each) for each in request.decontaminate]
    held_out = held_out_of(request, method, lab)
    identity = identity_of(request, pool, files, score_digest, sets, held_out)
    if _is_complete(out, there, identity, overwrite):
        return Finished(out, None, pool)
    if request.dedup:
        pool = pool.exclude(np.flatnonzero(pool.duplicate_of >= 0), DUPLICATE)
    found = leaks(pool, sets, lab) if sets else []
    warn_of_targets({name: each for name, each in files.items() if isinstance(each, Pool)}, sets, lab)
    pool = decontaminate(pool, found)
    rounds = rounds_writer(request, out, identity, held_out)
    outcome = run(
        *(method, pool, budget, lab),
        seed=request.seed,
        model=request.model,
        template=request.template,
        each_round=rounds,
    )
    if held_out is not None and not rounds.readings:
        log.warning("held-out %s: %s tuned no model in a round, so no loss was read", held_out.file, request.method)
    places = _places(outcome.pool, lab, request.seed)
    tables = run_tables(request, method, outcome, lab)
    tables["run"] |= {"identity": identity, "started": started.isoformat(timespec="seconds")}
    if found:
        tables["leakage"] = {file: leak.facts() for file, leak in zip(request.decontaminate, found, strict=True)}
    tables["pool"] |= {"option_fingerprints": {name: each.fingerprint for name, each in files.items()}}
    with run_folder.in_place_at_once(out) as folder:
        _write(folder, outcome, places, lab, request.format)
        rounds.finish(folder, outcome)
        tables["run"]["seconds"] = round(time.perf_counter() - clock, 3)
        run_folder.write_toml(folder / run_folder.RUN, tables)
        from coretune.report import write_report

        write_report(folder)
    return Finished(out, outcome, outcome.pool)


def _read(request: Request, lab: Lab) -> tuple[Pool, str]:
    """The pool with the scores that are asked for, and a digest of these. Raises `PoolError` for another than meant."""
    with lab.stage("read") as stage:
        pool = read_pool(*request.inputs, columns=request.columns or None, progress=lab.progress)
        stage.rows = len(pool)
        stage.counts = {"rejected": pool.rejected.num_rows, "duplicates": int((pool.duplicate_of >= 0).sum())}
    if request.fingerprint not in (None, pool.fingerprint):
        raise PoolError(
            f"{', '.join(request.inputs)} has changed since that run: the pool's fingerprint was {request.fingerprint} "
            f"and is {pool.fingerprint}; bring the old files back, or choose anew with coretune select"
        )
    return with_scores(pool, request.scores)


def _is_complete(out: Path, there: str | None, identity: str, overwrite: bool) -> bool:
    """Whether `out` holds this run already. Raises `FolderError` for another run's folder, unless `overwrite`."""
    if overwrite or there is None:
        return False
    if there != identity:
        raise FolderError(f"{out} holds another run; give another --out, or --overwrite to replace it")
    if run_folder.is_going_on(out):
        log.info("%s holds rounds of this run, which has not come to its end; it goes on", out)
        return False
    return True


def _write(folder: Path, outcome: Outcome, places: np.ndarray | None, lab: Lab, format: str | None) -> None:
    with lab.stage("write") as stage:
        suffix = "parquet" if format == "parquet" else "jsonl"
        write_records(outcome.pool, outcome.selection.rows, folder / f"selected.{suffix}", format)
        write_rejected(outcome.pool, folder / "rejected.jsonl")
        run_folder.write_selection(folder / run_folder.SELECTION, outcome, places)
        stage.rows = len(outcome.pool)
        stage.bytes = sum(each.stat().st_size for each in folder.iterdir())
    run_folder.write_stages(folder / run_folder.STAGES, lab.stages)


def _places(pool: Pool, lab: Lab, seed: int) -> Float32[np.ndarray, "n 2"] | None:
    """Where each candidate lies on the map, by the last wide feature measured on them; None without one."""
    from coretune.projection import lay_out

    rows = np.flatnonzero(pool.candidates)
    keys = pool.keys[rows]
    wide = [feature for _, feature in lab.measured if feature.ndim == 2 and np.array_equal(feature.keys, keys)]
    if not wide:
        return None
    places = np.full((len(pool), 2), np.nan, dtype=np.float32)
    places[rows] = lab.keep(lay_out, wide[-1].array(), np.random.default_rng(seed))
    return places
