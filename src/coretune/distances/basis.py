"""Vectors kept one after the other, and products with all of them: in numpy, or in torch on a device."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from coretune.shapes import Float

CACHED = 1 << 19  # bytes of vectors that are read twice in a row


@runtime_checkable
class Basis(Protocol):
    """Room for vectors of float64, filled from the first on."""

    def put(self, place: int, vector: Float[np.ndarray, " d"]) -> None:
        """Set the vector at a place."""
        ...

    def split(self, count: int, x: Float[np.ndarray, " d"]) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " d"]]:
        """The products of the first `count` vectors with x, and x less each of these vectors times its product."""
        ...


class ArrayBasis:
    """In numpy."""

    def __init__(self, room: int, d: int) -> None:
        self._vectors = np.empty((room, d))

    def put(self, place: int, vector: Float[np.ndarray, " d"]) -> None:
        """Set the vector at a place."""
        self._vectors[place] = vector

    def split(self, count: int, x: Float[np.ndarray, " d"]) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " d"]]:
        """The products of the first `count` vectors with x, and x less each of these vectors times its product.

        Some vectors at a time, so that they are still in the cache when they are read again.
        """
        products, rest = np.empty(count), x.copy()
        step = max(1, CACHED // max(1, x.nbytes))
        for start in range(0, count, step):
            vectors = self._vectors[start : min(start + step, count)]
            found = np.dot(vectors, x, out=products[start : start + len(vectors)])
            rest -= found @ vectors
        return products, rest


class TensorBasis:
    """In torch, on a device; what goes in and comes out is numpy."""

    def __init__(self, room: int, d: int, device: Any) -> None:
        import torch

        self._vectors = torch.empty((room, d), dtype=torch.float64, device=device)

    def put(self, place: int, vector: Float[np.ndarray, " d"]) -> None:
        """Set the vector at a place."""
        self._vectors[place] = self._there(vector)

    def split(self, count: int, x: Float[np.ndarray, " d"]) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " d"]]:
        """The products of the first `count` vectors with x, and x less each of these vectors times its product."""
        vectors, there = self._vectors[:count], self._there(x)
        products = vectors @ there
        return np.asarray(products.cpu().numpy()), np.asarray((there - products @ vectors).cpu().numpy())

    def _there(self, x: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(x)).to(self._vectors.device)
