"""Similarities of rows, counted in whole steps so that their sums are exact.

A similarity is a whole number of steps from 0 to 2^24, held as float32, which holds every one of them; times `step` it
is the similarity itself. Differences in float32 and sums in float64 are then exact, in whatever order they are taken.
Products are in float64, so which step a pair comes to does not depend on where its rows stand, but in one pair of about
a hundred million, and there by one step.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from coretune.distances.exact import centred, squares
from coretune.distances.rows import Rows, blocks
from coretune.shapes import Float, Float32, Int64

STEPS = 2.0**24
NEAR = 2.0**-20  # squared distances that are a smaller part of the squared lengths are taken again, by differences
BLOCK = 1024


@runtime_checkable
class Similarity(Protocol):
    """How well each of `n` candidates serves each of `m` rows."""

    m: int
    n: int
    step: float
    symmetric: bool  # rows and candidates are the same, and serve each other equally well

    def between(
        self, rows: Int64[np.ndarray, " a"] | slice, candidates: Int64[np.ndarray, " b"] | slice
    ) -> Float32[np.ndarray, "a b"]:
        """In steps."""
        ...


class Cosines:
    """(1 + cosine) / 2 of any two rows; a row of zeros has cosine 0 with all. Memory: 8 n d bytes."""

    step = 1 / STEPS
    symmetric = True

    def __init__(self, rows: Rows) -> None:
        self.m = self.n = rows.n
        self._unit = rows.take(slice(None))
        self._unit /= lengths_of(rows)[:, None]

    def between(
        self, rows: Int64[np.ndarray, " a"] | slice, candidates: Int64[np.ndarray, " b"] | slice
    ) -> Float32[np.ndarray, "a b"]:
        """In steps."""
        return cosine_steps((self._unit[rows] * (STEPS / 2)) @ self._unit[candidates].T)


class Closeness:
    """`reach` less the Euclidean distance of any two rows, or 0 where they are farther apart.

    `reach`: in the unit of the rows; without it, twice the largest distance from the mean, which no two rows exceed.
    Memory: 8 n d bytes.
    """

    symmetric = True

    def __init__(self, rows: Rows, reach: float | None = None) -> None:
        self.m = self.n = rows.n
        mean, spread = centred(rows)
        widest = 2 * float(np.sqrt(spread.max())) or 1.0  # 1 where all rows are equal
        self._reach = widest if reach is None else float(reach)
        if not 0 < self._reach < np.inf:
            raise ValueError(f"reach must be above 0 and finite; found {reach}")
        self.step = self._reach / STEPS
        self._away = rows.take(slice(None)) - mean
        self._squares = squares(self._away)

    def between(
        self, rows: Int64[np.ndarray, " a"] | slice, candidates: Int64[np.ndarray, " b"] | slice
    ) -> Float32[np.ndarray, "a b"]:
        """In steps."""
        some, others = self._away[rows], self._away[candidates]
        lengths = self._squares[rows][:, None] + self._squares[candidates]
        found = some @ others.T
        found *= -2
        found += lengths
        lengths *= NEAR
        which, near = np.nonzero(found <= lengths)
        for place in blocks(len(near), BLOCK):
            found[which[place], near[place]] = squares(some[which[place]] - others[near[place]])
        np.sqrt(found, out=found)
        np.subtract(self._reach, found, out=found)
        np.maximum(found, 0, out=found)
        found /= self.step
        return np.asarray(np.rint(found, out=found), dtype=np.float32)


class Given:
    """Similarities from elsewhere, `(m, n)`: of m rows to n candidates. Memory: a copy in float32.

    Raises `ValueError` where one is negative or not finite.
    """

    symmetric = False

    def __init__(self, similarity: Float[np.ndarray, "m n"]) -> None:
        found = np.asarray(similarity)
        if found.ndim != 2 or found.dtype.kind != "f" or not found.size:
            raise ValueError(
                f"similarities must be (m, n) floating numbers, not empty; found {found.shape} {found.dtype}"
            )
        low, high = float(found.min()), float(found.max())
        if not 0 <= low <= high < np.inf:
            raise ValueError(f"similarities must be finite and not negative; found {low:.3g} to {high:.3g}")
        self.m, self.n = found.shape
        self.step = (high or 1.0) / STEPS
        self._steps = np.empty((self.m, self.n), np.float32)
        for place in blocks(self.m, BLOCK):
            self._steps[place] = np.rint(found[place].astype(np.float64) / self.step)

    def between(
        self, rows: Int64[np.ndarray, " a"] | slice, candidates: Int64[np.ndarray, " b"] | slice
    ) -> Float32[np.ndarray, "a b"]:
        """In steps."""
        return self._steps[rows][:, candidates]


def lengths_of(rows: Rows) -> Float[np.ndarray, " n"]:
    """The Euclidean length of every row in float64, 1 for rows of zeros.

    Raises `ValueError`, naming the row, where a value is not finite.
    """
    found = np.empty(rows.n)
    for place in blocks(rows.n, BLOCK):
        x = rows.take(place)
        largest = np.abs(x).max(axis=1)
        if not np.isfinite(largest).all():
            bad = place.start + int(np.flatnonzero(~np.isfinite(largest))[0])
            raise ValueError(f"row {bad} has a value that is not finite; leave it out")
        largest[largest == 0] = 1  # squares of what is left neither overflow nor vanish
        x /= largest[:, None]
        length = largest * np.sqrt(squares(x))
        found[place] = np.where(length, length, 1)
    return found


def cosine_steps(products: Float[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Steps of (1 + cosine) / 2 from cosines times half of all steps; overwrites them."""
    found = np.asarray(np.rint(products, out=products), dtype=np.float32)
    found += np.float32(STEPS / 2)
    return found
