"""Learning rates and lengths: tried with equal trials on random, and how much depends on them afterwards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from coretune.compare.arms import FULL, RANDOM, Run
from coretune.compare.ground import WHOLE, Asked
from coretune.compare.running import Course, Done, Setting

log = logging.getLogger(__name__)


def settle(course: Course) -> list[dict[str, Any]]:
    """Try the plan's learning rates and lengths on random at each budget, and on the full pool; take dev's best.

    Returns a line a trial: budget, learning_rate, epochs, loss on dev, and whether it was taken.
    """
    ground = course.ground
    plan, arms = ground.plan, {arm.name: arm for arm in ground.arms}
    budgets = [*plan.budgets, *([WHOLE] if FULL in arms else [])]
    lengths = plan.lengths or (ground.tuning.epochs,)
    tried = [Setting(rate, epochs) for epochs in lengths for rate in plan.learning_rates]
    course.settings = dict.fromkeys(budgets, tried[0])
    lines: list[dict[str, Any]] = []
    for budget in budgets if len(tried) > 1 else ():
        assert ground.dev is not None
        run = Run(arms[FULL] if budget == WHOLE else arms[RANDOM], budget, 0)
        done = course.carried_out([run] * len(tried), tried, [ground.dev])
        losses = [_mean(each, ground.dev) for each in done]
        best = course.settings[budget] = tried[int(np.argmin(losses))]
        for each, loss in zip(tried, losses, strict=True):
            lines.append({"budget": budget, **asdict(each), "dev_loss": loss, "taken": each == best})
        for name, all_of in (("learning rate", plan.learning_rates), ("length", plan.lengths)):
            value = best.learning_rate if name == "learning rate" else best.epochs
            if len(all_of) > 2 and value in (min(all_of), max(all_of)):
                log.warning("at %s the best %s, %g, is at an end of those tried", budget, name, value)
    return lines


def tried_rates(
    course: Course, arms: Sequence[str], factors: Sequence[float] = (0.5, 1.0, 2.0)
) -> list[dict[str, Any]]:
    """The primary task at other learning rates, for these arms at the primary budget: one run of each.

    Returns a line a run: arm, learning_rate, value, and whether it is the rate of the comparison.
    """
    task, budget = course.ground.primary
    known = {arm.name: arm for arm in course.ground.arms}
    lines = []
    for name in arms:
        own = course.settings[budget]
        tried = [replace(own, learning_rate=own.learning_rate * factor) for factor in factors]
        done = course.carried_out([Run(known[name], budget, 0)] * len(tried), tried, [task])
        for each, setting in zip(done, tried, strict=True):
            said = {"learning_rate": setting.learning_rate, "taken": setting == own}
            lines.append({"arm": name, "value": _mean(each, task), **said})
    return lines


def _mean(done: Done, task: Asked) -> float:
    """The mean of a task's own metric."""
    return float(np.mean(done.scores(task)[done.said(task)["metric"]].to_numpy()))
