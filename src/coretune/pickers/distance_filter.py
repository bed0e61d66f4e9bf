"""Distance filter: the best rows first, but none that is too similar to one already taken."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from coretune.distances import Rows, blocks, rows_of
from coretune.distances.similarity import STEPS, lengths_of
from coretune.selection import Selection
from coretune.shapes import Bool, Float, Float32, Int64

log = logging.getLogger(__name__)

BLOCK = 512  # rows scanned at a time
SETTLED = 1 << 22  # numbers multiplied again at a time
UNIT = 2.0**-24  # rounding of a product in float32, relative


def distance_filter(
    score: Float[np.ndarray, " n"], x: Float[Any, "n d"], k: int, *, threshold: float = 0.9
) -> Selection:
    """Rows from the highest score down, each taken if its cosine with every row taken is at most `threshold`.

    `x`: numpy array or torch tensor of any floating type; a row of zeros has cosine 0 with all. Equal scores go to the
    lower row. Gains are the scores. Where the pool ends before `k` rows are taken, the best of those refused follow,
    with gain NaN, and the log says how many. The first k picks are those of k + 1.

    The picks are those of the scan one row after the other, with cosines in float64 rounded to steps of 2^-23;
    products in float32 only say which need not be looked at. (number of rows scanned) k d multiplications; memory 4 k d
    bytes and 4 MB beside a block. Raises `ValueError` where `k` is not from 0 to n, a score is NaN, a value is not
    finite, or `threshold` is not from -1 to 1.

    Source: DEITA, Liu et al. (2024), arXiv 2312.15685, repr filter; threshold 0.9 from the authors' code, which scans
    in batches and so refuses rows for their likeness to rows that are refused themselves.
    """
    rows, values = rows_of(x), np.asarray(score, dtype=np.float64)
    if not 0 <= k <= rows.n:
        raise ValueError(f"{k} rows asked of {rows.n}")
    if len(values) != rows.n or np.isnan(values).any():
        raise ValueError(f"{rows.n} rows need a score each; found {len(values)}, {np.isnan(values).sum()} of them NaN")
    if not -1 <= threshold <= 1:
        raise ValueError(f"a threshold of {threshold} asked; cosines are from -1 to 1")
    order = np.argsort(-values, kind="stable")
    taken = _Taken(rows, threshold)
    for place in blocks(rows.n, BLOCK):
        if len(taken.picks) >= k:
            break
        taken.scan(order[place])
    picks = np.array(taken.picks[:k], dtype=np.int64)
    if len(picks) < k:
        log.warning(
            "%d rows asked, %d are no more alike than %s: the %d best others follow",
            k,
            len(picks),
            threshold,
            k - len(picks),
        )
    others = order[~np.isin(order, picks)][: k - len(picks)]
    return Selection.of(np.concatenate([picks, others]), np.append(values[picks], np.full(len(others), np.nan)))


class _Taken:
    """The rows taken so far, and whether others are too similar to one of them."""

    def __init__(self, rows: Rows, threshold: float) -> None:
        self.picks: list[int] = []
        self._rows, self._lengths = rows, lengths_of(rows)
        self._vectors = np.empty((BLOCK, rows.d), np.float32)
        self._limit = float(np.rint(threshold * STEPS / 2))
        error = (rows.d + 16) * UNIT + 2 / STEPS
        self._low, self._high = threshold - error, threshold + error

    def scan(self, some: Int64[np.ndarray, " b"]) -> None:
        """Take of these rows, in order, those that are not too similar to one taken before."""
        unit = self._unit(some).astype(np.float32)
        cosine = unit @ self._vectors[: len(self.picks)].T
        near = np.asarray(cosine > self._high)
        sure = np.asarray(near.any(axis=1))
        doubt = (cosine >= self._low) & ~near & ~sure[:, None]
        self._settle(near, doubt, some, np.array(self.picks, dtype=np.int64))
        left = np.flatnonzero(~near.any(axis=1))
        some, unit = some[left], unit[left]
        cosine = unit @ unit.T
        near = np.asarray(cosine > self._high)
        self._settle(near, np.triu((cosine >= self._low) & ~near, 1), some, some)
        refused = np.zeros(len(some), bool)
        for i in range(len(some)):
            if not refused[i]:
                refused[i + 1 :] |= near[i, i + 1 :]
        self._add(some[~refused], unit[~refused])

    def _settle(
        self,
        near: Bool[np.ndarray, "b p"],
        doubt: Bool[np.ndarray, "b p"],
        some: Int64[np.ndarray, " b"],
        others: Int64[np.ndarray, " p"],
    ) -> None:
        """Say of the pairs in doubt, by products in float64, whether their cosine is above the threshold."""
        which, other = np.nonzero(doubt)
        for place in blocks(len(which), max(1, SETTLED // self._rows.d)):
            one, two = self._unit(some[which[place]]), self._unit(others[other[place]])
            steps = np.rint(np.einsum("ij,ij->i", one, two) * (STEPS / 2))
            near[which[place], other[place]] = steps > self._limit

    def _unit(self, rows: Int64[np.ndarray, " b"]) -> Float[np.ndarray, "b d"]:
        """These rows at length 1, in float64."""
        return np.asarray(self._rows.take(rows) / self._lengths[rows, None])

    def _add(self, rows: Int64[np.ndarray, " b"], unit: Float32[np.ndarray, "b d"]) -> None:
        count = len(self.picks)
        while count + len(rows) > len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
        self._vectors[count : count + len(rows)] = unit
        self.picks += rows.tolist()
