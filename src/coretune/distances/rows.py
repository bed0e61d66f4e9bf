"""Rows of a matrix in numpy, and what any other matrix must offer to stand in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from coretune.distances.basis import ArrayBasis, Basis
from coretune.shapes import Float, Float32, Int32, Int64

PRODUCTS = 1 << 21  # held at a time: 8 MB of float32
TOGETHER = 512  # rows in one product with several vectors: up to a fifth faster than all at once
UNIT = {4: 2.0**-24, 8: 2.0**-53}  # unit roundoff by bytes of a number


@runtime_checkable
class Rows(Protocol):
    """The rows of a matrix `(n, d)`, wherever they lie. `rows` None means all of them."""

    n: int
    d: int
    dtype: Any  # numpy's type of the products
    unit: float  # and how far one rounding of them can be off, relative

    def take(self, rows: Int64[np.ndarray, " m"] | slice) -> Float[np.ndarray, "m d"]:
        """These rows exactly, in float64."""
        ...

    def part(self, rows: Int64[np.ndarray, " m"]) -> Rows:
        """These rows alone, as a matrix of their own, ready for products."""
        ...

    def best(
        self, rows: Int64[np.ndarray, " m"] | None, vectors: Float[np.ndarray, "p d"], offsets: Float[np.ndarray, " p"]
    ) -> Float[np.ndarray, " m"]:
        """The largest `x . v - offset` of each row x over all vectors v."""
        ...

    def best_two(
        self, rows: Int64[np.ndarray, " m"] | None, vectors: Float[np.ndarray, "p d"], offsets: Float[np.ndarray, " p"]
    ) -> tuple[Int32[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Which vector has the largest `x . v - offset` (ties: the first), that value, and the second largest."""
        ...

    def totals(
        self, rows: Int64[np.ndarray, " m"] | None, cell: Int32[np.ndarray, " m"], c: int
    ) -> Float[np.ndarray, "c d"]:
        """The sum of the rows in each of `c` cells, in float64 and always in the same order."""
        ...

    def products(self, vectors: Float[np.ndarray, "p d"]) -> Float[np.ndarray, "p n"]:
        """The product of every row with every vector, all in one array."""
        ...

    def column(self, row: int) -> Float[np.ndarray, " n"]:
        """The product of every row with one of them."""
        ...

    def lengths(self) -> Float[np.ndarray, " n"]:
        """The length of every row, as products give it."""
        ...

    def basis(self, room: int) -> Basis:
        """Room for vectors as wide as the rows, on the same device."""
        ...


class ArrayRows:
    """Rows of a numpy array; float16 is widened to float32 a block at a time."""

    def __init__(self, x: Float[np.ndarray, "n d"]) -> None:
        self.x = x
        self.n, self.d = x.shape
        self.dtype = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
        self.unit = UNIT[self.dtype.itemsize]

    def take(self, rows: Int64[np.ndarray, " m"] | slice) -> Float[np.ndarray, "m d"]:
        """These rows exactly, in float64."""
        return self.x[rows].astype(np.float64)

    def part(self, rows: Int64[np.ndarray, " m"]) -> ArrayRows:
        """These rows alone."""
        return ArrayRows(self.x[rows].astype(self.dtype, copy=False))

    def best(
        self, rows: Int64[np.ndarray, " m"] | None, vectors: Float[np.ndarray, "p d"], offsets: Float[np.ndarray, " p"]
    ) -> Float[np.ndarray, " m"]:
        """The largest `x . v - offset` of each row x over all vectors v."""
        found = np.empty(self.n if rows is None else len(rows), self.dtype)
        for place, products in self._products(rows, vectors, offsets):
            products.max(axis=1, out=found[place])
        return found

    def best_two(
        self, rows: Int64[np.ndarray, " m"] | None, vectors: Float[np.ndarray, "p d"], offsets: Float[np.ndarray, " p"]
    ) -> tuple[Int32[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Which vector has the largest `x . v - offset` (ties: the first), that value, and the second largest."""
        m = self.n if rows is None else len(rows)
        which, first, second = np.empty(m, np.int32), np.empty(m, self.dtype), np.empty(m, self.dtype)
        for place, products in self._products(rows, vectors, offsets):
            winner = products.argmax(axis=1)
            each = np.arange(len(products))
            which[place], first[place] = winner, products[each, winner]
            products[each, winner] = -np.inf
            products.max(axis=1, out=second[place])
        return which, first, second

    def totals(
        self, rows: Int64[np.ndarray, " m"] | None, cell: Int32[np.ndarray, " m"], c: int
    ) -> Float[np.ndarray, "c d"]:
        """The sum of the rows in each of `c` cells, in float64 and always in the same order."""
        found = np.zeros((c, self.d))
        order = np.argsort(
            cell.astype(np.int16) if c <= 1 << 15 else cell, kind="stable"
        )  # int16: by radix, 10x faster
        order = order if rows is None else rows[order]
        sizes = np.bincount(cell, minlength=c)
        ends = np.cumsum(sizes)
        for j in np.flatnonzero(sizes):
            found[j] = self.x[order[ends[j] - sizes[j] : ends[j]]].sum(axis=0, dtype=np.float64)
        return found

    def products(self, vectors: Float[np.ndarray, "p d"]) -> Float[np.ndarray, "p n"]:
        """The product of every row with every vector, all in one array."""
        vectors = vectors.astype(self.dtype, copy=False)
        if self.x.dtype == self.dtype and len(vectors) == 1:
            return np.asarray((self.x @ vectors[0])[None])
        found = np.empty((len(vectors), self.n), self.dtype)
        for place in blocks(self.n, TOGETHER):
            found[:, place] = vectors @ self.x[place].astype(self.dtype, copy=False).T
        return found

    def column(self, row: int) -> Float[np.ndarray, " n"]:
        """The product of every row with one of them."""
        return np.asarray(self.products(self.x[row : row + 1])[0])

    def lengths(self) -> Float[np.ndarray, " n"]:
        """The length of every row, as products give it."""
        found = np.empty(self.n)
        for place in blocks(self.n, max(64, PRODUCTS // self.d)):
            x = self.x[place].astype(self.dtype, copy=False)
            found[place] = np.vecdot(x, x)
        return np.asarray(np.sqrt(found))

    def basis(self, room: int) -> Basis:
        """Room for vectors as wide as the rows."""
        return ArrayBasis(room, self.d)

    def _products(
        self, rows: Int64[np.ndarray, " m"] | None, vectors: Float[np.ndarray, "p d"], offsets: Float[np.ndarray, " p"]
    ) -> Iterator[tuple[slice, Float32[np.ndarray, "b p"]]]:
        vectors, offsets = vectors.astype(self.dtype, copy=False), offsets.astype(self.dtype, copy=False)
        across = vectors.T
        for place in blocks(self.n if rows is None else len(rows), max(64, PRODUCTS // max(1, len(vectors)))):
            x = self.x[place if rows is None else rows[place]].astype(self.dtype, copy=False)
            products = (
                x @ across if len(vectors) > 1 else np.vecdot(x, vectors)[:, None]
            )  # one thread, none to wait for
            products -= offsets
            yield place, products


def blocks(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover `range(n)`."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
