"""How well the picks so far serve every row, and what one more would add: the arithmetic of facility location.

All of it is in whole steps (see `distances.similarity`), so that sums are exact and ties are ties.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.distances import Cosines, Neighbours, Similarity, blocks, rows_of
from coretune.selection import Selection
from coretune.shapes import Float, Float32, Int32, Int64

HELD = 1 << 28  # similarities kept rather than computed again: 1 GiB
LISTED = 3 << 26  # in lists, at most: 1.5 GiB
SPARSE = 8  # a row's list is kept once it is shorter than one in so many candidates
TILE = 1 << 20  # similarities brought up to date at a time
AHEAD = 64  # candidates compared with all rows at once, for the picks to come
PRODUCTS = 1 << 22  # and computed at a time

Served = tuple[Int64[np.ndarray, " l"], Float32[np.ndarray, " l"]]  # rows, and their similarities to one candidate
Listed = tuple[Int32[np.ndarray, " l"], Float32[np.ndarray, " l"]]  # candidates, and their similarities to one row


def compared(x: Float[Any, "n d"] | Similarity | Neighbours) -> Similarity | Neighbours:
    """What a picker is to work on: rows are compared by (1 + cosine) / 2, and all else is as it stands."""
    return x if isinstance(x, Similarity | Neighbours) else Cosines(rows_of(x))


class Best:
    """The picks, with what each added, and for every row how well it is served, and by which of them."""

    def __init__(self, rows: int, step: float) -> None:
        self.steps = np.zeros(rows, np.float32)
        self.picks: list[int] = []
        self._server = np.full(rows, -1, np.int32)
        self._gains: list[float] = []
        self._step = step

    def pick(self, candidate: int, gain: float, served: Served) -> None:
        """Add a candidate, what it adds, in steps, and the rows that it serves better than they were."""
        rows, steps = served
        self.steps[rows], self._server[rows] = steps, len(self.picks)
        self.picks.append(candidate)
        self._gains.append(gain * self._step)

    def selection(self) -> Selection:
        """The picks, weighted by how many rows each serves best; of equally good ones, the earliest serves."""
        served = np.bincount(self._server[self._server >= 0], minlength=len(self.picks))
        return Selection.of(self.picks, np.array(self._gains), served)


def columns_of(source: Similarity, candidates: Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "b m"]:
    """Of these candidates to all rows."""
    if source.symmetric:
        return source.between(candidates, slice(None))
    return source.between(slice(None), candidates).T


class Serving:
    """Every candidate with what it would add: `adds`, always up to date.

    A pick serves some rows better than they were, and only these change what others would add. Of a row's similarities
    only those above the best so far can ever count again; once they are few, the row keeps a list of them. After t
    picks about n/t rows change and n/t similarities of each still count, so all picks together look at each similarity
    only a few times, however many they are. `Neighbours` are such lists from the start.
    """

    def __init__(self, source: Similarity | Neighbours) -> None:
        self._source, self._n = source, source.n
        self.best = Best(source.m, source.step)
        self._held: Float32[np.ndarray, "m n"] | None = None
        self._lists: list[Listed | None] = [None] * source.m
        self._listed = np.zeros(source.m, np.bool_)
        self._ahead: dict[int, Float32[np.ndarray, " m"]] = {}
        self._longest = min(source.n // SPARSE, LISTED // source.m)
        if isinstance(source, Neighbours):
            self._lists, self._listed[:] = list(zip(source.which, source.steps, strict=True)), True
            self.adds = source.totals()
        else:
            self.adds = self._totals(source)

    def pick(self, candidate: int) -> None:
        """Add this candidate to the picks."""
        rows, new = self._served(candidate)
        better = new > self.best.steps[rows]
        rows, new = rows[better], new[better]
        old = self.best.steps[rows]
        self.best.pick(candidate, float(self.adds[candidate]), (rows, new))
        self.adds[candidate] = -np.inf
        listed = self._listed[rows]
        if listed.any():
            self._change_lists(rows[listed], old[listed], new[listed])
        rows, old, new = rows[~listed], old[~listed], new[~listed]
        for place in blocks(len(rows), max(16, TILE // self._n)):
            self._change(rows[place], old[place], new[place])

    def _totals(self, source: Similarity) -> Float[np.ndarray, " n"]:
        """What each candidate would add as the first pick; keeps the similarities where there is room."""
        found = np.zeros(source.n)
        if source.n * source.m <= HELD:
            self._held = np.empty((source.m, source.n), np.float32)
        for place in blocks(source.m, max(64, PRODUCTS // source.n)):
            since = place.start if source.symmetric else 0
            tile = source.between(place, slice(since, None))
            found[since:] += tile.sum(axis=0, dtype=np.float64)
            if self._held is not None:
                self._held[place, since:] = tile
            if source.symmetric:
                beyond = tile[:, place.stop - since :]
                found[place] += beyond.sum(axis=1, dtype=np.float64)
                if self._held is not None:
                    self._held[place.stop :, place] = beyond.T
        return found

    def _served(self, candidate: int) -> Served:
        """Rows that this candidate may serve, and how well."""
        if isinstance(self._source, Neighbours):
            return self._source.of(candidate)
        every = np.arange(self._source.m)
        if self._held is not None:
            return every, self._held[candidate] if self._source.symmetric else self._held[:, candidate]
        if candidate not in self._ahead:
            likely = np.argpartition(self.adds, -min(AHEAD, self._n))[-AHEAD:]
            columns = columns_of(self._source, np.append(likely, candidate))
            self._ahead = dict(zip([*likely.tolist(), candidate], columns, strict=True))
        return every, self._ahead[candidate]

    def _change_lists(
        self, rows: Int64[np.ndarray, " b"], old: Float32[np.ndarray, " b"], new: Float32[np.ndarray, " b"]
    ) -> None:
        """Take account of rows with lists that are served better than they were."""
        lists = [one for row in rows.tolist() if (one := self._lists[row]) is not None]
        sizes = np.array([len(one[0]) for one in lists])
        candidates, steps = (np.concatenate(parts) for parts in zip(*lists, strict=True))
        floor, level = np.repeat(old, sizes), np.repeat(new, sizes)
        lost = np.minimum(steps, level) - np.minimum(steps, floor)
        np.subtract.at(self.adds, candidates, lost.astype(np.float64))
        counts = steps > level
        if 2 * np.count_nonzero(counts) < len(counts):
            left = np.bincount(np.repeat(np.arange(len(rows)), sizes)[counts], minlength=len(rows))
            self._keep(rows, left, candidates[counts], steps[counts])

    def _change(
        self, rows: Int64[np.ndarray, " b"], old: Float32[np.ndarray, " b"], new: Float32[np.ndarray, " b"]
    ) -> None:
        """Take account of rows without lists, and begin lists where few similarities are left that count."""
        assert not isinstance(self._source, Neighbours)
        tile = self._source.between(rows, slice(None)) if self._held is None else self._held[rows]
        counts = tile > new[:, None]
        left = np.array([np.count_nonzero(row) for row in counts])  # by axis it takes five times as long
        few = np.flatnonzero(left <= self._longest)
        if len(few):
            found = np.flatnonzero(counts[few])
            self._keep(rows[few], left[few], (found % self._n).astype(np.int32), tile[few].ravel()[found])
            self._listed[rows[few]] = True
        np.clip(tile, old[:, None], new[:, None], out=tile)
        self.adds -= tile.sum(axis=0, dtype=np.float64) - old.sum(dtype=np.float64)

    def _keep(
        self,
        rows: Int64[np.ndarray, " b"],
        sizes: Int64[np.ndarray, " b"],
        candidates: Int32[np.ndarray, " l"],
        steps: Float32[np.ndarray, " l"],
    ) -> None:
        """Lists of these sizes, one after the other."""
        start = 0
        for row, end in zip(rows.tolist(), np.cumsum(sizes).tolist(), strict=True):
            self._lists[row] = candidates[start:end], steps[start:end]
            start = end
