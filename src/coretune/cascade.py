"""A cascade: a cheap score for every row, the costly one for those that the cheap one lets through."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.pickers.top import highest
from coretune.shapes import Float, Float32, Int64

Z = 1.96  # standard errors of a 95% interval


@dataclass(frozen=True)
class Cascade:
    """Scores `(n,)`, those of survivors above all others, and what screening is estimated to have lost.

    `costly` holds the costly score, NaN where it was not measured. Of `best` rows that the costly score alone would
    have chosen from a random sample, a share of `kept` survived; `interval` is its 95% interval (Wilson).
    """

    score: Float32[np.ndarray, " n"]
    costly: Float32[np.ndarray, " n"]
    survivors: int
    measured: int
    best: int
    kept: float
    interval: tuple[float, float]

    def notes(self) -> dict[str, Any]:
        """The same as what a run writes down."""
        return {
            "survivors": self.survivors,
            "measured": self.measured,
            "sampled_best": self.best,
            "sampled_best_kept": self.kept,
            "sampled_best_kept_interval": list(self.interval),
        }


def cascade(
    cheap: Float[np.ndarray, " n"],
    keep: float,
    costly: Callable[[Int64[np.ndarray, " m"]], Float[np.ndarray, " m"]],
    k: int,
    *,
    rng: np.random.Generator,
    sample: int = 200,
) -> Cascade:
    """Measure `costly(rows)` for the best share `keep` of rows by the cheap score, at least `k`, and a random sample.

    The sample, drawn from all rows, says what share of the rows that the costly score would have chosen is lost.
    Higher is better in both; ties go to the lower row. Raises `ValueError` where `keep` is no share.
    """
    refuse_odd_share(keep)
    n = len(cheap)
    order = highest(cheap, n)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    survivors = max(math.ceil(keep * n), min(k, n))
    sampled = np.sort(rng.choice(n, min(sample, n), replace=False))
    rows = np.union1d(order[:survivors], sampled)
    found = np.full(n, np.nan, np.float32)
    found[rows] = costly(rows)
    survives = place < survivors
    best = sampled[highest(found[sampled], max(1, round(len(sampled) * k / n)))]
    kept = int(survives[best].sum())
    lowest = float(found[survives].min())
    score = np.where(survives, found, lowest - 1 - place / n).astype(np.float32)
    return Cascade(score, found, survivors, len(rows), len(best), kept / len(best), wilson(kept, len(best)))


def refuse_odd_share(keep: float) -> None:
    """Raise `ValueError` where `keep` is no share of the rows."""
    if not 0 < keep <= 1:
        raise ValueError(f"keep {keep} asked of a cascade; give a share of the rows above 0, at most 1")


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95% interval of a share. Source: Wilson, 1927."""
    share, z2 = successes / trials, Z * Z / trials
    middle = (share + z2 / 2) / (1 + z2)
    half = Z / (1 + z2) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)
