"""Vectors kept one after the other, and products with all of them: in numpy, or in torch on a device."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from coretune.shapes import Float


@runtime_checkable
class Basis(Protocol):
    """Room for vectors of float64, filled from the first on."""

    def put(self, place: int, vector: Float[np.ndarray, " d"]) -> None:
        """Set the vector at a place."""
        ...

    def along(self, count: int, x: Float[np.ndarray, " d"]) -> Float[np.ndarray, " t"]:
        """The products of the first `count` vectors with x."""
        ...

    def combined(self, amounts: Float[np.ndarray, " t"]) -> Float[np.ndarray, " d"]:
        """The sum of as many first vectors, each times its amount."""
        ...


class ArrayBasis:
    """In numpy."""

    def __init__(self, room: int, d: int) -> None:
        self._vectors = np.empty((room, d))

    def put(self, place: int, vector: Float[np.ndarray, " d"]) -> None:
        """Set the vector at a place."""
        self._vectors[place] = vector

    def along(self, count: int, x: Float[np.ndarray, " d"]) -> Float[np.ndarray, " t"]:
        """The products of the first `count` vectors with x."""
        return np.asarray(self._vectors[:count] @ x)

    def combined(self, amounts: Float[np.ndarray, " t"]) -> Float[np.ndarray, " d"]:
        """The sum of as many first vectors, each times its amount."""
        return np.asarray(amounts @ self._vectors[: len(amounts)])


class TensorBasis:
    """In torch, on a device; what goes in and comes out is numpy."""

    def __init__(self, room: int, d: int, device: Any) -> None:
        import torch

        self._vectors = torch.empty((room, d), dtype=torch.float64, device=device)

    def put(self, place: int, vector: Float[np.ndarray, " d"]) -> None:
        """Set the vector at a place."""
        self._vectors[place] = self._there(vector)

    def along(self, count: int, x: Float[np.ndarray, " d"]) -> Float[np.ndarray, " t"]:
        """The products of the first `count` vectors with x."""
        return np.asarray((self._vectors[:count] @ self._there(x)).cpu().numpy())

    def combined(self, amounts: Float[np.ndarray, " t"]) -> Float[np.ndarray, " d"]:
        """The sum of as many first vectors, each times its amount."""
        return np.asarray((self._there(amounts) @ self._vectors[: len(amounts)]).cpu().numpy())

    def _there(self, x: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(x)).to(self._vectors.device)
