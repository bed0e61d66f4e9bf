"""Choosing the number of cells: the one whose silhouette is most above that of data without cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coretune.distances import rows_of
from coretune.partitions.kmeans import kmeans
from coretune.partitions.partition import Partition
from coretune.partitions.silhouettes import silhouette_curve
from coretune.shapes import Float, Float32

ROWS_A_CELL = 39  # below that, k-means has too few rows to place a centre (the limit at which faiss warns)
SAMPLE = 16_384
PASSES = 12  # for a point of the curve


def powers_of_two(n: int, budget: int) -> tuple[int, ...]:
    """2, 4, 8, ... cells, up to min(n / 39, budget / 2) for `n` rows of which `budget` are wanted; 1 if that is < 2."""
    most = min(n / ROWS_A_CELL, budget / 2)
    return tuple(2**power for power in range(1, math.floor(math.log2(most)) + 1)) if most >= 2 else (1,)


def choose_k(
    x: Float[Any, "n d"],
    rng: np.random.Generator,
    *,
    grid: Sequence[int] | None = None,
    spherical: bool = False,
    sample: int = SAMPLE,
) -> Partition:
    """The k-means of `x` (numpy array or torch tensor) at the number of cells in `grid` with the best silhouette.

    The simplified silhouette rises with the number of cells even where there are none, so its value on such data is
    subtracted: the same rows with every column shuffled on its own. Ties go to the smaller number. Both curves are
    taken on at most `sample` rows; the partition is of all. Without a `grid`, powers of two up to n / 39. Numbers above
    half of the rows sampled, or above the number that differ, are left out; a grid of one is taken without a curve.

    `notes["silhouette"]` has lists `clusters`, `simplified`, `without_cells`, `corrected`, and `rows` (sampled),
    `chosen` and `left_out`. Raises `ValueError` where all of the grid is left out, and as `kmeans` does.

    Source: silhouette of Diversify and Conquer (arXiv 2409.11378, section 4.3), corrected in the manner of the gap
    statistic (Tibshirani, Walther and Hastie, 2001).
    """
    rows = rows_of(x)
    asked = sorted(set(powers_of_two(rows.n, rows.n) if grid is None else map(int, grid)))
    if len(asked) == 1:
        return kmeans(x, asked[0], rng, spherical=spherical)
    seen = np.arange(rows.n) if rows.n <= sample else np.sort(rng.permutation(rows.n)[:sample])
    some = rows.take(seen).astype(np.float32)
    most = min(len(seen) // 2, len(np.unique(some, axis=0)))
    tried = [c for c in asked if 1 <= c <= most]
    if not tried:
        raise ValueError(f"none of {asked} cells can be tried on {len(seen)} rows as they differ; ask for 1 to {most}")
    shuffled = rng.permuted(some, axis=0)
    if spherical:
        shuffled /= np.maximum(np.linalg.norm(shuffled, axis=1, keepdims=True), 1e-12)
    found = _curve(x, some, tried, rng, spherical)
    nothing = _curve(x, shuffled, tried, rng, spherical)
    corrected = [one - other for one, other in zip(found, nothing, strict=True)]
    chosen = tried[int(np.argmax(corrected))]
    curve = {
        "clusters": tried,
        "simplified": found,
        "without_cells": nothing,
        "corrected": corrected,
        "rows": len(seen),
        "chosen": chosen,
        "left_out": [c for c in asked if c not in tried],
    }
    partition = kmeans(x, chosen, rng, spherical=spherical)
    return replace(partition, notes={**partition.notes, "silhouette": curve})


def _curve(
    x: Float[Any, "n d"],
    some: Float32[np.ndarray, "m d"],
    grid: Sequence[int],
    rng: np.random.Generator,
    spherical: bool,
) -> list[float]:
    """The curve of these rows, computed where `x` lies."""
    there = some if isinstance(x, np.ndarray) else x.new_tensor(some)
    return silhouette_curve(there, grid, rng, spherical=spherical, max_passes=PASSES)
