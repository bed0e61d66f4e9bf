"""Screening: a cheap score says which rows a method's costly one is measured on. Off unless it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from coretune.cascade import cascade, refuse_odd_share
from coretune.pool import Pool
from coretune.quality import named_score
from coretune.selection import Budget
from coretune.shapes import Float, Float32, Int64

if TYPE_CHECKING:
    from coretune.lab import Lab


class Screened(Protocol):
    """The options of methods whose score is costly."""

    @property
    def screen(self) -> str | None: ...
    @property
    def screen_model(self) -> str | None: ...
    @property
    def keep(self) -> float: ...


def screened(
    asked: Screened,
    pool: Pool,
    budget: Budget,
    lab: Lab,
    rng: np.random.Generator,
    costly: Callable[[Int64[np.ndarray, " m"]], Float[np.ndarray, " m"]],
) -> tuple[Float32[np.ndarray, " n"], dict[str, Any]]:
    """Scores `(n,)` to pick by, and notes: `costly(rows)` of all, or of the rows that the cheap score lets through."""
    if asked.screen is None:
        return np.asarray(costly(np.arange(len(pool))), np.float32), {}
    refuse_odd_share(asked.keep)
    cheap = named_score(asked.screen, pool, lab, model=asked.screen_model)
    found = cascade(cheap, asked.keep, costly, budget.rows, rng=rng)
    with lab.stage("screen") as stage:
        stage.rows = len(pool)
        stage.counts = {
            "survivors": found.survivors,
            "measured": found.measured,
            "best of the sample": found.best,
            "of them kept": round(found.kept * found.best),
        }
    return found.score, {"screen": {"by": asked.screen, **found.notes()}}
