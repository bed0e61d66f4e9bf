"""What can be chosen before anything is tuned, so that a budget which an arm cannot meet is found at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from coretune.compare.arms import EVERY_EPOCH, LENGTH_MATCHED, RANDOM, UNTUNED, Run
from coretune.compare.forecast import Forecast
from coretune.compare.running import Course
from coretune.errors import CoretuneError, UnmetBudget

log = logging.getLogger(__name__)

LATER = (EVERY_EPOCH, LENGTH_MATCHED)  # they wait for the length of the tuning, or for what others choose


def unmet_budgets(course: Course, lines: Forecast) -> list[str]:
    """Choose for all runs that choose soon; returns a line for each arm and budget that is more than there is.

    What is chosen is kept for the run's turn. An arm chooses soon if it tunes nothing for it and takes no longer than
    the baselines do to be tuned and read: dearer ones wait until what can be detected is known. An arm that the
    forecast knows nothing of is tried. Other errors are left to the arm's turn.
    """
    ground = course.ground
    unmet: dict[tuple[str, str], str] = {}
    broken: set[str] = set()
    waits = sum(sum(lines.of(ground, run).values()) for run in ground.runs if run.arm.name in (UNTUNED, RANDOM))
    for run in ground.runs:
        key = run.arm.name, run.budget
        if key in unmet or run.arm.name in broken or not run.arm.chooses or not _soon(run, lines, waits):
            continue
        try:
            course.choice(run)
        except UnmetBudget as error:
            unmet[key] = f"{run.label}: {error}"
        except (CoretuneError, ValueError) as error:
            log.debug("%s cannot choose: %s", run.label, error)
            broken.add(run.arm.name)
    return list(unmet.values())


def refusal(unmet: Sequence[str]) -> str:
    """What is said of a plan with budgets that cannot be met."""
    listed = "\n".join(f"  {line}" for line in unmet)
    return f"nothing was tuned, since not every arm can meet every budget:\n{listed}"


def _soon(run: Run, lines: Forecast, waits: float) -> bool:
    """Whether a run is to choose before anything is tuned."""
    if run.arm.method in LATER or not isinstance(lines.paid_as(run), str):
        return False
    line = lines.select.get(run.arm.name)
    return line is None or line.at(lines.rows) <= waits
