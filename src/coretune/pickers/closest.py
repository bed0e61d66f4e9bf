"""Closest: the rows nearest one point."""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.distances import rows_of, squared_distances
from coretune.pickers.top import highest
from coretune.selection import Selection
from coretune.shapes import Float


def closest(x: Float[Any, "n d"], center: Float[np.ndarray, " d"], k: int) -> Selection:
    """The `k` rows at the smallest Euclidean distance from `center`, nearest first, ties to the lower row.

    `x`: numpy array or torch tensor. Gains are the distances with a minus, in the unit of `x`. Raises `ValueError`
    where `k` is not from 0 to n, a value is not finite, or the widths differ.
    """
    rows = rows_of(x)
    point = np.asarray(center, dtype=np.float64)
    if point.shape != (rows.d,) or not np.isfinite(point).all():
        raise ValueError(f"the point must be {rows.d} finite numbers; found shape {point.shape}")
    squared = squared_distances(rows, point)
    if not np.isfinite(squared).all():
        raise ValueError(f"row {int(np.flatnonzero(~np.isfinite(squared))[0])} has a value that is not finite")
    nearest = highest(-squared, k)
    return Selection.of(nearest, -np.sqrt(squared[nearest]))
