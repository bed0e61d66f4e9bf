"""Anchors: a few rows that stand for a pool, so that a method compares every row with them alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from coretune.features.embedding import Embedding
from coretune.partitions import kmeans
from coretune.pickers import closest
from coretune.pool import Pool
from coretune.shapes import Int64

if TYPE_CHECKING:
    from coretune.lab import Lab

WINDOW = 2048  # tokens that are read unless told otherwise


class Anchored(Protocol):
    """The options of methods that have anchors."""

    @property
    def model(self) -> str: ...
    @property
    def embedder(self) -> str | None: ...
    @property
    def max_tokens(self) -> int | None: ...


def medoids(
    asked: Anchored, pool: Pool, count: int, lab: Lab, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """The row nearest the centre of each of `count` clusters of instructions, and how many rows each cluster has.

    Rows of more characters than half the window has tokens are passed over, so that there is room before an anchor;
    where a cluster has no others, its shortest.
    """
    x = lab.features(Embedding(asked.embedder or asked.model, text="prompt"), pool).array()
    cells = lab.keep(kmeans, x, count, rng)
    centers = cells.centers
    assert centers is not None
    characters = characters_of(pool)
    room = (asked.max_tokens or WINDOW) // 2
    nearest = []
    for cell in range(len(cells)):
        rows = cells.members(cell)
        short = rows[characters[rows] <= max(room, characters[rows].min())]
        nearest.append(short[closest(x[short], centers[cell], 1).rows[0]])
    return np.array(nearest, np.int64), cells.sizes


def characters_of(pool: Pool) -> Int64[np.ndarray, " n"]:
    """Characters of all turns of each row."""
    return np.array([sum(len(turn.content) for turn in example.messages) for example in pool], np.int64)
