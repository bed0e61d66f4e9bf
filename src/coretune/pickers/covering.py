"""How far every row is from the picks so far, known only as well as it must be: the arithmetic of farthest-first."""

from __future__ import annotations

import numpy as np

from coretune.distances import Rows, centred, slack, squares
from coretune.shapes import Float, Int64


class Cover:
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


def farthest_in(
    cover: Cover, block: Int64[np.ndarray, " b"], most: int, *, bound: float = -np.inf, bound_row: int = 0
) -> list[tuple[int, float]]:
    """At most `most` picks among the rows of a block that are up to date, with their squared distances.

    Farthest first, ties to the lower row, and only as long as no other row can be farther: all others are within the
    squared distance `bound`, and `bound_row` is the lowest at it.
    """
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


def _farthest(cover: Cover, block: Int64[np.ndarray, " b"]) -> int:
    """The row of the block with the largest distance, ties to the lower: highest bounds settled until one holds."""
    while True:
        high = cover.high[block]
        highest = block[high == high.max()]
        unsure = highest[cover.low[highest] < cover.high[highest]]
        if not len(unsure):
            return int(highest.min())
        for row in unsure:
            cover.settle(int(row))
