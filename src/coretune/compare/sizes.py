"""Sizes: each arm's learning curve, the smallest part that matches the full pool, and what random would need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from coretune.compare.arms import FULL, RANDOM, UNTUNED
from coretune.compare.ground import WHOLE, Ground
from coretune.compare.results import Scores
from coretune.statistics.bands import run_band
from coretune.statistics.enough import enough
from coretune.statistics.equivalent import equivalent_size
from coretune.statistics.extrapolated import extrapolated

LEAST_SIZES = 3  # of a curve that is followed to where nothing was measured


def curves(scores: Scores, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each arm's means over its budgets, in order of answer tokens, with the spread of its runs."""
    found = []
    for name in dict.fromkeys(arm for arm, _ in scores.arms):
        points: list[dict[str, Any]] = []
        for (arm, budget), values in scores.arms.items():
            if arm != name or arm == UNTUNED:
                continue
            low, high = run_band(values.mean(axis=1)) or (None, None)
            sizes = _sizes(rows, arm, budget)
            points.append({"budget": budget, **sizes, "mean": float(values.mean()), "low": low, "high": high})
        if points:
            points.sort(key=lambda point: point["answer_tokens"])
            said = {"task": scores.task, "metric": scores.metric, "unit": scores.unit, "arm": name, "points": points}
            found.append(said)
    return found


def _sizes(rows: Sequence[Mapping[str, Any]], arm: str, budget: str) -> dict[str, float]:
    mine = [row for row in rows if row["arm"] == arm and row["budget"] == budget]
    return {name: float(np.mean([row[name] for row in mine])) for name in ("rows", "answer_tokens")}


def _curve_of(scores: Scores, arm: str, rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[np.ndarray]]:
    """Sizes in answer tokens and scores of an arm, the full pool last, where it was tuned on."""
    keys = [key for key in scores.arms if key[0] == arm or key == (FULL, WHOLE)]
    sized = sorted((_sizes(rows, *key)["answer_tokens"], key) for key in keys)
    return [size for size, _ in sized], [scores.arms[key] for _, key in sized]


def smallest_matching(ground: Ground, scores: Scores, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The smallest part that matches the full pool within the margin, for each arm with enough sizes."""
    if (FULL, WHOLE) not in scores.arms:
        return []
    found = []
    margin = ground.plan.margin_of(scores.mean((FULL, WHOLE)))
    untuned = scores.arms.get((UNTUNED, ""))
    for arm in ground.arms:
        sizes, values = _curve_of(scores, arm.name, rows)
        if not arm.chooses or len(sizes) < 2 or len(set(sizes)) < len(sizes):
            continue
        rng = np.random.default_rng(ground.plan.seed)
        made = enough(sizes, values, margin=margin, higher_is_better=scores.higher_is_better, rng=rng, untuned=untuned)
        found.append({"arm": arm.name, "task": scores.task, "unit": "answer tokens", "full": sizes[-1], **_plain(made)})
    return found


def full_estimate(ground: Ground, scores: Scores, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What random's curve points to at the full pool, where that was not tuned on; None for fewer than 3 sizes."""
    sizes, values = _curve_of(scores, RANDOM, rows)
    if (FULL, WHOLE) in scores.arms or len(sizes) < LEAST_SIZES or len(set(sizes)) < len(sizes):
        return None
    made = extrapolated(
        *(sizes, values),
        size=float(ground.tokens[ground.train].sum()),
        higher_is_better=scores.higher_is_better,
        rng=np.random.default_rng(ground.plan.seed),
    )
    return {"task": scores.task, "unit": scores.unit, "of": "answer tokens", "estimated": True, **_plain(made)}


def equivalent_sizes(ground: Ground, scores: Scores, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How much of random would do as well as each arm at the primary budget."""
    sizes, values = _curve_of(scores, RANDOM, rows)
    if len(sizes) < 2:
        return []
    found = []
    for arm in ground.arms:
        key = (arm.name, ground.primary[1])
        if arm.name == RANDOM or not arm.chooses or key not in scores.arms:
            continue
        made = equivalent_size(
            *(sizes, values),
            chosen=scores.arms[key],
            size=_sizes(rows, *key)["answer_tokens"],
            higher_is_better=scores.higher_is_better,
            rng=np.random.default_rng(ground.plan.seed),
        )
        line = {"arm": arm.name, "budget": key[1], "task": scores.task, "unit": "answer tokens", **_plain(made)}
        found.append(line | _at_equal_compute(line, [row for row in rows if (row["arm"], row["budget"]) == key]))
    return found


def _at_equal_compute(line: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether an arm beats random that trains for as long as the arm chooses and trains.

    In that time random trains on more tokens, in proportion. The arm is better where it is surely worth more random
    tokens than that, worse where it is surely worth fewer.
    """
    select, tune = (float(np.mean([row[f"{step}_seconds"] for row in rows])) for step in ("select", "tune"))
    tokens = line["size"] * (select + tune) / tune if tune else math.inf
    low, high = line["low"], line["high"]
    said = "better" if low is not None and low > tokens else "cannot_tell"
    if high is not None and high < tokens:
        said = "worse"
    return {"equal_compute_tokens": _number(tokens), "at_equal_compute": said}


def _plain(made: Any) -> dict[str, Any]:
    """A dataclass as JSON has it, numbers that are not finite as none."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return _number(value) if isinstance(value, float) else value

    said: dict[str, Any] = plain(asdict(made))
    return said


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
