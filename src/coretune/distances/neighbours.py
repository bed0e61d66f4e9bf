"""Each row's nearest rows by cosine: found by products in float32, settled in float64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from coretune.distances.exact import slack
from coretune.distances.rows import Rows, blocks
from coretune.distances.similarity import STEPS, cosine_steps, lengths_of
from coretune.shapes import Float, Float32, Int32, Int64

SPARE = 8  # rows found beyond those asked for, so that products seldom leave a doubt
WAITING = 120  # rows that a search gathers before it looks which of them stay
TILE = 2048  # rows by so many others at a time
SETTLED = 1 << 22  # numbers compared again at a time


@dataclass(frozen=True)
class Neighbours:
    """The `t` rows most similar to each of `n`, itself among them: highest first, then lower rows first.

    `steps` are similarities (1 + cosine) / 2 in steps, as in `distances.similarity`; all others count as 0.
    """

    which: Int32[np.ndarray, "n t"]
    steps: Float32[np.ndarray, "n t"]

    step: ClassVar[float] = 1 / STEPS

    @property
    def n(self) -> int:
        """How many rows there are."""
        return len(self.which)

    m = n

    def totals(self) -> Float[np.ndarray, " n"]:
        """The sum of the similarities to each row of those that have it among their neighbours."""
        return np.bincount(self.which.ravel(), self.steps.ravel(), minlength=self.n)

    def of(self, row: int) -> tuple[Int64[np.ndarray, " l"], Float32[np.ndarray, " l"]]:
        """The rows that have this one among their neighbours, and their similarities to it."""
        order, ends = self._by_neighbour
        places = order[ends[row] : ends[row + 1]]
        return places // self.which.shape[1], self.steps.ravel()[places]

    @cached_property
    def _by_neighbour(self) -> tuple[Int64[np.ndarray, " f"], Int64[np.ndarray, " e"]]:
        """Places in `which`, sorted by the row that stands there; and where each row begins."""
        counts = np.bincount(self.which.ravel(), minlength=self.n)
        return self.which.ravel().argsort(kind="stable"), np.concatenate([[0], counts.cumsum()])


def neighbours(rows: Rows, t: int) -> Neighbours:
    """Each row's `t` nearest by cosine, or all rows where there are fewer; exact, ties to the lower row.

    n^2 d / 2 multiplications. Memory: 4 n d bytes and 8 n (t + 128). Raises `ValueError` where `t` is below 1 or a
    value is not finite.
    """
    if t < 1:
        raise ValueError(f"each row has at least 1 neighbour, itself; {t} asked")
    t = min(t, rows.n)
    search = _Search(rows, min(t + SPARE, rows.n))
    places = list(blocks(rows.n, TILE))
    for place in places:
        search.begin(place)
    for i, place in enumerate(places):
        for others in places[i + 1 :]:
            search.compare(place, others)
        search.narrow(place)
    which, steps = np.empty((rows.n, t), np.int32), np.empty((rows.n, t), np.float32)
    for place in blocks(rows.n, max(1, SETTLED // (search.kept * rows.d))):
        which[place], steps[place], sure = search.settled(place, t)
        for row in np.flatnonzero(~sure) + place.start:
            which[row], steps[row] = search.searched(int(row), t)
    return Neighbours(which, steps)


class _Search:
    """For each row the best `kept` rows of those compared, and behind them some that may yet be among them."""

    def __init__(self, rows: Rows, kept: int) -> None:
        self.rows, self.kept = rows, kept
        self.lengths = lengths_of(rows)
        self.unit = np.empty((rows.n, rows.d), np.float32)
        for place in blocks(rows.n, TILE):
            self.unit[place] = self.take(place)
        self.width = min(kept + WAITING, rows.n)
        self.which = np.zeros((rows.n, self.width), np.int32)
        self.cosine = np.full((rows.n, self.width), -np.inf, np.float32)
        self.filled = np.zeros(rows.n, np.int64)
        self.least = np.full(rows.n, -np.inf, np.float32)  # no row with a smaller cosine is among the best `kept`

    def take(self, rows: Int64[np.ndarray, " m"] | slice) -> Float[np.ndarray, "m d"]:
        """These rows at length 1, in float64."""
        x = self.rows.take(rows)
        x /= self.lengths[rows, None]
        return x

    def begin(self, place: slice) -> None:
        """Compare these rows with one another."""
        tile = self.unit[place] @ self.unit[place].T
        size = min(self.kept, len(tile))
        best = np.argpartition(tile, len(tile) - size, axis=1)[:, len(tile) - size :]
        self.which[place, :size] = best + place.start
        self.cosine[place, :size] = np.take_along_axis(tile, best, axis=1)
        self.filled[place] = size
        self.least[place] = self.cosine[place, : self.kept].min(axis=1)

    def compare(self, some: slice, others: slice) -> None:
        """Compare these rows with these others, both ways."""
        tile = self.unit[some] @ self.unit[others].T
        width = tile.shape[1]
        found = np.flatnonzero(tile > self.least[some, None])
        self._offer(some, found // width + some.start, found % width + others.start, tile.ravel()[found])
        found = np.flatnonzero(tile > self.least[others])
        found = found[np.argsort((found % width).astype(np.int16), kind="stable")]
        self._offer(others, found % width + others.start, found // width + some.start, tile.ravel()[found])

    def _offer(
        self,
        place: slice,
        rows: Int64[np.ndarray, " f"],
        others: Int64[np.ndarray, " f"],
        cosine: Float32[np.ndarray, " f"],
    ) -> None:
        """Take up rows found, sorted by the row that they were found for; when there is no more room, narrow."""
        while len(rows):
            counts = np.bincount(rows - place.start, minlength=place.stop - place.start)
            position = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + self.filled[rows]
            fits = position < self.width
            self.which[rows[fits], position[fits]] = others[fits]
            self.cosine[rows[fits], position[fits]] = cosine[fits]
            self.filled[place] = np.minimum(self.filled[place] + counts, self.width)
            if fits.all():
                return
            self.narrow(place)
            left = ~fits & (cosine > self.least[rows])
            rows, others, cosine = rows[left], others[left], cosine[left]

    def narrow(self, place: slice) -> None:
        """Drop all but the best `kept` of these rows."""
        if self.width > self.kept:
            best = np.argpartition(self.cosine[place], self.width - self.kept, axis=1)[:, self.width - self.kept :]
            self.which[place, : self.kept] = np.take_along_axis(self.which[place], best, axis=1)
            self.cosine[place, : self.kept] = np.take_along_axis(self.cosine[place], best, axis=1)
            self.cosine[place, self.kept :] = -np.inf
        self.filled[place] = np.minimum(self.filled[place], self.kept)
        self.least[place] = self.cosine[place, : self.kept].min(axis=1)

    def settled(self, place: slice, t: int) -> tuple[Int32[np.ndarray, "b t"], Float32[np.ndarray, "b t"], np.ndarray]:
        """The best `t` of each row's rows by cosines in float64, and whether no other row can be among them."""
        which = self.which[place, : self.kept]
        others = self.take(which.ravel()).reshape(*which.shape, self.rows.d)
        cosine = np.matmul(others, self.take(place)[:, :, None])[:, :, 0]
        found, steps = _highest(which, cosine_steps(cosine * (STEPS / 2)), t)
        one = np.ones(1)
        error = float(slack(self.rows, one, 1.0, 0.0, unit=2.0**-24)[0])
        bound = (1 + self.least[place].astype(np.float64) + error) * (STEPS / 2) + 1
        return found, steps, (steps[:, -1] > bound) | (self.kept == self.rows.n)

    def searched(self, row: int, t: int) -> tuple[Int32[np.ndarray, " t"], Float32[np.ndarray, " t"]]:
        """The best `t` of all rows by cosines in float64, for where products in float32 leave a doubt."""
        one = self.take(np.array([row]))[0] * (STEPS / 2)
        steps = np.concatenate([cosine_steps(self.take(place) @ one) for place in blocks(self.rows.n, TILE)])
        which, found = _highest(np.arange(self.rows.n, dtype=np.int32)[None], steps[None], t)
        return which[0], found[0]


def _highest(
    which: Int32[np.ndarray, "b w"], steps: Float32[np.ndarray, "b w"], t: int
) -> tuple[Int32[np.ndarray, "b t"], Float32[np.ndarray, "b t"]]:
    """The `t` rows of the most steps, then the lowest."""
    keys = (STEPS - steps).astype(np.int64) << 32 | which
    if t < keys.shape[1]:
        keys = np.partition(keys, t - 1, axis=1)[:, :t]
    keys.sort(axis=1)
    return (keys & 0xFFFFFFFF).astype(np.int32), (STEPS - (keys >> 32)).astype(np.float32)
