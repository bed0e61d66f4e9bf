"""Rows of a matrix in torch: the same as in numpy, computed on the tensor's own device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from coretune.distances.basis import Basis, TensorBasis
from coretune.distances.rows import PRODUCTS, UNIT, blocks
from coretune.shapes import Float, Int32, Int64

SUMMED = 1 << 16  # rows widened to float64 at a time


class TensorRows:
    """Rows of a torch tensor; half precision is widened to float32 a block at a time. Results are numpy arrays."""

    def __init__(self, x: Any) -> None:
        import torch

        self.x = x.detach()
        self.n, self.d = x.shape
        wide = x.dtype == torch.float64
        self.dtype = np.dtype(np.float64 if wide else np.float32)
        self.unit = UNIT[self.dtype.itemsize]
        if x.is_cuda and not wide and torch.get_float32_matmul_precision() != "highest":
            self.unit = 2.0**-9  # the caller lets float32 products be taken in TF32 or bfloat16
        self._wide = torch.float64 if wide else torch.float32
        self._held = PRODUCTS * (64 if x.is_cuda else 1)

    def take(self, rows: Int64[np.ndarray, " m"] | slice) -> Float[np.ndarray, "m d"]:
        """These rows exactly, in float64."""
        return np.asarray(self._some(rows).cpu().double().numpy())

    def part(self, rows: Int64[np.ndarray, " m"]) -> TensorRows:
        """These rows alone, on the same device."""
        return TensorRows(self._some(rows).to(self._wide))

    def best(
        self, rows: Int64[np.ndarray, " m"] | None, vectors: Float[np.ndarray, "p d"], offsets: Float[np.ndarray, " p"]
    ) -> Float[np.ndarray, " m"]:
        """The largest `x . v - offset` of each row x over all vectors v."""
        found = np.empty(self.n if rows is None else len(rows), self.dtype)
        for place, products in self._products(rows, vectors, offsets):
            found[place] = products.amax(dim=1).cpu().numpy()
        return found

    def best_two(
        self, rows: Int64[np.ndarray, " m"] | None, vectors: Float[np.ndarray, "p d"], offsets: Float[np.ndarray, " p"]
    ) -> tuple[Int32[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Which vector has the largest `x . v - offset` (ties: the first), that value, and the second largest."""
        m = self.n if rows is None else len(rows)
        which, first, second = np.empty(m, np.int32), np.empty(m, self.dtype), np.empty(m, self.dtype)
        for place, products in self._products(rows, vectors, offsets):
            winner = products.argmax(dim=1, keepdim=True)
            which[place] = winner[:, 0].cpu().numpy()
            first[place] = products.gather(1, winner)[:, 0].cpu().numpy()
            second[place] = products.scatter_(1, winner, -np.inf).amax(dim=1).cpu().numpy()
        return which, first, second

    def totals(
        self, rows: Int64[np.ndarray, " m"] | None, cell: Int32[np.ndarray, " m"], c: int
    ) -> Float[np.ndarray, "c d"]:
        """The sum of the rows in each of `c` cells, in float64 and always in the same order."""
        import torch

        order = np.argsort(cell, kind="stable")
        found = np.zeros((c, self.d))
        for place in blocks(len(order), SUMMED):
            some = order[place]
            sizes = torch.from_numpy(np.bincount(cell[some], minlength=c)).to(self.x.device)
            members = self._some(some if rows is None else rows[some]).double()
            found += torch.segment_reduce(members, "sum", lengths=sizes, axis=0, initial=0.0).cpu().numpy()
        return found

    def products(self, vectors: Float[np.ndarray, "p d"]) -> Float[np.ndarray, "p n"]:
        """The product of every row with every vector, all in one array."""
        import torch

        found = np.empty((len(vectors), self.n), self.dtype)
        across = torch.from_numpy(vectors.astype(self.dtype, copy=False)).to(self.x.device)
        for place in blocks(self.n, max(64, self._held // self.d)):
            found[:, place] = (across @ self.x[place].to(self._wide).T).cpu().numpy()
        return found

    def column(self, row: int) -> Float[np.ndarray, " n"]:
        """The product of every row with one of them."""
        return np.asarray((self.x.to(self._wide) @ self.x[row].to(self._wide)).cpu().numpy())

    def lengths(self) -> Float[np.ndarray, " n"]:
        """The length of every row, as products give it."""
        found = np.empty(self.n)
        for place in blocks(self.n, max(64, self._held // self.d)):
            found[place] = self.x[place].to(self._wide).norm(dim=1).cpu().numpy()
        return found

    def basis(self, room: int) -> Basis:
        """Room for vectors as wide as the rows, on the same device."""
        return TensorBasis(room, self.d, self.x.device)

    def _some(self, rows: Int64[np.ndarray, " m"] | slice) -> Any:
        import torch

        return self.x[rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.x.device)]

    def _products(
        self, rows: Int64[np.ndarray, " m"] | None, vectors: Float[np.ndarray, "p d"], offsets: Float[np.ndarray, " p"]
    ) -> Iterator[tuple[slice, Any]]:
        import torch

        across = torch.from_numpy(vectors.astype(self.dtype, copy=False)).to(self.x.device).T
        offset = torch.from_numpy(offsets.astype(self.dtype, copy=False)).to(self.x.device)
        for place in blocks(self.n if rows is None else len(rows), max(64, self._held // max(1, len(vectors)))):
            yield place, self._some(place if rows is None else rows[place]).to(self._wide) @ across - offset
