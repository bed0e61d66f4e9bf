"""Advice: pilots of the methods that can be afforded, a choice on some seeds, its size on fresh ones, and the plan.

A pilot is a comparison on few rows of the pool, at two pool sizes. The best method is chosen on one comparison and its
gain estimated by another, of other rows, splits and seeds: the best of several always looks better than it is.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coretune.compare import Plan, compare
from coretune.compare.forecast import Forecast, duration, elapsed, forecast
from coretune.compare.ground import Ground, lay
from coretune.compare.plan import HELD_OUT
from coretune.readers import read_pool
from coretune.splits import share_or_count

if TYPE_CHECKING:
    from coretune.lab import Lab

log = logging.getLogger(__name__)

ADVICE = "advice.json"
SIZES = (16_000, 8_000, 4_000, 2_000, 1_000, 600, 300)  # rows of the larger pilot, tried from the largest
SMALLER, SMALLEST = 3, 100  # the smaller pilot has a third of the rows, but so many at least
SEEDS = (5, 3, 2)
SPENT = 0.9  # of the hours, on pilots and on the fresh comparison; the rest is for probes, and for mistakes of theirs
DEAR = 0.25  # of the hours that choosing by one method alone may take
FAR = 10  # how many times larger a pool may be before the pilot says nothing of it


@dataclass(frozen=True)
class Affordable:
    """What fits into the hours: rows and seeds of the pilots, the methods, and those that are too dear."""

    rows: int
    seeds: int
    methods: tuple[str, ...]
    too_dear: Mapping[str, float]
    seconds: float


def advise(
    plan: Plan,
    hours: float,
    out: Path,
    lab: Lab,
    *,
    engine: Callable[..., Iterable[Any]] | None = None,
) -> dict[str, Any]:
    """Pilot, choose, estimate anew and recommend; returns what `advice.json` holds, in the folder `out`.

    `plan` says the pool, the model, the methods, the tasks and the margin. Raises `ValueError` where the hours are
    too few for the smallest pilot, and what comparing raises.
    """
    if not hours > 0:
        raise ValueError(f"{hours} hours given; give more than 0")
    rows = len(read_pool(*plan.inputs, columns=dict(plan.columns) or None))
    size = min(rows, SIZES[0])
    probed = replace(plan, rows=None if size == rows else size)
    ground = lay(probed, lab)
    lines = forecast(ground, lab)
    afford = affordable(ground, lines, rows, hours * 3600, getattr(engine, "at_once", 1))
    smaller = fewer_rows(afford.rows)
    log.info(
        "pilots on %s and %s rows with %d seeds of %s, and fresh seeds of the best: about %s",
        f"{smaller:,}",
        f"{afford.rows:,}",
        afford.seeds,
        ", ".join(afford.methods) or "random alone",
        duration(afford.seconds),
    )
    first = replace(plan, rows=afford.rows, seeds=afford.seeds, random_seeds=None, methods=afford.methods)
    pilots = [
        compare(each, out / name, lab, engine=engine, leave_out_unmet=True).verdict
        for name, each in (
            ("pilot-small", replace(first, rows=smaller)),
            ("pilot", first),
        )
    ]
    chosen = best_of(pilots[-1])
    fresh = replace(first, methods=(chosen,) if chosen else (), seed=plan.seed + 1)
    estimate = compare(fresh, out / "fresh", lab, engine=engine, leave_out_unmet=True).verdict
    said = {
        "recommendation": recommend(estimate, chosen, rows, afford.rows),
        "chosen": chosen,
        "pilots": [_gains(each) for each in pilots],
        "estimate": _gains(estimate),
        "too_dear": dict(afford.too_dear),
        "pilot_rows": afford.rows,
        "pool_rows": rows,
        "plan": full_run(ground, lines, chosen, rows),
    }
    (out / ADVICE).write_text(json.dumps(said, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return said


def fewer_rows(rows: int) -> int:
    """Rows of the smaller pilot."""
    return max(SMALLEST, rows // SMALLER)


def affordable(ground: Ground, lines: Forecast, rows: int, seconds: float, at_once: int = 1) -> Affordable:
    """The largest pilots with the most seeds that fit, with the fresh comparison after them, by the forecast.

    `at_once` runs go side by side. Raises `ValueError` where none fits.
    """
    names = [arm.name for arm in ground.arms if arm.kind in ("method", "targeted")]
    dear = {
        name: line.at(min(rows, SIZES[0]))
        for name, line in lines.select.items()
        if name in names and line.at(SIZES[-1]) > DEAR * seconds
    }
    names = [name for name in names if name not in dear]
    least = math.inf
    for size in (each for each in (min(rows, SIZES[0]), *SIZES) if each <= rows):
        for seeds in SEEDS:
            try:
                took = advice_seconds(ground, lines, names, size, seeds, at_once)
            except ValueError as error:  # so few rows hold less than a budget
                if not math.isfinite(least):
                    raise ValueError(f"a pilot on {size:,} rows: {error}") from error
                break
            least = min(least, took)
            if took <= SPENT * seconds:
                return Affordable(size, seeds, tuple(names), dear, took)
    enough = math.ceil(least / SPENT / 360) / 10
    raise ValueError(
        f"{seconds / 3600:g} hours are too few: the smallest pilots and the fresh comparison take about "
        f"{duration(least)}, and {SPENT:.0%} of the hours are for them. Give --hours {enough:g}, fewer methods or tasks"
    )


def advice_seconds(
    ground: Ground, lines: Forecast, names: Sequence[str], rows: int, seeds: int, at_once: int = 1
) -> float:
    """What both pilots take, the larger one of so many rows, and the fresh comparison of their dearest method."""
    sizes = (fewer_rows(rows), rows)
    pilots = sum(pilot_seconds(ground, lines, names, size, seeds, at_once) for size in sizes)
    fresh = max((pilot_seconds(ground, lines, [name], rows, seeds, at_once) for name in names), default=0.0)
    return pilots + (fresh or pilot_seconds(ground, lines, (), rows, seeds, at_once))


def pilot_seconds(
    ground: Ground, lines: Forecast, names: Sequence[str], rows: int, seeds: int, at_once: int = 1
) -> float:
    """What a comparison of these methods and all controls takes on so many rows of the pool, from start to end."""
    share = rows / max(1, len(ground.pool))
    train = ground.train[np.linspace(0, len(ground.train) - 1, max(1, round(share * len(ground.train)))).astype(int)]
    arms = tuple(arm for arm in ground.arms if arm.kind == "control" or arm.name in names)
    plan = replace(ground.plan, seeds=seeds, random_seeds=None)
    grows = isinstance(share_or_count(ground.plan.holdout), float)
    held = {task.name for task in ground.tasks if grows and task.text == HELD_OUT}
    items = {name: round(count * share) if name in held else count for name, count in lines.items.items()}
    there = replace(lines, rows=round(lines.rows * share), items=items)
    return elapsed(there.words(replace(ground, plan=plan, train=train, arms=arms)), at_once)


def best_of(verdict: Mapping[str, Any]) -> str | None:
    """The method with the largest gain over random; None where no method has one above 0."""
    gains = {line["arm"]: line["difference"] for line in verdict["arms"] if not line["exploratory"]}
    best = max(gains, key=lambda name: gains[name], default=None)
    return best if best is not None and gains[best] > 0 else None


def recommend(estimate: Mapping[str, Any], chosen: str | None, rows: int, pilot: int) -> dict[str, Any]:
    """What to do, from the fresh comparison alone: a method, random, everything, or more seeds first."""
    primary = estimate["primary"]
    arms = {line["arm"]: line for line in estimate["arms"] if line["task"] == primary["task"]}
    line, full = arms.get(chosen or ""), arms.get("full")
    everything = full is not None and full["verdict"] == "better" and full["interval"][0] > primary["margin"]
    if line is not None and line["verdict"] == "better":
        what, why = str(chosen), line["words"]
    elif line is None or line["verdict"] in ("no_difference", "worse"):
        what, why = "random", "no method gained anything over random" if line is None else line["words"]
    else:
        what, why = "random", f"{chosen} cannot be told from random: {line['words']}. {line['next']}"
    said = f"use {what} at {primary['budget']}" if not everything else f"use everything if you can; else {what}"
    found: dict[str, Any] = {"use": what, "budget": primary["budget"], "words": f"{said} ({why})", "full": None}
    if full is not None:
        found["full"] = f"the whole pool against random at {primary['budget']}: {full['words']}"
    found["beyond_the_pilot"] = rows > FAR * pilot
    if found["beyond_the_pilot"]:
        found["words"] += (
            f". The pool has {rows:,} rows, {rows / pilot:.0f} times the pilot's {pilot:,}: this says what holds for "
            "pools of the pilot's size and not for yours. Give more hours"
        )
    return found


def full_run(ground: Ground, lines: Forecast, chosen: str | None, rows: int) -> dict[str, Any]:
    """What choosing from the whole pool and tuning on the choice will take: seconds, disk, memory."""
    _, budget = ground.primary
    scale = rows / max(1, len(ground.pool))
    amount = ground.amount(budget)
    there = int(ground.tokens[ground.train].sum()) if amount.in_tokens else len(ground.train)
    share = int(amount.amount or 0) / there
    tokens = lines.tokens_a_row * len(ground.train) * scale * ground.tuning.epochs
    line = lines.select.get(chosen or "")
    return {
        "select_seconds": line.at(rows) if line else 0.0,
        "tune_seconds": lines.tune.at(share * tokens),
        "tune_everything_seconds": lines.tune.at(tokens),
        "disk_bytes": round(lines.row_bytes.get(chosen or "", 0.0) * rows),
        "memory_bytes": lines.memory_bytes,
    }


def _gains(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each arm's difference to random on the primary task, at every budget."""
    names = ("arm", "budget", "kind", "difference", "interval", "unit", "seeds", "items", "verdict", "words")
    primary = verdict["primary"]["task"]
    return [{name: line[name] for name in names} for line in verdict["arms"] if line["task"] == primary]
