"""At equal compute: random that trains for as long as a method chooses and trains."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from coretune.compare.arms import RANDOM, Run
from coretune.compare.choosing import Chosen, choosable, cost_of_stages
from coretune.compare.ground import Ground
from coretune.rounds import run as run_method
from coretune.runs import make_method

if TYPE_CHECKING:
    from coretune.lab import Lab

LEAST = 1.05  # times random's own length, below which both are the same arm


def times_longer(select_seconds: float, tune_seconds: float) -> float:
    """How many times as long as a method trains it takes to choose and train."""
    return (select_seconds + tune_seconds) / tune_seconds if tune_seconds > 0 else math.inf


def drawn_as_long(ground: Ground, run: Run, times: float, seed: int, lab: Lab) -> Chosen:
    """A random draw of so many times the budget, at most all that a run may choose from."""
    rows = choosable(ground, seed)
    amount = ground.amount(run.budget)
    there = int(ground.tokens[rows].sum()) if amount.in_tokens else len(rows)
    wide = replace(amount, amount=int(min(there, round(int(amount.amount or 0) * min(times, float(there))))))
    done = run_method(
        *(make_method(RANDOM, {}), ground.pool.subset(rows), wide, lab),
        seed=seed,
        model=ground.plan.model,
        template=ground.plan.template,
    )
    notes = {"times": times, "asked": wide.amount, "all_there_is": wide.amount == there}
    return Chosen(rows[done.selection.rows], None, None, cost_of_stages([]), notes)
