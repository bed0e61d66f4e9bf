"""Distances: fast products of rows with vectors, with a bound on their error, and exact squared distances in float64.

Parts compare rows by products in float32 and look again in float64 wherever the products differ by less than their
error can be. So their choices are those of plain float64 arithmetic, in which the squared distance of two rows is the
sum of their squared differences: equal rows are at distance 0, and equal distances are equal.

Products are computed where the rows lie: in numpy, or in torch on the tensor's own device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.distances.adjusted import beyond, capped, weighted
from coretune.distances.basis import Basis
from coretune.distances.exact import centred, nearest, slack, squared_distances, squares
from coretune.distances.neighbours import Neighbours, neighbours
from coretune.distances.rows import ArrayRows, Rows, blocks
from coretune.distances.similarity import Closeness, Cosines, Given, Similarity
from coretune.shapes import Float

__all__ = [
    "Basis",
    "Closeness",
    "Cosines",
    "Given",
    "Neighbours",
    "Rows",
    "Similarity",
    "beyond",
    "blocks",
    "capped",
    "centred",
    "nearest",
    "neighbours",
    "rows_of",
    "slack",
    "squared_distances",
    "squares",
    "weighted",
]


def rows_of(x: Float[Any, "n d"]) -> Rows:
    """The rows of a numpy array or torch tensor of any floating type.

    Raises `ValueError` unless `x` is two-dimensional, floating, and not empty.
    """
    if type(x).__module__.split(".")[0] == "torch":
        from coretune.distances.tensors import TensorRows

        if x.ndim != 2 or not x.is_floating_point() or not x.numel():
            raise ValueError(f"features must be (n, d) floating numbers, not empty; found {tuple(x.shape)} {x.dtype}")
        return TensorRows(x)
    array = np.asarray(x)
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        raise ValueError(f"features must be (n, d) floating numbers, not empty; found {array.shape} {array.dtype}")
    return ArrayRows(array)
