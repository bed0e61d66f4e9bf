"""Whitening: rows in the directions of their largest variance, each direction at variance 1, at length 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.distances import blocks, centred, rows_of
from coretune.shapes import Float32

BLOCK = 4096
FLAT = 1e-10  # variances below this part of the largest are rounding


def whitened(x: Any, dimensions: int) -> Float32[np.ndarray, "n k"]:
    """Rows `(n, d)` along their first principal components, divided by the standard deviation of each, at length 1.

    `x`: numpy array or torch tensor of any floating type. Only angles between rows mean something: signs of components
    are open. A row at the mean stays 0. 2 n d^2 multiplications in float64. Raises `ValueError` where a value is not
    finite, or rows do not differ in so many directions.

    Source: Su et al. (2021), "Whitening sentence representations", arXiv 2103.15316.
    """
    rows = rows_of(x)
    mean, _ = centred(rows)
    covariance = np.zeros((rows.d, rows.d))
    for place in blocks(rows.n, BLOCK):
        away = rows.take(place) - mean
        covariance += away.T @ away
    variances, directions = np.linalg.eigh(covariance / rows.n)
    known = int(np.count_nonzero(variances > FLAT * max(variances[-1], 0.0)))
    if not 1 <= dimensions <= known:
        raise ValueError(
            f"whitening to {dimensions} dimensions asked; {rows.n} rows differ in {known} directions: give 1 to {known}"
        )
    largest = np.argsort(-variances, kind="stable")[:dimensions]
    turned = directions[:, largest] / np.sqrt(variances[largest])
    made = np.empty((rows.n, dimensions), np.float32)
    for place in blocks(rows.n, BLOCK):
        along = (rows.take(place) - mean) @ turned
        lengths = np.linalg.norm(along, axis=1, keepdims=True)
        made[place] = along / np.where(lengths > 0, lengths, 1.0)
    return made
