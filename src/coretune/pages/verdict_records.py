"""What `verdict.json` says, as records with types; numbers that it does not have are NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERDICTS = ("better", "worse", "no_difference", "cannot_tell")
RANDOM, UNTUNED, FULL = "random", "untuned", "full"  # arms that every comparison has


@dataclass(frozen=True)
class Primary:
    """What was declared before anything was trained."""

    task: str
    metric: str
    unit: str
    higher_is_better: bool
    budget: str
    margin: float
    equal: str
    """What the arms have equally much of: answer tokens, or rows."""


@dataclass(frozen=True)
class Contrast:
    """An arm against random on a task; `difference` is oriented so that positive is better."""

    arm: str
    budget: str
    against: str
    """The budget of the random runs that it is held against."""
    task: str
    metric: str
    unit: str
    kind: str
    verdict: str
    words: str
    next: str
    unequal: str
    exploratory: bool
    seeds: int
    random_seeds: int
    items: int
    value: float
    random_value: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    smallest_detectable: float


@dataclass(frozen=True)
class Point:
    """A budget on a learning curve; `low` and `high` are NaN where one run gives no band."""

    budget: str
    rows: float
    answer_tokens: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A task's value over budgets for one arm."""

    task: str
    metric: str
    arm: str
    points: Sequence[Point]


def number(value: Any) -> float:
    """A number of a file, NaN where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if math.isfinite(value) else math.nan


def whole(value: Any) -> int:
    """A count of a file, 0 where it is none."""
    found = number(value)
    return int(found) if math.isfinite(found) else 0


def text(value: Any) -> str:
    """A text of a file, empty where it is none."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def table_of(value: Any) -> Mapping[str, Any]:
    """A table of a file, empty where it is none."""
    return value if isinstance(value, Mapping) else {}


def list_of(value: Any) -> list[Any]:
    """A list of a file, empty where it is none."""
    return value if isinstance(value, list) else []


def tables_of(value: Any) -> list[Mapping[str, Any]]:
    """A list of tables of a file, empty where it is none."""
    return [table_of(each) for each in list_of(value)]


def read_primary(said: Mapping[str, Any]) -> Primary:
    """What was declared. Raises `ValueError`, naming what is missing."""
    part(said, "sentence", str)
    primary = part(said, "primary", dict)
    task, metric, budget = (part(primary, name, str, "primary: ") for name in ("task", "metric", "budget"))
    higher = part(primary, "higher_is_better", bool, "primary: ")
    equal = text(primary.get("equal")) or ("answer tokens" if budget.endswith("tokens") else "rows")
    return Primary(task, metric, text(primary.get("unit")), higher, budget, number(primary.get("margin")), equal)


def read_contrast(said: Any, where: str, primary: Primary) -> Contrast:
    """A line of the verdict's arms. Raises `ValueError`, naming what is wrong with it."""
    if not isinstance(said, dict):
        raise ValueError(f"{where} is a {type(said).__name__}, and should be a dict")
    arm, task, metric, verdict = (part(said, name, str, f"{where}: ") for name in ("arm", "task", "metric", "verdict"))
    if verdict not in VERDICTS:
        raise ValueError(f"{where} has the verdict {verdict[:80]!r}; there are {', '.join(VERDICTS)}")
    interval = [number(each) for each in list_of(said.get("interval"))]
    low, high = interval if len(interval) == 2 else (math.nan, math.nan)
    same = (task, metric) == (primary.task, primary.metric)
    return Contrast(
        arm=arm,
        budget=text(said.get("budget")),
        against=text(said.get("against")) or text(said.get("budget")) or primary.budget,
        task=task,
        metric=metric,
        unit=text(said.get("unit")) or (primary.unit if same else ""),
        kind=text(said.get("kind")),
        verdict=verdict,
        words=text(said.get("words")),
        next=text(said.get("next")),
        unequal=text(said.get("unequal")),
        exploratory=said.get("exploratory") is not False,
        seeds=whole(said.get("seeds")),
        random_seeds=whole(said.get("random_seeds")),
        items=whole(said.get("items")),
        value=number(said.get("value")),
        random_value=number(said.get("random_value")),
        difference=number(said.get("difference")),
        low=low,
        high=high,
        p=number(said.get("p")),
        p_holm=number(said.get("p_holm")),
        smallest_detectable=number(said.get("smallest_detectable")),
    )


def read_curve(said: Mapping[str, Any]) -> Curve:
    """A learning curve; points without a value are none."""
    names = ("rows", "answer_tokens", "mean", "low", "high")
    points = [
        Point(text(each.get("budget")), *[number(each.get(name)) for name in names])
        for each in tables_of(said.get("points"))
    ]
    known = [each for each in points if math.isfinite(each.mean)]
    return Curve(text(said.get("task")), text(said.get("metric")), text(said.get("arm")), known)


def part(said: Mapping[str, Any], name: str, kind: type, where: str = "") -> Any:
    """A part that a verdict cannot be without. Raises `ValueError`, naming it."""
    if not isinstance(said.get(name), kind):
        found = f"is a {type(said[name]).__name__}" if name in said else "is absent"
        raise ValueError(f"{where}{name!r} {found}, and should be a {kind.__name__}")
    return said[name]
