"""Silhouettes: how much nearer rows are to their own cell than to the next; from 0, or -1, to 1, higher is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from coretune.distances import blocks, centred, nearest, rows_of, squares
from coretune.partitions.kmeans import kmeans
from coretune.shapes import Float, Int32

BLOCK = 256


def nearest_center(x: Float[Any, "n d"], centers: Float[np.ndarray, "c d"]) -> Int32[np.ndarray, " n"]:
    """The nearest centre of each row, ties to the lower one, as plain float64 arithmetic has it.

    Raises `ValueError` where a row is not finite.
    """
    rows = rows_of(x)
    return nearest(rows, centers.astype(np.float64), *centred(rows))[0]


def simplified_silhouette(x: Float[Any, "n d"], centers: Float[np.ndarray, "c d"]) -> float:
    """The mean over rows of 1 - (distance to the nearest centre) / (distance to the second); 0 with one centre.

    Never negative, O(n c d). It rises with the number of centres whatever the data: see `choose_k`. Source: Hruschka,
    de Castro and Campello (2004), Evolutionary algorithms for clustering gene-expression data.
    """
    first, second = _two_nearest(x, centers)
    return float(np.mean(1 - np.sqrt(first / second)))


def squared_silhouette(x: Float[Any, "n d"], centers: Float[np.ndarray, "c d"]) -> float:
    """The same with squared distances, as the code of Diversify and Conquer (arXiv 2409.11378) computes it."""
    first, second = _two_nearest(x, centers)
    return float(np.mean(1 - first / second))


def full_silhouette(x: Float[Any, "n d"], cell: Int32[np.ndarray, " n"]) -> float:
    """The mean over rows of (b - a) / max(a, b): a the mean distance to the other rows of the row's cell, b the least
    mean distance to the rows of another; 0 for a row alone. From -1 to 1, O(n^2 d).

    Source: Rousseeuw (1987), Silhouettes.
    """
    rows = rows_of(x)
    sizes = np.bincount(cell)
    member = (cell[:, None] == np.arange(len(sizes))).astype(np.float64)
    everything = rows.take(slice(None))
    score = np.zeros(rows.n)
    for place in blocks(rows.n, BLOCK):
        own = cell[place]
        away = np.stack([np.sqrt(squares(everything - row)) for row in everything[place]])
        total, each = away @ member, np.arange(len(own))
        inside = total[each, own] / np.maximum(sizes[own] - 1, 1)
        mean = np.divide(total, sizes, out=np.full_like(total, np.inf), where=sizes > 0)
        mean[each, own] = np.inf
        outside, larger = mean.min(axis=1), np.maximum(inside, mean.min(axis=1))
        fine = (sizes[own] > 1) & np.isfinite(outside) & (larger > 0)
        score[place] = np.divide(outside - inside, larger, out=np.zeros(len(own)), where=fine)
    return float(score.mean())


def silhouette_curve(
    x: Float[Any, "n d"],
    grid: Sequence[int],
    rng: np.random.Generator,
    *,
    of: Callable[[Float[Any, "n d"], Float[np.ndarray, "c d"]], float] = simplified_silhouette,
    spherical: bool = False,
    max_passes: int = 100,
) -> list[float]:
    """A silhouette of the k-means of `x` at each number of cells in `grid`.

    `of=squared_silhouette` gives the curve of the code of Diversify and Conquer.
    """
    return [
        of(x, np.asarray(kmeans(x, c, rng, spherical=spherical, swaps=0, max_passes=max_passes).centers)) for c in grid
    ]


def _two_nearest(
    x: Float[Any, "n d"], centers: Float[np.ndarray, "c d"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Squared distances to the nearest and the second nearest centre; both 1 where they cannot tell cells apart."""
    rows = rows_of(x)
    mean, spread = centred(rows)
    vectors = centers.astype(np.float64) - mean
    _, first, second = rows.best_two(None, vectors, squares(vectors) / 2 + vectors @ mean)
    near = np.maximum(spread - 2.0 * first, 0.0)
    far = np.maximum(spread - 2.0 * second, 0.0) if len(centers) > 1 else near
    none = far == 0
    return np.where(none, 1.0, np.minimum(near, far)), np.where(none, 1.0, far)
