"""Cells of rows that are about as hard for a model, by IFD, and the tasks within them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from coretune.features.answer_loss import AnswerLoss
from coretune.features.embedding import Embedding
from coretune.partitions import Partition, by_column, kmeans
from coretune.partitions.choosing import ROWS_A_CELL
from coretune.pool import Pool
from coretune.scores.surprise import ifd_loss_ratio
from coretune.shapes import Float32, Int32

if TYPE_CHECKING:
    from coretune.lab import Lab

log = logging.getLogger(__name__)

TASKS = 8  # clusters of embeddings within a difficulty cluster; the paper's number is not known


@dataclass(frozen=True, eq=False)
class Difficulty:
    """Difficulty clusters: `arm` `(n,)` is a row's cluster or -1 for rows apart, `cells` has those as its last cell."""

    ifd: Float32[np.ndarray, " n"]
    arm: Int32[np.ndarray, " n"]
    cells: Partition
    notes: Mapping[str, Any]


def difficulty(read: AnswerLoss, clusters: int, pool: Pool, lab: Lab, rng: np.random.Generator) -> Difficulty:
    """k-means of every row's IFD under a model, the ratio of its answer's loss after its conversation and alone.

    Apart from all clusters are rows above 1, where the instruction misleads, and rows too long to be read whole. A
    cluster has 39 rows at least on average. Raises `ValueError` for fewer than one cluster.
    """
    if clusters < 1:
        raise ValueError(f"{clusters} difficulty clusters asked; give 1 or more")
    given, alone = lab.features(read, pool), lab.features(replace(read, before="nothing"), pool)
    ifd = ifd_loss_ratio(given.array(), alone.array()).astype(np.float32)
    long = np.zeros(len(pool), dtype=bool)
    for mark in ("truncated", "answer_cut"):
        long |= given.marks.get(mark, long)
    misleads = ~(ifd <= 1) & ~long
    fit = np.flatnonzero(~long & ~misleads)
    arm = np.full(len(pool), -1, dtype=np.int32)
    count = min(clusters, max(1, len(fit) // ROWS_A_CELL), len(np.unique(ifd[fit])))
    if count:
        arm[fit] = lab.keep(kmeans, ifd[fit, None], count, rng).cell
    notes = {"clusters": count, "apart_ifd_above_1": int(misleads.sum()), "apart_too_long": int(long.sum())}
    if len(fit) < len(pool):
        asked = (len(pool) - len(fit), len(pool), count, int(misleads.sum()), int(long.sum()))
        log.info("%d of %d rows are in none of %d difficulty clusters: %d with an IFD above 1, %d too long", *asked)
    return Difficulty(ifd, arm, Partition(np.where(arm < 0, count, arm).astype(np.int32)), notes)


def tasks_by_column(pool: Pool, column: str) -> Int32[np.ndarray, " n"]:
    """A row's task is what the data say of it, such as its source."""
    return by_column(pool.column(column)).cell


def tasks_by_embedding(
    embedder: str, cells: Partition, pool: Pool, lab: Lab, rng: np.random.Generator
) -> Int32[np.ndarray, " n"]:
    """A row's task is its cluster among the embeddings of its cell; 8 of them, or fewer, so that one has 39 rows."""
    x = lab.features(Embedding(embedder), pool).array()
    task = np.zeros(len(pool), dtype=np.int32)
    for cell, cell_rng in enumerate(rng.spawn(len(cells))):
        rows = cells.members(cell)
        if len(rows):
            count = min(TASKS, max(1, len(rows) // ROWS_A_CELL), len(np.unique(x[rows], axis=0)))
            task[rows] = lab.keep(kmeans, x[rows], count, cell_rng).cell
    return task
