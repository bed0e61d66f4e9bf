"""Top: the rows with the highest scores."""

from __future__ import annotations

import numpy as np

from coretune.selection import Selection
from coretune.shapes import Float, Int, Int64


def top(scores: Float[np.ndarray, " n"] | Int[np.ndarray, " n"], k: int) -> Selection:
    """The `k` rows with the highest scores, highest first, ties to the lower row; gains are the scores.

    Raises `ValueError` where `k` is not from 0 to n, or a score is NaN.
    """
    values = np.asarray(scores)
    if np.isnan(values).any():
        raise ValueError(f"row {int(np.flatnonzero(np.isnan(values))[0])} has no score to be picked by")
    rows = highest(values, k)
    return Selection.of(rows, values[rows])


def highest(keys: Float[np.ndarray, " n"] | Int[np.ndarray, " n"], k: int) -> Int64[np.ndarray, " k"]:
    """The positions of the `k` highest keys, highest first, ties to the lower one; sorts no more than it must.

    Raises `ValueError` where `k` is not from 0 to n.
    """
    n = len(keys)
    if not 0 <= k <= n:
        raise ValueError(f"{k} rows asked of {n}")
    some = np.arange(n)
    if 0 < k < n // 4:
        last = np.partition(keys, n - k)[n - k]
        above = np.flatnonzero(keys > last)
        some = np.sort(np.concatenate([above, np.flatnonzero(keys == last)[: k - len(above)]]))
    backwards = np.argsort(keys[some][::-1], kind="stable")  # of equal keys the higher position first
    return some[len(some) - 1 - backwards[::-1]][:k]
