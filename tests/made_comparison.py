"""A comparison's folder made by hand, as a comparison would leave it: simulated scores, no model, no tuning.

An item's score is its difficulty, the arm's worth at the budget, the noise of the run and what is left; the verdict is
worked out of these scores by plain formulas, so that the page's numbers can be checked against the files beside them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from tests.run_folders import made_records

T_QUANTILE = 2.26  # of 9 degrees of freedom; every interval here uses it
WORTH = {"kmq": 0.055, "tagcos": 0.028, "recost": -0.05, "ltd": 0.0, "less": 0.07, "rds": 0.03, "bm25": 0.0}
WORTH |= {"longest": -0.03, "random-stratified": 0.004, "random-length": 0.0, "random-redrawn": 0.006}
FULL, UNTUNED = "100%", ""


@dataclass(frozen=True)
class Task:
    """A simulated task: its metric and where its scores lie."""

    name: str
    metric: str
    unit: str
    higher_is_better: bool
    at_untuned: float
    gain: float
    """What the full pool brings, in the task's unit; positive is better."""
    groups: tuple[str, ...] = ("alpaca", "dolly", "gsm8k")


TASKS = (
    Task("heldout_loss", "loss", "nats a token", False, 2.42, 0.34),
    Task("exact_match:trec", "right", "share right", True, 0.31, 0.22, ("trec",)),
    Task("rouge_l:superni", "rouge_l", "F1", True, 0.22, 0.13, ("superni",)),
)


@dataclass(frozen=True)
class Made:
    """What a folder is made of."""

    methods: Sequence[str] = ("kmq", "tagcos", "recost", "ltd")
    targeted: Sequence[str] = ("less", "rds")
    controls: Sequence[str] = ("random-stratified", "random-length", "longest")
    own: Sequence[str] = ("tagcos/own-loop",)
    budgets: Sequence[str] = ("1%-tokens", "5%-tokens", "20%-tokens")
    primary: str = "5%-tokens"
    seeds: int = 3
    tasks: Sequence[Task] = TASKS
    items: int = 150
    rows: int = 600
    margin: float = 0.02
    texts: bool = True
    hostile: Sequence[str] = ()
    seed: int = 0
    plan: dict[str, Any] = field(default_factory=dict)

    def runs(self) -> Iterator[tuple[str, str, str, int]]:
        """Arm, kind, budget and seed of every run."""
        kinds = [("random", "control"), *((each, "method") for each in self.methods)]
        kinds += [(each, "targeted") for each in self.targeted] + [(each, "control") for each in self.controls]
        kinds += [(each, "own model") for each in self.own]
        yield "untuned", "control", UNTUNED, 0
        for arm, kind in kinds:
            for budget in self.budgets:
                for seed in range(self.seeds * (2 if arm == "random" else 1)):
                    yield arm, kind, budget, seed
        for seed in range(min(2, self.seeds)):
            yield "full", "control", FULL, seed


def share_of(budget: str) -> float:
    """The share of the pool that a budget stands for."""
    return float(budget.split("%")[0]) / 100 if budget else 0.0


def make_comparison(folder: Path, made: Made | None = None) -> Path:
    """Write a comparison's folder, without its report."""
    made = made or Made()
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(made.seed)
    pool = _pool(made, rng)
    pq.write_table(pool, folder / "pool.parquet")
    chosen = _selections(made, pool, rng)
    pq.write_table(_table(chosen), folder / "selections.parquet")
    runs = [_run(made, run, pool, chosen, rng) for run in made.runs()]
    pq.write_table(_table(runs), folder / "runs.parquet")
    scores = _scores(made, rng)
    pq.write_table(_items(made, scores), folder / "items.parquet", row_group_size=65_536)
    pq.write_table(_table(_asked(made)), folder / "asked.parquet")
    if made.texts:
        pq.write_table(_table(_texts(made, scores)), folder / "texts.parquet")
    stages = _stages(made, runs)
    (folder / "stages.jsonl").write_text("".join(json.dumps(each) + "\n" for each in stages), "utf-8")
    verdict = _verdict(made, scores, runs)
    (folder / "verdict.json").write_text(json.dumps(verdict, indent=1, ensure_ascii=False), "utf-8")
    (folder / "compare.toml").write_text(tomli_w.dumps(_plan(made, pool)), "utf-8")
    return folder


def _table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows))


def _pool(made: Made, rng: np.random.Generator) -> pa.Table:
    """The pool: a tenth each held out and for development, a few rows excluded."""
    records = made_records(made.rows, rng)
    for i, text in enumerate(made.hostile):
        records[i] = (text, text, text[:300], "Latin")
    part = rng.choice(["train", "dev", "holdout"], made.rows, p=(0.8, 0.1, 0.1))
    return pa.table(
        {
            "row": np.arange(made.rows),
            "id": [f"r{i}" for i in range(made.rows)],
            "source": [source for _, _, source, _ in records],
            "part": part.tolist(),
            "answer_tokens": [max(1, len(answer) // 4) for _, answer, _, _ in records],
            "excerpt": [f"{ask[:160]} ⟶ {answer[:160]}" for ask, answer, *_ in records],
            "excluded_by": pa.array(["duplicate" if i % 41 == 40 else None for i in range(made.rows)], pa.string()),
        }
    )


def _selections(made: Made, pool: pa.Table, rng: np.random.Generator) -> list[dict[str, Any]]:
    """What every run chose: random ones uniformly, the others by a liking of their own and some noise."""
    part, excluded = np.array(pool["part"].to_pylist()), pool["excluded_by"].is_valid().to_numpy()
    rows = np.flatnonzero((part == "train") & ~excluded)
    likings: dict[str, np.ndarray] = {}
    found: list[dict[str, Any]] = []
    for arm, _, budget, seed in made.runs():
        if arm == "untuned":
            continue
        name = arm.split("/")[0]
        liking = likings.setdefault(name, rng.normal(size=made.rows))
        noise = rng.normal(size=made.rows)
        key = noise if name.startswith("random") else liking + 0.2 * noise
        inside = rows if budget == FULL else rows[rng.random(len(rows)) < 0.9]
        size = max(1, round(share_of(budget) * len(rows)))
        order = inside[np.argsort(-key[inside], kind="stable")][:size]
        found += [
            {"arm": arm, "budget": budget, "seed": seed, "row": int(row), "rank": rank, "weight": 1.0}
            for rank, row in enumerate(order)
        ]
    return found


def _run(
    made: Made, run: tuple[str, str, str, int], pool: pa.Table, chosen: list[dict[str, Any]], rng: np.random.Generator
) -> dict[str, Any]:
    """One row of `runs.parquet`."""
    arm, kind, budget, seed = run
    lengths = pool["answer_tokens"].to_numpy()
    rows = [each["row"] for each in chosen if (each["arm"], each["budget"], each["seed"]) == (arm, budget, seed)]
    tokens = int(lengths[rows].sum()) if rows else 0
    drawn = arm.startswith("random") or arm in ("full", "untuned", "longest")
    select = 0.0 if drawn else 40 + 30 * rng.random()
    return {
        "arm": arm,
        "method": arm.split("/")[0],
        "budget": budget,
        "seed": seed,
        "kind": kind,
        "rows": len(rows),
        "answer_tokens": tokens,
        "total_tokens": 3 * tokens,
        "steps": math.ceil(len(rows) / 8),
        "epochs": 1.0 if rows else 0.0,
        "learning_rate": 2e-4 if rows else None,
        "address": f"{rng.integers(2**62):016x}",
        "loss_first": 2.5 if rows else None,
        "loss_last": 2.2 - 0.1 * rng.random() if rows else None,
        "select_seconds": select,
        "tune_seconds": 0.02 * tokens,
        "read_seconds": 9.0 + rng.random(),
        "select_tokens": int(400 * select),
        "select_tokens_back": 0,
        "tune_tokens": 9 * tokens,
        "read_tokens": 60_000,
        "money": 0.0,
        "judge_tokens": 0,
        "estimated": False,
        "mean_answer_tokens": tokens / len(rows) if rows else None,
    }


Scores = dict[tuple[str, str, str, int], np.ndarray]


def _scores(made: Made, rng: np.random.Generator) -> Scores:
    """Scores `(items,)` by task, arm, budget and seed."""
    found: Scores = {}
    for task in made.tasks:
        sign = 1 if task.higher_is_better else -1
        difficulty = rng.normal(scale=0.25 * abs(task.at_untuned), size=made.items)
        liking = {name: 0.03 * task.gain * rng.normal(size=made.items) for name in WORTH}
        for arm, _, budget, seed in made.runs():
            name = arm.split("/")[0]
            grown = (share_of(budget) or 1e-9) ** 0.25 if budget else 0.0
            worth = task.gain * grown + (WORTH.get(name, 0.0) if 0 < share_of(budget) < 1 else 0.0)
            worth += 0.012 * rng.normal() * (arm != "untuned")
            left = 0.02 * rng.normal(size=made.items) + liking.get(name, 0.0)
            found[task.name, arm, budget, seed] = task.at_untuned + difficulty + sign * (worth + left)
    return found


def _items(made: Made, scores: Scores) -> pa.Table:
    """Every score, and for the first task a second metric."""
    parts = []
    for (name, arm, budget, seed), values in scores.items():
        task = next(each for each in made.tasks if each.name == name)
        metrics = [(task.metric, task.unit, values)]
        if task is made.tasks[0]:
            metrics.append(("perplexity", "", np.exp(values)))
        for metric, unit, each in metrics:
            texts = {"task": name, "metric": metric, "unit": unit, "arm": arm, "budget": budget}
            same = {key: pa.array([text] * made.items).dictionary_encode() for key, text in texts.items()}
            same |= {"higher_is_better": pa.array([task.higher_is_better] * made.items)}
            same |= {"seed": pa.array([seed] * made.items), "item": pa.array(item_ids(made))}
            same |= {"group": pa.array(group_of(task, made)), "score": pa.array(each)}
            parts.append(pa.table(same))
    return pa.concat_tables(parts).unify_dictionaries()


def item_ids(made: Made) -> list[str]:
    """The items' ids; hostile texts first."""
    return [*made.hostile, *(f"item-{i:05d}" for i in range(len(made.hostile), made.items))]


def group_of(task: Task, made: Made) -> list[str]:
    """The group of every item."""
    return [task.groups[i % len(task.groups)] for i in range(made.items)]


def _asked(made: Made) -> list[dict[str, Any]]:
    """What the items of the first task ask; hostile questions first."""
    return [
        {"task": made.tasks[0].name, "item": item, "asked": f"What of {item}?"[:320], "answer": f"All of {item}"[:320]}
        for item in item_ids(made)
    ]


def _texts(made: Made, scores: Scores) -> list[dict[str, Any]]:
    """What models wrote for the items of the first task at the primary budget."""
    hostile = made.hostile or ("",)
    return [
        {
            "task": task,
            "arm": arm,
            "budget": budget,
            "seed": seed,
            "item": item,
            "text": f"{arm} wrote of {item[:40]} (seed {seed}) {hostile[i % len(hostile)][:2000]}",
        }
        for task, arm, budget, seed in scores
        if task == made.tasks[0].name and budget == made.primary and seed < 2
        for i, item in enumerate(item_ids(made))
    ]


def _stages(made: Made, runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line a stage, as a run folder has them."""
    lines = [("read", None, 0.8, made.rows, 0), ("embedding", None, 31.0, made.rows, 1536 * made.rows)]
    for run in runs:
        if run["select_seconds"]:
            lines.append(("select", run["arm"], run["select_seconds"], 0, 0))
        if run["rows"]:
            lines.append(("tune", run["arm"], run["tune_seconds"], run["rows"], 900_000))
        lines.append(("read tasks", run["arm"], run["read_seconds"], made.items, 8 * made.items))
    return [
        {"stage": stage, "arm": arm, "seconds": seconds, "rows": rows, "stored": 0, "bytes": size}
        | {"peak_memory_bytes": 700 * 2**20, "counts": {}}
        for stage, arm, seconds, rows, size in lines
    ]


def _contrast(made: Made, task: Task, scores: Scores, arm: str, kind: str, budget: str) -> dict[str, Any]:
    """One arm against random on one task, by paired items and pooled runs."""
    against = budget if 0 < share_of(budget) < 1 else made.primary
    arms = [values for key, values in scores.items() if key[:3] == (task.name, arm, budget)]
    drawn = [values for key, values in scores.items() if key[:3] == (task.name, "random", against)]
    sign = 1 if task.higher_is_better else -1
    paired = sign * (np.mean(arms, axis=0) - np.mean(drawn, axis=0))
    runs = [np.mean(each, axis=1) for each in (arms, drawn)]
    noise = sum(float(np.var(each, ddof=1)) / len(each) for each in runs if len(each) > 1)
    error = math.sqrt(float(np.var(paired, ddof=1)) / len(paired) + noise)
    difference = float(paired.mean())
    low, high = difference - T_QUANTILE * error, difference + T_QUANTILE * error
    primary = task is made.tasks[0] and budget == made.primary and kind in ("method", "targeted")
    family = made.methods if kind == "method" else made.targeted
    p = math.erfc(abs(difference) / error / math.sqrt(2))
    inside = -made.margin < low and high < made.margin
    verdict = "better" if low > 0 else "worse" if high < 0 else "no_difference" if inside else "cannot_tell"
    return {
        "method": arm.split("/")[0],
        "arm": arm,
        "budget": budget,
        "task": task.name,
        "metric": task.metric,
        "kind": kind,
        "seeds": len(arms),
        "random_seeds": len(drawn),
        "against": against,
        "unit": task.unit,
        "margin": made.margin,
        "words": f"{verdict.replace('_', ' ')}: {difference:+.4g} {task.unit}, interval {low:+.4g} to {high:+.4g}",
        "items": made.items,
        "value": float(np.mean(arms)),
        "random_value": float(np.mean(drawn)),
        "difference": difference,
        "stderr": error,
        "df": 9.0,
        "interval": [low, high],
        "p": p,
        "p_holm": min(1.0, p * len(family)) if primary else None,
        "smallest_detectable": 2.8 * error,
        "verdict": verdict,
        "next": f"about {math.ceil(len(arms) * (error * 2.8 / made.margin) ** 2)} seeds would settle it"
        if verdict == "cannot_tell"
        else "",
        "unequal": f"{arm} had 29 steps" if arm == "kmq" else "",
        "exploratory": not primary,
    }


def _verdict(made: Made, scores: Scores, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The verdict as `verdict.json` holds it."""
    kinds = {(arm, kind, budget): None for arm, kind, budget, _ in made.runs() if arm != "random"}
    arms = [_contrast(made, task, scores, *key) for task in made.tasks for key in kinds]
    first = made.tasks[0]
    decided = [each for each in arms if not each["exploratory"]]
    better = [each["arm"] for each in decided if each["verdict"] == "better"]
    return {
        "primary": {
            "task": first.name,
            "metric": first.metric,
            "unit": first.unit,
            "higher_is_better": first.higher_is_better,
            "budget": made.primary,
            "margin": made.margin,
            "margin_asked": str(made.margin),
            "equal": "answer tokens",
        },
        "sentence": f"At {made.primary} of the answer tokens, {len(better)} of {len(decided)} methods beat a "
        f"random choice on {first.name}: {', '.join(better) or 'none'}.",
        "arms": arms,
        "curves": _curves(made, scores, runs),
        "enough": [_enough("random", False), _enough("kmq", True)],
        "equivalent": [_equivalent("kmq", 2.3), _equivalent("recost", None)],
        "learning_rates": [
            {"budget": budget, "learning_rate": rate, "dev_loss": 2.3 + rate, "taken": rate == 2e-4}
            for budget in made.budgets
            for rate in (1e-4, 2e-4)
        ],
        "failed": {"recost/wide": "no knowledge was given", **{text: text for text in made.hostile}},
        "left_out_items": {first.name: 2},
        "bill": _bill(made, runs),
        "does_not_speak_for": ["other models than smollm2-135m", "pools unlike this one", *made.hostile],
    }


def _curves(made: Made, scores: Scores, runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds by budget, with twice their standard error."""
    curves = []
    for task in made.tasks:
        for arm in dict.fromkeys(key[1] for key in scores if key[1] != "untuned"):
            points = []
            for budget in dict.fromkeys(key[2] for key in scores if key[1] == arm):
                means = [float(values.mean()) for key, values in scores.items() if key[:3] == (task.name, arm, budget)]
                here = [run for run in runs if (run["arm"], run["budget"]) == (arm, budget)]
                half = 2 * float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else None
                mean = float(np.mean(means))
                points.append(
                    {
                        "budget": budget,
                        "rows": float(np.mean([run["rows"] for run in here])),
                        "answer_tokens": float(np.mean([run["answer_tokens"] for run in here])),
                        "mean": mean,
                        "low": None if half is None else mean - half,
                        "high": None if half is None else mean + half,
                    }
                )
            curves.append({"task": task.name, "metric": task.metric, "arm": arm, "points": points})
    return curves


def _enough(arm: str, identified: bool) -> dict[str, Any]:
    """How much of an arm matches the full pool."""
    reasons = [] if identified else ["3 sizes were measured and 4 are needed: add sizes between them"]
    return {"arm": arm, "task": TASKS[0].name, "unit": "answer tokens", "full": 9100.0, "size": 3100.0} | {
        "low": 2100.0,
        "high": 5200.0,
        "identified": identified,
        "reasons": reasons,
        "certified": 5000.0 if identified else None,
    }


def _equivalent(arm: str, saving: float | None) -> dict[str, Any]:
    """How much of random does as well as an arm."""
    size = 366.0
    return {"arm": arm, "task": TASKS[0].name, "unit": "answer tokens", "size": size, "saving": saving} | {
        "equal_to": None if saving is None else size * saving,
        "low": None if saving is None else size,
        "high": 1000.0,
        "beyond": False,
        "below": saving is None,
        "identified": saving is not None,
        "reasons": [],
        "equal_compute_tokens": 900.0,
        "at_equal_compute": "cannot_tell" if saving else "worse",
    }


def _bill(made: Made, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What was predicted and measured, and from when on choosing pays."""
    full = float(np.mean([run["tune_seconds"] for run in runs if run["arm"] == "full"]))
    steps = ("select", "tune", "read")
    stages, pays = [], []
    for arm, budget in dict.fromkeys((run["arm"], run["budget"]) for run in runs):
        here = [run for run in runs if (run["arm"], run["budget"]) == (arm, budget)]
        means = {
            f"{step}_{what}": float(np.mean([run[f"{step}_{what}"] for run in here]))
            for step in steps
            for what in ("seconds", "tokens")
        }
        stages.append({"arm": arm, "budget": budget, "runs": len(here), **means})
        select, saved = means["select_seconds"], full - means["tune_seconds"]
        if select:
            line = {"arm": arm, "budget": budget, "select_seconds": select, "tune_seconds": means["tune_seconds"]}
            line |= {"full_seconds": full, "share_of_full": select / full}
            pays.append(line | {"pays_from": math.floor(select / saved) + 1 if saved > 0 else None})
    sums = {f"{step}_seconds": sum(run[f"{step}_seconds"] for run in runs) for step in steps}
    predicted = [{key: value for key, value in each.items() if "tokens" not in key} for each in stages]
    return {
        "predicted": {"seconds": 0.9 * sum(sums.values()), **sums, "stages": predicted},
        "measured": {"stages": stages, "seconds": sum(sums.values()), "tokens": 4_200_000, "money": 0.0},
        "full_tuning": {"seconds": full, "measured": True},
        "break_even": pays,
    }


def _plan(made: Made, pool: pa.Table) -> dict[str, Any]:
    """What `compare.toml` says."""
    first = made.tasks[0]
    hostile = {text[:200]: text for text in made.hostile}
    plan = {
        "run": {
            "coretune": "0.1.0",
            "command": "coretune compare pool.jsonl --methods kmq,tagcos,recost,ltd --budgets 1%-tokens,5%-tokens",
            "started": "2025-03-01T10:00:00+00:00",
            "identity": "5f0c6f7e3e0a4c7d",
            "seconds": 5120.0,
        },
        "primary": {
            "task": first.name,
            "budget": made.primary,
            "margin": str(made.margin),
        },
        "plan": {
            "methods": [*made.methods, *made.targeted],
            "controls": ["untuned", "random", *made.controls, "full"],
            "budgets": list(made.budgets),
            "seeds": made.seeds,
            "random_seeds": 2 * made.seeds,
            "model": "smollm2-135m",
            "holdout": 0.1,
            "dev": 0.1,
            "subpool": 0.9,
            "tasks": [task.name for task in made.tasks],
        },
        "compared": {"kmq": {"method": "kmq", "kind": "method", "quality": "answer_loss", **hostile}},
        "history": [{"asked": {"methods": ["kmq"]}, "at": "2025-02-27T10:00:00+00:00"}],
        "tuning": {"rank": 8, "epochs": 1.0, "learning_rate": 2e-4, "batch": 8},
        "pool": {"inputs": ["pool.jsonl"], "fingerprint": "5f0c6f7e", "rows": pool.num_rows, "rejected": 0},
        "leakage": {
            task.name: {"rows": pool.num_rows, "overlapping_rows": i, "items": made.items, "overlapping_items": i}
            | {"rows_by_prompt": i, "items_by_prompt": i, "rows_by_answer": 0, "not_looked_for": {"too short": 1}}
            for i, task in enumerate(made.tasks)
        },
        "versions": {"python": "3.11.7", "numpy": "2.3.1", "torch": "2.13.0"},
    }
    return plan | made.plan
