"""Which atoms matching pursuit is likely to pick next: a pivoted Cholesky factorisation in float32 among some atoms."""

from __future__ import annotations

import numpy as np

from coretune.distances import Basis, Rows
from coretune.shapes import Float, Int64

KNOWN = 8  # times as many atoms as are guessed among: their products with the directions are kept


def block_size(n: int) -> int:
    """How many atoms to guess among: a larger part of few than of many."""
    return max(32, min(n // 6, 256), min(n // 20, 512))


class Guesses:
    """Guesses, and products of the atoms guessed among with the directions so far, in float32.

    The same atoms come near for long, so that few products are new: those with further directions follow from the
    products with the residuals. Memory: up to `KNOWN * block_size(n)` numbers of float32 for each of `room` directions.
    """

    def __init__(self, rows: Rows, basis: Basis, room: int, ridge: float, positive: bool) -> None:
        self.rows, self.basis, self.ridge, self.positive = rows, basis, ridge, positive
        self._values = np.empty((min(rows.n, KNOWN * block_size(rows.n)), room), np.float32)
        self._atoms = np.empty(0, np.int64)  # of the values
        self._place = np.full(rows.n, -1)  # of an atom in the values

    def learn(
        self,
        start: int,
        before: Float[np.ndarray, " n"],
        after: Float[np.ndarray, "g n"],
        steps: Float[np.ndarray, " g"],
    ) -> None:
        """Take over products with directions from `start` on, from those with the residuals before and after each."""
        some = np.concatenate([before[None, self._atoms], after[:, self._atoms]])
        values = (some[:-1] - some[1:]) / steps[:, None].astype(np.float32)
        self._values[: len(self._atoms), start : start + len(steps)] = values.T

    def after(
        self, first: int, count: int, products: Float[np.ndarray, " n"], block: Int64[np.ndarray, " b"], most: int
    ) -> Int64[np.ndarray, " g"]:
        """Up to `most` picks in a row among the block, starting with `first`, with `count` directions so far."""
        x, scores = self.rows.part(block), products[block]
        factors = np.empty((len(block), count + most), np.float32)
        factors[:, :count] = self._known(block, count)
        places, place = [], int(np.searchsorted(block, first))
        for t in range(count, min(count + most, count + len(block))):
            column = x.column(place) - factors[:, :t] @ factors[place, :t]
            square = float(column[place]) + self.ridge
            places.append(place)
            if square <= 0:
                break
            column *= square**-0.5
            factors[:, t] = column
            column *= float(scores[place]) * square**-0.5
            scores -= column
            place = self._highest(scores, places)
        return block[places]

    def _highest(self, scores: Float[np.ndarray, " b"], places: list[int]) -> int:
        """The place with the highest score but for those taken; of scores those are barred where that suffices."""
        if self.positive:
            scores[places[-1]] = -np.inf
            return int(scores.argmax())
        sizes = np.abs(scores)
        sizes[places] = -1
        return int(sizes.argmax())

    def _known(self, block: Int64[np.ndarray, " b"], count: int) -> Float[np.ndarray, "b t"]:
        """The products of the block's atoms with the directions so far."""
        new = block[self._place[block] < 0]
        if len(self._atoms) + len(new) > len(self._values):
            self._forget(block[self._place[block] >= 0], count)
        start, end = len(self._atoms), len(self._atoms) + len(new)
        self._values[start:end, :count] = self.basis.products(count, self.rows.take(new).astype(np.float32))
        self._atoms = np.concatenate([self._atoms, new])
        self._place[new] = np.arange(start, end)
        return self._values[self._place[block], :count]

    def _forget(self, kept: Int64[np.ndarray, " m"], count: int) -> None:
        """Keep these alone."""
        self._values[: len(kept), :count] = self._values[self._place[kept], :count]
        self._place[self._atoms] = -1
        self._place[kept] = np.arange(len(kept))
        self._atoms = kept
