"""Greedy k-center: each pick is the row farthest from all picks so far, so that no row is left far from a pick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coretune.distances import Rows, centred, rows_of, slack, squares
from coretune.selection import Selection
from coretune.shapes import Float, Int64

BLOCK = 1024  # candidates among which picks are made before any other row is looked at
CHUNK = 4096  # rows brought up to date at a time, or a quarter of those already done


def k_center(
    x: Float[Any, "n d"],
    k: int,
    *,
    start: int | None = None,
    chosen: Int64[np.ndarray, " s"] | Sequence[int] | None = None,
) -> Selection:
    """The `k` rows of farthest-first traversal under Euclidean distance; equal distances go to the lower row.

    `x`: numpy array or torch tensor, any floating type, any unit. `start`: the first pick; without it, the row nearest
    the mean, or, where rows are `chosen`, the row farthest from those. `chosen`: rows that count as centres and never
    return. `k` counts the start. Gains are the covering radius before each pick, in the unit of `x`; NaN for a start.

    The picks are those of the plain loop in float64; products in float32 only say which rows need not be looked at.
    Most rows are compared with most picks never, or many picks at a time. Memory beyond `x`: O(n + k d). Raises
    `ValueError` where `k` is more than there is, a row is not finite, or `start` or `chosen` are not rows of `x`.

    Source: Gonzalez (1985), "Clustering to minimize the maximum intercluster distance"; the radius is at most twice the
    smallest possible. For coresets: Sener and Savarese (2018), arXiv 1708.00489, algorithm 1.
    """
    rows = rows_of(x)
    centers = _check(rows.n, k, start, [] if chosen is None else np.asarray(chosen, dtype=np.int64).tolist())
    cover = _Cover(rows, len(centers) + k)
    for row in centers:
        cover.add(row)
    picks: list[int] = []
    gains: list[float] = []
    if k and (start is not None or not centers):
        picks, gains = [int(cover.spread.argmin()) if start is None else start], [np.nan]
        cover.add(picks[0])
    while len(picks) < k:
        for row, squared in _from_block(cover, k - len(picks)):
            picks.append(row)
            gains.append(squared**0.5)
    return Selection.of(picks, np.array(gains))


def _check(n: int, k: int, start: int | None, chosen: list[int]) -> list[int]:
    """The rows already chosen, checked."""
    if len(set(chosen)) != len(chosen) or not all(0 <= row < n for row in chosen):
        raise ValueError(f"chosen rows must be distinct and within 0..{n - 1}")
    if start is not None and (not 0 <= start < n or start in chosen):
        raise ValueError(f"start {start} must be a row within 0..{n - 1} that is not chosen already")
    if not 0 <= k <= n - len(chosen):
        raise ValueError(f"{k} rows asked of {n} rows with {len(chosen)} of them already chosen")
    return chosen


class _Cover:
    """Bounds on each row's squared distance to its nearest pick, brought up to date only for the rows asked for.

    `high` and `low` hold for every row at any time, since further picks only lower a distance: `high` of a row that is
    behind is above the truth, `low` is a bound for the picks seen. Picks themselves are at -inf.
    """

    def __init__(self, rows: Rows, room: int) -> None:
        self.rows = rows
        self.mean, self.spread = centred(rows)
        self.high = np.full(rows.n, np.inf)
        self.low = np.full(rows.n, np.inf)
        self.seen = np.zeros(rows.n, np.int32)
        self.picks = np.empty(room, np.int64)
        self.count = 0
        self.vectors = np.empty((room, rows.d), rows.dtype)  # picks less the mean: smaller numbers, smaller errors
        self.offsets = np.empty(room)
        reach, center = np.sqrt(self.spread), float(np.linalg.norm(self.mean))
        widest = float(reach.max())
        offset = widest * (widest / 2 + center)
        self.error = slack(rows, reach + center, widest, offset)

    def add(self, row: int) -> None:
        """One more pick."""
        away = self.rows.take(np.array([row]))[0] - self.mean
        self.picks[self.count], self.vectors[self.count] = row, away
        self.offsets[self.count] = self.spread[row] / 2 + self.mean @ away
        self.high[row] = self.low[row] = -np.inf
        self.count += 1

    def update(self, rows: Int64[np.ndarray, " m"]) -> None:
        """Bring these rows up to date with every pick."""
        seen = self.seen[rows]
        for since in np.unique(seen[seen < self.count]):
            behind = rows[seen == since]
            new = slice(since, self.count)
            squared = self.spread[behind] - 2.0 * self.rows.best(behind, self.vectors[new], self.offsets[new])
            self.lower(behind, squared)
        self.seen[rows] = self.count

    def lower(self, rows: Int64[np.ndarray, " m"], squared: Float[np.ndarray, " m"]) -> None:
        """Take account of squared distances to further picks, as products give them."""
        error = self.error[rows]
        self.high[rows] = np.minimum(self.high[rows], np.maximum(squared + error, 0.0))
        self.low[rows] = np.minimum(self.low[rows], np.maximum(squared - error, 0.0))

    def settle(self, row: int) -> None:
        """The exact value for a row that is up to date: by differences to every pick that may be its nearest."""
        x = self.rows.take(np.array([row]))[0]
        products = np.vecdot(self.vectors[: self.count], x.astype(self.rows.dtype)) - self.offsets[: self.count]
        near = np.flatnonzero(products >= products.max() - self.error[row])
        self.high[row] = self.low[row] = squares(self.rows.take(self.picks[near]) - x).min()


def _frontier(cover: _Cover) -> tuple[Int64[np.ndarray, " b"], float, int]:
    """Up-to-date rows with the highest bounds; the highest bound of all others, and the lowest row that has it."""
    order = np.argsort(-cover.high, kind="stable")
    order = order[: cover.rows.n - cover.count]  # picks are last
    end = 0
    while end < len(order):
        step = max(CHUNK, end // 4)
        cover.update(order[end : end + step])
        end = min(end + step, len(order))
        if end < len(order) and np.count_nonzero(cover.high[order[:end]] >= cover.high[order[end]]) >= BLOCK:
            break
    fresh = order[np.lexsort((order[:end], -cover.high[order[:end]]))]
    block, others = fresh[:BLOCK], np.concatenate([fresh[BLOCK:], order[end:]])
    if not len(others):
        return block, -np.inf, cover.rows.n
    bound = cover.high[others].max()
    return block, float(bound), int(others[cover.high[others] == bound].min())


def _from_block(cover: _Cover, most: int) -> list[tuple[int, float]]:
    """Picks with their squared distances, as long as the farthest row is sure to be in one block of candidates."""
    block, bound, bound_row = _frontier(cover)
    local = cover.rows.part(block)
    picked: list[tuple[int, float]] = []
    while len(picked) < most:
        found = _farthest(cover, block)
        squared = cover.high[found]
        if squared < bound or (squared == bound and bound_row < found):
            break
        picked.append((found, float(squared)))
        cover.add(found)
        last = slice(cover.count - 1, cover.count)
        nearer = local.best(None, cover.vectors[last], cover.offsets[last])
        cover.lower(block, cover.spread[block] - 2.0 * nearer)
        cover.seen[block] = cover.count
    return picked


def _farthest(cover: _Cover, block: Int64[np.ndarray, " b"]) -> int:
    """The row of the block with the largest distance, ties to the lower: highest bounds settled until one holds."""
    while True:
        high = cover.high[block]
        highest = block[high == high.max()]
        unsure = highest[cover.low[highest] < cover.high[highest]]
        if not len(unsure):
            return int(highest.min())
        for row in unsure:
            cover.settle(int(row))
