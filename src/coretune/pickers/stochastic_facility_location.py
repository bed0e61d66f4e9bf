"""Stochastic facility location: each pick is the best of a small sample of rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from coretune.distances import Neighbours, Similarity, blocks
from coretune.pickers.serving import PRODUCTS, Best, Served, Serving, columns_of, compared
from coretune.selection import Selection
from coretune.shapes import Float, Int64


def stochastic_facility_location(
    x: Float[Any, "n d"] | Similarity | Neighbours, k: int, *, rng: np.random.Generator, epsilon: float = 0.1
) -> Selection:
    """As `facility_location`, but each pick is the best of (n / k) ln(1 / epsilon) rows drawn from those left.

    f is on average at least 1 - 1/e - `epsilon` of the largest possible. Gains are what each pick adds; as samples
    differ, one may be larger than the one before. Rows: n^2 d ln(1 / epsilon) multiplications in float64 and 8 n d
    bytes, the products never kept: less than the exact picks take above 16,000 rows. Raises `ValueError` where `k` is
    not from 0 to n, `epsilon` is not between 0 and 1, or a value is not finite.

    Source: Mirzasoleiman, Badanidiyuru, Karbasi, Vondrak and Krause (2015), "Lazier than lazy greedy", arXiv 1409.7938.
    """
    source = compared(x)
    if not 0 <= k <= source.n:
        raise ValueError(f"{k} rows asked of {source.n}")
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon must be between 0 and 1; found {epsilon}")
    size = math.ceil(source.n / max(1, k) * math.log(1 / epsilon))
    serving = Serving(source) if isinstance(source, Neighbours) else None
    best = serving.best if serving else Best(source.m, source.step)
    left = np.arange(source.n)
    for _ in range(k):
        places = rng.choice(len(left), min(size, len(left)), replace=False)
        places = places[left[places].argsort()]
        if serving:
            winner = int(serving.adds[left[places]].argmax())
            serving.pick(int(left[places[winner]]))
        else:
            winner, gain, served = _best_of(left[places], source, best)  # type: ignore[arg-type]
            best.pick(int(left[places[winner]]), gain, served)
        left[places[winner]] = left[-1]
        left = left[:-1]
    return best.selection()


def _best_of(sample: Int64[np.ndarray, " b"], source: Similarity, best: Best) -> tuple[int, float, Served]:
    """Which of the sample adds most, what it adds, and the rows that it serves better than they were."""
    found, highest, rows = 0, -np.inf, np.empty(0, np.int64)
    steps = np.empty(0, np.float32)
    for place in blocks(len(sample), max(1, PRODUCTS // source.m)):
        tile = np.maximum(columns_of(source, sample[place]), best.steps)
        adds = tile.sum(axis=1, dtype=np.float64) - best.steps.sum(dtype=np.float64)
        winner = int(adds.argmax())
        if adds[winner] > highest:
            found, highest = place.start + winner, float(adds[winner])
            rows = np.flatnonzero(tile[winner] > best.steps)
            steps = tile[winner][rows]
    return found, highest, (rows, steps)
