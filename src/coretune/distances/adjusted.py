"""Similarities that count otherwise than they stand: capped, only beyond what is there already, or weighted by row.

Each is another whole number of steps from 0 to 2^24, so sums stay exact and ties stay ties.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coretune.distances.similarity import STEPS, Similarity
from coretune.shapes import Float, Float32, Int64

Change = Callable[[Float32[np.ndarray, "a b"], Float32[np.ndarray, "a 1"]], Float32[np.ndarray, "a b"]]


class Adjusted:
    """The similarities of a source, each changed by a number of its row `(m,)`; in steps of `step`."""

    symmetric = False

    def __init__(self, source: Similarity, by: Float[np.ndarray, " m"], change: Change, step: float) -> None:
        self.m, self.n, self.step = source.m, source.n, step
        self._source, self._by, self._change = source, by.astype(np.float32)[:, None], change

    def between(
        self, rows: Int64[np.ndarray, " a"] | slice, candidates: Int64[np.ndarray, " b"] | slice
    ) -> Float32[np.ndarray, "a b"]:
        """In steps."""
        return self._change(self._source.between(rows, candidates), self._by[rows])


def capped(source: Similarity, limits: Float[np.ndarray, " m"]) -> Adjusted:
    """min(s, limit of the row); a limit may be infinite. Raises `ValueError` for one below 0 or NaN."""
    return Adjusted(source, _in_steps(source, limits, "limits"), np.minimum, source.step)


def beyond(source: Similarity, known: Float[np.ndarray, " m"]) -> Adjusted:
    """max(s - known similarity of the row, 0). Raises `ValueError` for one below 0 or NaN."""
    return Adjusted(source, _in_steps(source, known, "known similarities"), _surplus, source.step)


def weighted(source: Similarity, weights: Float[np.ndarray, " m"]) -> Adjusted:
    """The weight of the row times s, rounded to steps of the largest weight. Raises `ValueError` for odd weights."""
    checked = _checked(source, weights, "weights")
    largest = float(checked.max())
    if not 0 < largest < np.inf:
        raise ValueError(f"weights must be finite, and one above 0; found {largest:.3g} for the largest")
    return Adjusted(source, checked / largest, _product, source.step * largest)


def _surplus(tile: Float32[np.ndarray, "a b"], by: Float32[np.ndarray, "a 1"]) -> Float32[np.ndarray, "a b"]:
    return np.asarray(np.maximum(tile - by, np.float32(0)))


def _product(tile: Float32[np.ndarray, "a b"], by: Float32[np.ndarray, "a 1"]) -> Float32[np.ndarray, "a b"]:
    return np.asarray(np.rint(tile * by))


def _in_steps(source: Similarity, values: Float[np.ndarray, " m"], what: str) -> Float[np.ndarray, " m"]:
    """Similarities of rows in whole steps, at most all of them."""
    return np.rint(np.minimum(_checked(source, values, what) / source.step, STEPS))


def _checked(source: Similarity, values: Float[np.ndarray, " m"], what: str) -> Float[np.ndarray, " m"]:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (source.m,) or not (found >= 0).all():
        low = float(found.min()) if found.size else np.nan
        raise ValueError(f"{what} must be one for each of {source.m} rows, 0 or more; found {found.shape}, {low:.3g}")
    return found
