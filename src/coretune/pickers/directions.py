"""The directions that picks span, made orthonormal several picks at a time, and what they leave of the target."""

from __future__ import annotations

import numpy as np

from coretune.distances import Basis
from coretune.shapes import Float

DEPENDENT = 0.1  # of a length: where less is left of an atom, its direction is made orthogonal once more
NOTHING = 1e-8  # of a squared length: as good as nothing is left of an atom


class Directions:
    """One direction a pick, orthonormal; with ridge, the first d numbers of longer ones that are orthonormal.

    An atom with ridge is the atom followed by a number of its own, the root of the ridge. Unpicked atoms have none of
    the picks' own numbers, so their products with directions need only the first d. Not so products of what is left
    of two atoms: there the atom itself must be taken for one of them.
    """

    def __init__(self, basis: Basis, target: Float[np.ndarray, " d"], room: int, ridge: float) -> None:
        self.basis, self.room, self.ridge = basis, room, ridge
        self.lower = np.zeros((room, room))
        self.steps = np.empty(room)
        self.residual = target  # after the last cut
        self.count = 0

    def add(self, x: Float[np.ndarray, " d"], product: float) -> None:
        """One more atom, whose product with the residual is known."""
        t = self.count
        along, direction = self.basis.split(t, x)
        left = float(x @ direction)
        if not self.ridge:
            if left < DEPENDENT**2 * float(x @ x):
                again, direction = self.basis.split(t, direction)
                along += again
            left = float(direction @ direction)
        length = (max(left, 0.0) + self.ridge) ** 0.5
        direction *= 1 / length
        step = product / length
        self.basis.put(t, direction[None])
        self.lower[t, :t], self.lower[t, t], self.steps[t] = along, length, step
        self.residual = self.residual - step * direction
        self.count += 1

    def extend(self, x: Float[np.ndarray, "g d"]) -> Float[np.ndarray, "h d"]:
        """More atoms, in this order; the residual after each.

        Those from the first on that hardly differs from the ones before it are not added, but the very first always
        is.
        """
        squared = np.vecdot(x, x)
        along, lower, directions = self._orthonormal(x, squared)
        if not self.ridge and (np.diag(lower) ** 2 < DEPENDENT**2 * squared[: len(lower)]).any():
            again, factor, directions = self._orthonormal(directions, np.ones(len(directions)))
            h = len(factor)
            along, lower = along[:h] + lower[:h, :h] @ again, lower[:h, :h] @ factor
        t, h = self.count, len(lower)
        steps = np.linalg.solve(lower, x[:h] @ self.residual)
        self.basis.put(t, directions)
        self.lower[t : t + h, :t], self.lower[t : t + h, t : t + h], self.steps[t : t + h] = along, lower, steps
        self.count += h
        return np.asarray(self.residual - np.tri(h) * steps @ directions)

    def scores(self, start: int) -> Float[np.ndarray, " g"]:
        """The product of each atom from `start` on with the residual before it."""
        return np.asarray(self.steps[start : self.count] * self.lower.diagonal()[start : self.count])

    def cut(self, count: int, residual: Float[np.ndarray, " d"]) -> None:
        """Forget the picks beyond the first `count`, which leave this residual."""
        self.count, self.residual = count, residual

    def _orthonormal(
        self, x: Float[np.ndarray, "g d"], squared: Float[np.ndarray, " g"]
    ) -> tuple[Float[np.ndarray, "h t"], Float[np.ndarray, "h h"], Float[np.ndarray, "h d"]]:
        """The products of atoms with the directions so far, the factor of what is left of them, and its directions."""
        along, left = self.basis.split(self.count, x)
        gram = (x if self.ridge else left) @ left.T
        gram.flat[:: len(x) + 1] = gram.diagonal().clip(0.0) + self.ridge
        lower = _factor(gram, squared)
        return along[: len(lower)], lower, np.linalg.inv(lower) @ left[: len(lower)]


def _factor(gram: Float[np.ndarray, "g g"], squared: Float[np.ndarray, " g"]) -> Float[np.ndarray, "h h"]:
    """The Cholesky factor of the first rows and columns, up to where little is left of one."""
    h = len(gram)
    while h > 1:
        try:
            lower = np.linalg.cholesky(gram[:h, :h])
        except np.linalg.LinAlgError:
            h //= 2
            continue
        enough = DEPENDENT**2 * np.maximum(gram.diagonal()[:h], NOTHING * squared[:h])
        few = np.diag(lower) ** 2 < enough
        h = max(1, int(few.argmax())) if few.any() else h
        return np.asarray(lower[:h, :h])
    return np.asarray(np.sqrt(gram[:1, :1]))
