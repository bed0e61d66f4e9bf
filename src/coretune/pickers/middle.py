"""Middle: the rows nearest the median rank, neither the highest nor the lowest."""

from __future__ import annotations

import numpy as np

from coretune.selection import Selection
from coretune.shapes import Float, Int


def middle(scores: Float[np.ndarray, " n"] | Int[np.ndarray, " n"], k: int) -> Selection:
    """The `k` rows whose rank by score is nearest the median rank, nearest first; of two equally near, the lower rank.

    Any k of them are next to each other in the ranking, in which equal scores stand by row. The first k picks are
    those of k + 1. Gains are minus the distance from the median rank, as a part of all rows. Raises `ValueError` where
    `k` is not from 0 to n, or a score is NaN.

    Source: the middle band of perplexity of Marion et al. (2023), "When less is more", arXiv 2309.04564.
    """
    values = np.asarray(scores)
    n = len(values)
    if not 0 <= k <= n:
        raise ValueError(f"{k} rows asked of {n}")
    if np.isnan(values).any():
        raise ValueError(f"row {int(np.flatnonzero(np.isnan(values))[0])} has no score to be picked by")
    away = np.abs(2 * np.arange(n) - (n - 1))
    nearest = np.argsort(away, kind="stable")[:k]
    return Selection.of(np.argsort(values, kind="stable")[nearest], -away[nearest] / max(1, 2 * n))
