"""The bill beforehand: small probes of tuning, reading and every method, two sizes each, and straight lines through."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from coretune.compare.arms import EVERY_EPOCH, FULL, LENGTH_MATCHED, RANDOM, UNTUNED, Arm, Run
from coretune.compare.choosing import by_method, cost_of_stages
from coretune.compare.ground import Asked, Ground
from coretune.errors import CoretuneError
from coretune.evaluation import Subject
from coretune.lab import Lab

log = logging.getLogger(__name__)

ROWS = (48, 144)  # on which methods are probed
FEWEST = 4  # rows that they choose of these, at least
ITEMS = (8, 24)
BATCHES = (1, 3)  # optimizer steps of a probe of the tuning
FREE = (RANDOM, "random_by_source", EVERY_EPOCH, LENGTH_MATCHED, FULL, UNTUNED)  # choose in no time
Tunes = Literal["never", "before", "meanwhile"]  # when a method tunes a model of its own, seen from what it chooses


@dataclass(frozen=True)
class Line:
    """Seconds that something takes: `fixed`, and so many for `each` row, item or token."""

    fixed: float
    each: float

    @classmethod
    def through(cls, sizes: Sequence[float], seconds: Sequence[float]) -> Line:
        """The line through measured points, with nothing below 0."""
        x, y = np.asarray(sizes, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
        if len(set(sizes)) < 2:
            return cls(0.0, float(y.mean() / max(1.0, x.mean())))
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
        if slope <= 0 or y.mean() < slope * x.mean():
            return cls(0.0, float(y.sum() / x.sum()))
        return cls(float(y.mean() - slope * x.mean()), slope)

    def at(self, size: float) -> float:
        """Seconds at a size."""
        return self.fixed + self.each * size


@dataclass(frozen=True)
class Forecast:
    """What runs will take: tuning by tokens that are trained on, reading by items, choosing by rows of the pool."""

    tune: Line
    read: Mapping[str, Line]
    select: Mapping[str, Line]
    tokens_a_row: float
    rows: int  # that a run chooses from
    items: Mapping[str, int]
    row_bytes: Mapping[str, float]  # that each method's features take in the store
    memory_bytes: int  # at most, of this process and its workers, in all probes
    loops: frozenset[str] = frozenset()  # arms that tune while they choose: no run shares that with another
    warmed: frozenset[str] = frozenset()  # arms that tune before they choose: all budgets of a seed share it

    def of(self, ground: Ground, run: Run) -> dict[str, Any]:
        """Seconds of a run alone, step by step."""
        tokens = _trained_tokens(ground, run, self.tokens_a_row)
        line = self.select.get(run.arm.name)
        return {
            "select": line.at(self.rows) if line else 0.0,
            "tune": self.tune.at(tokens) if tokens else 0.0,
            "read": sum(each.at(self.items[name]) for name, each in self.read.items()),
        }

    def paid_as(self, run: Run) -> str | tuple[str, int] | Run:
        """What a run's choice is paid for with: once for an arm, once for each of its seeds, or for every run."""
        name = run.arm.name
        return run if name in self.loops else (name, run.seed) if name in self.warmed else name

    def words(self, ground: Ground) -> dict[str, Any]:
        """The bill of a whole comparison, as `verdict.json` has it. What runs share is counted once, for choosing."""
        lines = [{"arm": run.arm.name, "budget": run.budget, **self.of(ground, run)} for run in ground.runs]
        choices = {self.paid_as(run): line["select"] for run, line in zip(ground.runs, lines, strict=True)}
        apart = sum(seconds for paid, seconds in choices.items() if not isinstance(paid, str))
        steps = {
            "select": sum(choices.values()),
            "tune": sum(line["tune"] for line in lines),
            "read": sum(line["read"] for line in lines),
        }
        keys = dict.fromkeys((line["arm"], line["budget"]) for line in lines)
        first = [next(each for each in lines if (each["arm"], each["budget"]) == key) for key in keys]
        stages = [{f"{k}_seconds" if k in steps else k: v for k, v in each.items()} for each in first]
        said = {"seconds": sum(steps.values()), **{f"{k}_seconds": v for k, v in steps.items()}}
        return said | {"apart_seconds": apart, "stages": stages}


def forecast(ground: Ground, lab: Lab) -> Forecast:
    """Probe tuning, reading and every method on a few rows; what is measured stays in the store and is used again.

    A method that cannot choose from so few rows is left out, with a warning.
    """
    from coretune.tuning.training import trainer_class

    trainer_class()  # loads what every run would otherwise seem to need a long time for
    rows = np.random.default_rng(ground.plan.seed).permutation(ground.train)
    probes: list[Lab] = []
    lengths, spent = [], []
    for batches in BATCHES:
        some = rows[: min(len(rows), batches * ground.tuning.batch_rows)]
        probe = _lab(lab, probes)
        probe.tune(replace(ground.tuning, epochs=1.0, checkpoints=()), ground.pool, some)
        spent.append(cost_of_stages(probe.stages))
        lengths.append(len(some))
    tokens = [each["tokens"] for each in spent]
    read = {task.name: line for task in ground.tasks if (line := _read_line(ground, task, lab, probes)) is not None}
    arms = [arm for arm in ground.arms if arm.method not in FREE]
    select = {arm.name: found for arm in arms if (found := _select_line(ground, arm, rows, lab, probes)) is not None}
    return Forecast(
        tune=Line.through(tokens, [each["seconds"] for each in spent]),
        read=read,
        select={name: line for name, (line, _, _) in select.items()},
        loops=frozenset(name for name, (_, _, tunes) in select.items() if tunes == "meanwhile"),
        warmed=frozenset(name for name, (_, _, tunes) in select.items() if tunes == "before"),
        tokens_a_row=tokens[-1] / lengths[-1],
        rows=round(ground.plan.sub_pool * len(ground.train)),
        items={task.name: len(task.items or ()) for task in ground.tasks},
        row_bytes={name: row_bytes for name, (_, row_bytes, _) in select.items()},
        memory_bytes=max(stage.peak_memory_bytes for each in probes for stage in each.stages),
    )


def announce_bill(words: Mapping[str, Any], runs: int, at_once: int = 1) -> str:
    """The predicted bill in a sentence, for so many runs side by side."""
    parts = (("select", "choosing"), ("tune", "tuning"), ("read", "reading"))
    said = ", ".join(f"{duration(words[f'{step}_seconds'])} {name}" for step, name in parts)
    took = duration(elapsed(words, at_once)) + " on this machine" + (f", {at_once} at once" if at_once > 1 else "")
    return f"{runs} runs will take about {took}, if nothing is stored: {said} in all"


def elapsed(words: Mapping[str, Any], at_once: int = 1) -> float:
    """Seconds from start to end where `at_once` runs are tuned and read, and choices that tune made, side by side."""
    apart = words["tune_seconds"] + words["read_seconds"] + words["apart_seconds"]
    return float(words["seconds"] - apart + apart / at_once)


def duration(seconds: float) -> str:
    """So long, no finer than a forecast can be: `43 s`, `12 min`, `3.2 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _lab(lab: Lab, probes: list[Lab]) -> Lab:
    """A lab of a probe's own, with its stages alone."""
    probes.append(Lab(lab.store, map=lab.map, progress=lab.progress))
    return probes[-1]


def _trained_tokens(ground: Ground, run: Run, tokens_a_row: float) -> float:
    """Tokens that a run trains on: all epochs, prompts with answers."""
    if run.arm.method == UNTUNED:
        return 0.0
    rows: float = len(ground.train)
    if run.arm.chooses:
        amount = ground.amount(run.budget)
        rows = float(amount.amount or 0)
        if amount.in_tokens:
            rows /= max(1.0, float(ground.tokens[ground.train].mean()))
    if ground.plan.steps is not None:
        return ground.plan.steps * ground.tuning.batch_rows * tokens_a_row
    return rows * tokens_a_row * max(ground.plan.lengths, default=ground.tuning.epochs)


def _read_line(ground: Ground, task: Asked, lab: Lab, probes: list[Lab]) -> Line | None:
    """What reading takes, of the untuned model; None for a task without items of its own (the harness)."""
    items = task.items
    if items is None:
        return None
    seconds, sizes = [], []
    for count in ITEMS:
        few = items.subset(range(min(count, len(items))))
        probe = _lab(lab, probes)
        some: Any = task.task
        replace(some, items=few).read(Subject(ground.plan.model, probe, None, ground.plan.template))
        seconds.append(cost_of_stages(probe.stages)["seconds"])
        sizes.append(len(few))
    return Line.through(sizes, seconds)


def _probe_budget(ground: Ground, rows: int) -> str:
    """So many of a probe's rows as the primary budget takes of the pool's: loops cost by what they choose."""
    amount = ground.amount(ground.primary[1])
    there = int(ground.tokens[ground.train].sum()) if amount.in_tokens else len(ground.train)
    return f"{min(rows // 2, max(FEWEST, round(rows * (amount.amount or 0) / max(1, there))))}"


def _select_line(
    ground: Ground, arm: Arm, rows: np.ndarray, lab: Lab, probes: list[Lab]
) -> tuple[Line, float, Tunes] | None:
    """What choosing takes, on two small pools, the bytes a row of what it measures, and when it tunes, if it does."""
    seconds, sizes, row_bytes = [], [], 0.0
    tunes: Tunes = "never"
    for count in ROWS:
        some = np.sort(rows[:count])
        budget = _probe_budget(ground, len(some))
        small = replace(ground, train=some, plan=replace(ground.plan, budgets=(budget,), primary_budget=None))
        probe = _lab(lab, probes)
        try:
            done = by_method(small, Run(arm, budget, 0), some, probe, seed=0)
        except (CoretuneError, ValueError) as error:
            log.warning("what %s will take is not predicted: on %d rows it says: %s", arm.name, count, error)
            return None
        if done.rounds[-1].model is not None:
            tunes = "meanwhile"
        elif any(stage.name.startswith("tune ") for stage in probe.stages):
            tunes = "before"
        seconds.append(cost_of_stages(probe.stages)["seconds"])
        sizes.append(len(some))
        row_bytes = sum(feature.nbytes / max(1, len(feature)) for _, feature in probe.measured)
    return Line.through(sizes, seconds), row_bytes, tunes
