"""Chosen atoms with the least-squares weights on them, as atoms come and go."""

from __future__ import annotations

import numpy as np

from coretune.shapes import Float

REFRESH = 64  # changes between inverses computed anew
DEPENDENT = 1e-10  # of an atom's squared length: what is left of it on top of the others must be more


class Support:
    """Atoms a_i and the weights w that minimise |sum w_i a_i - target|^2 + ridge |w|^2; each change costs O(t^2 + t d).

    Kept as the inverse of the Gram matrix plus ridge, bordered for a new atom and reduced for one that leaves.
    """

    def __init__(self, target: Float[np.ndarray, " d"], room: int, ridge: float) -> None:
        self.rows: list[int] = []
        self.target, self.ridge = target, ridge
        self._atoms = np.empty((room, len(target)))
        self._gram = np.empty((room, room))
        self._products = np.empty(room)
        self._inverse: Float[np.ndarray, "t t"] = np.empty((0, 0))
        self._changes = 0

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, row: int, x: Float[np.ndarray, " d"]) -> bool:
        """One more atom, last; False, and nothing is changed, if it depends on the others."""
        t = len(self)
        along = self._atoms[:t] @ x
        squared = float(x @ x) + self.ridge
        through = self._inverse @ along
        left = squared - float(along @ through)
        if left <= DEPENDENT * squared:
            return False
        inverse = np.empty((t + 1, t + 1))
        inverse[:t, :t] = self._inverse + np.outer(through, through / left)
        inverse[:t, t] = inverse[t, :t] = -through / left
        inverse[t, t] = 1 / left
        self._atoms[t], self._products[t] = x, x @ self.target
        self._gram[t, :t] = self._gram[:t, t] = along
        self._gram[t, t] = squared
        self.rows.append(row)
        self._changed(inverse)
        return True

    def drop(self, place: int) -> None:
        """Without the atom at this place."""
        t = len(self)
        others = np.delete(np.arange(t), place)
        column = self._inverse[others, place]
        inverse = self._inverse[np.ix_(others, others)] - np.outer(column, column / self._inverse[place, place])
        self._atoms[place : t - 1] = self._atoms[place + 1 : t]
        self._products[place : t - 1] = self._products[place + 1 : t]
        self._gram[: t - 1, : t - 1] = self._gram[np.ix_(others, others)]
        del self.rows[place]
        self._changed(inverse)

    def weights(self) -> Float[np.ndarray, " t"]:
        """The best weights, of any sign."""
        return np.asarray(self._inverse @ self._products[: len(self)])

    def residual(self, weights: Float[np.ndarray, " t"]) -> Float[np.ndarray, " d"]:
        """What these weights leave of the target."""
        return np.asarray(self.target - weights @ self._atoms[: len(self)])

    def _changed(self, inverse: Float[np.ndarray, "t t"]) -> None:
        self._changes += 1
        t = len(self)
        self._inverse = np.linalg.inv(self._gram[:t, :t]) if self._changes % REFRESH == 0 else inverse
