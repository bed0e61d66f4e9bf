"""Vectors kept one after the other, and products with all of them: in numpy, or in torch on a device."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from coretune.shapes import Float, Float32

CACHED = 1 << 24  # bytes of vectors that are read twice in a row
NARROWED = 256  # vectors at a time


@runtime_checkable
class Basis(Protocol):
    """Room for vectors of float64, filled from the first on."""

    def put(self, start: int, vectors: Float[np.ndarray, "p d"]) -> None:
        """Set the vectors from a place on."""
        ...

    def products(self, count: int, x: Float32[np.ndarray, "p d"]) -> Float32[np.ndarray, "p t"]:
        """The products of each row of x with the first `count` vectors, in float32."""
        ...

    def split(
        self, count: int, x: Float[np.ndarray, "p d"]
    ) -> tuple[Float[np.ndarray, "p t"], Float[np.ndarray, "p d"]]:
        """The same in float64, and the rows of x less each of these vectors times its product."""
        ...


class ArrayBasis:
    """In numpy."""

    def __init__(self, room: int, d: int) -> None:
        self._vectors = np.empty((room, d))

    def put(self, start: int, vectors: Float[np.ndarray, "p d"]) -> None:
        """Set the vectors from a place on."""
        self._vectors[start : start + len(vectors)] = vectors

    def products(self, count: int, x: Float32[np.ndarray, "p d"]) -> Float32[np.ndarray, "p t"]:
        """The products of each row of x with the first `count` vectors, in float32."""
        products = np.empty((len(x), count), np.float32)
        for start in range(0, count, NARROWED):
            place = slice(start, min(start + NARROWED, count))
            products[:, place] = x @ self._vectors[place].astype(np.float32).T
        return products

    def split(
        self, count: int, x: Float[np.ndarray, "p d"]
    ) -> tuple[Float[np.ndarray, "p t"], Float[np.ndarray, "p d"]]:
        """The same in float64, and the rows of x less each of these vectors times its product.

        Some vectors at a time, so that they are still in the cache when they are read again.
        """
        step = max(1, CACHED // (8 * x.shape[-1]))
        if count <= step:
            vectors = self._vectors[:count]
            found = x @ vectors.T
            return found, x - found @ vectors
        products, rest = np.empty((*x.shape[:-1], count)), x.copy()
        for start in range(0, count, step):
            vectors = self._vectors[start : min(start + step, count)]
            found = products[..., start : start + len(vectors)] = x @ vectors.T
            rest -= found @ vectors
        return products, rest


class TensorBasis:
    """In torch, on a device; what goes in and comes out is numpy."""

    def __init__(self, room: int, d: int, device: Any) -> None:
        import torch

        self._vectors = torch.empty((room, d), dtype=torch.float64, device=device)

    def put(self, start: int, vectors: Float[np.ndarray, "p d"]) -> None:
        """Set the vectors from a place on."""
        self._vectors[start : start + len(vectors)] = self._there(vectors)

    def products(self, count: int, x: Float32[np.ndarray, "p d"]) -> Float32[np.ndarray, "p t"]:
        """The products of each row of x with the first `count` vectors, in float32."""
        import torch

        products, there = np.empty((len(x), count), np.float32), self._there(x)
        for start in range(0, count, NARROWED):
            place = slice(start, min(start + NARROWED, count))
            products[:, place] = (there @ self._vectors[place].to(torch.float32).T).cpu().numpy()
        return products

    def split(
        self, count: int, x: Float[np.ndarray, "p d"]
    ) -> tuple[Float[np.ndarray, "p t"], Float[np.ndarray, "p d"]]:
        """The same in float64, and the rows of x less each of these vectors times its product."""
        vectors, there = self._vectors[:count], self._there(x)
        products = there @ vectors.T
        return np.asarray(products.cpu().numpy()), np.asarray((there - products @ vectors).cpu().numpy())

    def _there(self, x: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(x)).to(self._vectors.device)
