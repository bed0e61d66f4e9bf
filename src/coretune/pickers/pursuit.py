"""One run of orthogonal matching pursuit: atoms added one at a time, the residual made orthogonal to all of them.

The picks are those of the plain loop in float64, which multiplies every atom with the residual before each pick. Here
picks are guessed first and checked afterwards: the next ones are made among a block of atoms with the highest scores,
which gives a residual after each; one product of all atoms with those residuals then says how many of the guesses hold.
So the atoms are read once for a row of picks, in a matrix product, and no Gram matrix is formed. Products in float32
only say which atoms need not be looked at; those that come near a pick are compared with it in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coretune.distances import Rows, blocks, slack, squares
from coretune.shapes import Bool, Float, Int64

BLOCK = 256  # atoms among which picks are guessed; up to twice as many where there are many
FEWEST, MOST = 8, 32  # picks guessed at a time
HELD = 1 << 24  # products held at a time: 64 MB of float32
SETTLED = 4096  # atoms compared again in float64; where more come near, the guess is given up
TAKEN = 1024  # of them at a time
TIE = 1e-12  # scores that differ by less, relative to the longest atom and the target, are equal
DEPENDENT = 0.1  # of an atom's length: where less is left of it, its direction is made orthogonal once more
LONGEST = 1e15  # an atom: squares and their sums stay far from overflow in float32


@dataclass(frozen=True)
class Rule:
    """What may be picked: by score or by its absolute value, from which score on, and with how much ridge."""

    ridge: float = 0.0
    positive: bool = True
    tolerance: float = 1e-5

    def scores(self, products: np.ndarray) -> np.ndarray:
        """The scores of atoms from their products with the residual, in place."""
        return products if self.positive else np.abs(products, out=products)


@dataclass(frozen=True)
class Atoms:
    """Rows, and the length of each."""

    rows: Rows
    lengths: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, rows: Rows) -> Atoms:
        """Raises `ValueError`, naming the row, where a row is not finite or too long."""
        lengths = np.empty(rows.n)
        for place in blocks(rows.n, TAKEN):
            lengths[place] = np.sqrt(squares(rows.take(place)))
        fine = lengths <= LONGEST
        if not fine.all():
            bad = int(np.flatnonzero(~fine)[0])
            raise ValueError(f"row {bad} is not finite or longer than {LONGEST:.0e}; leave it out or rescale")
        return cls(rows, lengths)

    def products(self, rows: Int64[np.ndarray, " m"], vector: Float[np.ndarray, " d"]) -> Float[np.ndarray, " m"]:
        """The products of these rows with a vector, in float64."""
        found = np.empty(len(rows))
        for place in blocks(len(rows), TAKEN):
            found[place] = self.rows.take(rows[place]) @ vector
        return found

    def error(self, some: Bool[np.ndarray, " n"]) -> float:
        """How far products in float32 of these rows with a vector of length 1 can be from the truth."""
        return float(slack(self.rows, np.array([self.lengths[some].max(initial=0.0)]), 1.0, 0.0)[0])


@dataclass(frozen=True)
class Run:
    """What one run picked, in order, for a target of length 1.

    `lower` is the Cholesky factor of the picks' Gram matrix plus ridge. A pick lowers the squared residual, ridge
    included, by the square of its step. `residual`: what is left of the target, without the ridge.
    """

    rows: Int64[np.ndarray, " t"]
    lower: Float[np.ndarray, "t t"]
    steps: Float[np.ndarray, " t"]
    residual: Float[np.ndarray, " d"]


class _Path:
    """The directions that the picks span, one a pick and orthonormal; with ridge, the first d numbers of longer ones.

    An atom with ridge is the atom followed by a number of its own, the root of the ridge. Unpicked atoms have none of
    the picks' own numbers, so their products need only the first d.
    """

    def __init__(self, target: Float[np.ndarray, " d"], room: int, ridge: float) -> None:
        self.directions = np.empty((room, len(target)))
        self.lower = np.zeros((room, room))
        self.steps = np.empty(room)
        self.residuals = [target]  # after the last cut, and after each pick since
        self.count, self.ridge = 0, ridge

    def add(self, x: Float[np.ndarray, " d"], product: float) -> tuple[Float[np.ndarray, " d"], float]:
        """One more atom, whose product with the residual is known: its direction and its step along it."""
        t = self.count
        before = self.directions[:t]
        along = before @ x
        direction = x - along @ before
        squared = float(x @ x)
        left = max(squared - float(along @ along) + self.ridge, self.ridge)
        if not self.ridge:
            if left < DEPENDENT**2 * squared:
                again = before @ direction
                along += again
                direction -= again @ before
            left = float(direction @ direction)
        length = left**0.5
        direction /= length
        step = product / length
        self.directions[t], self.lower[t, :t], self.lower[t, t], self.steps[t] = direction, along, length, step
        self.residuals.append(self.residuals[-1] - step * direction)
        self.count += 1
        return direction, step

    def cut(self, count: int) -> None:
        """Forget the picks beyond the first `count`."""
        self.residuals = [self.residuals[count - self.count - 1]]
        self.count = count


def pursue(atoms: Atoms, target: Float[np.ndarray, " d"], free: Bool[np.ndarray, " n"], k: int, rule: Rule) -> Run:
    """Up to `k` picks among the `free` rows for a target of length 1; fewer where no score is above the tolerance.

    The tolerance is relative to the longest free row. Memory: O(n + r d + r^2) in float64 for r picks, and 64 MB;
    without ridge there are at most d.
    """
    rows, free = atoms.rows, free.copy()
    path = _Path(target, k if rule.ridge else min(k, rows.d), rule.ridge)
    longest = float(atoms.lengths[free].max(initial=0.0))
    few = np.count_nonzero(free) <= BLOCK
    picks: list[int] = []
    most, scores = FEWEST, None
    while (start := path.count) < len(path.steps):
        if few:
            block, most = np.flatnonzero(free), len(path.steps)
            x = rows.take(block)
        else:
            if scores is None:
                scores = rule.scores(rows.products(target[None]))[0]
                scores[~free] = -np.inf
            block, x = _block(atoms, rule, path.residuals[-1], scores, longest)
        guessed, best = _guess(path, rule, x, min(most, len(path.steps) - start), longest)
        chosen = block[guessed]
        if not len(chosen):
            break
        if not few:
            outside = free.copy()
            outside[block] = False
            after = np.array(path.residuals[1:])
            scores = rule.scores(rows.products(after))
            kept = _holding(atoms, rule, after, scores, outside, chosen, best)
            most = min(max(FEWEST, 2 * kept), MOST, max(FEWEST, HELD // rows.n))
            chosen, scores = chosen[:kept], scores[kept - 1].copy()
        path.cut(start + len(chosen))
        free[chosen] = False
        if scores is not None:
            scores[~free] = -np.inf
        picks += chosen.tolist()
    t = path.count
    return Run(np.array(picks, dtype=np.int64), path.lower[:t, :t].copy(), path.steps[:t].copy(), path.residuals[-1])


def _guess(
    path: _Path, rule: Rule, x: Float[np.ndarray, "b d"], most: int, longest: float
) -> tuple[Int64[np.ndarray, " g"], Float[np.ndarray, " g"]]:
    """Picks made among the rows `x` alone: their places, and the highest score at each."""
    products = x @ path.residuals[-1]
    places: list[int] = []
    best: list[float] = []
    while len(places) < most:
        scores = rule.scores(products.copy())
        scores[places] = -np.inf
        top = float(scores.max(initial=0.0))
        if top <= rule.tolerance * longest:
            break
        place = int((scores >= top - TIE * longest).argmax())
        direction, step = path.add(x[place], float(products[place]))
        products -= step * (x @ direction)
        places.append(place)
        best.append(top)
    return np.array(places, dtype=np.int64), np.array(best)


def _block(
    atoms: Atoms, rule: Rule, residual: Float[np.ndarray, " d"], scores: Float[np.ndarray, " n"], longest: float
) -> tuple[Int64[np.ndarray, " b"], Float[np.ndarray, "b d"]]:
    """The free rows with the highest scores, ascending, the next pick surely among them; and what is in those rows.

    `scores`, in float32, are -inf for rows that are not free.
    """
    size = max(BLOCK, min(len(scores) // 16, 2 * BLOCK))
    block = np.sort(np.argpartition(-scores, size)[:size]) if len(scores) > size else np.arange(len(scores))
    block = block[scores[block] > -np.inf]
    x = atoms.rows.take(block)
    others = scores.copy()
    others[block] = -np.inf
    best = rule.scores(x @ residual).max(initial=0.0)
    near = np.flatnonzero(others >= best - atoms.error(others > -np.inf) * float(np.linalg.norm(residual)))
    if not len(near):
        return block, x
    exact = rule.scores(atoms.products(near, residual))
    level = exact >= max(best, exact.max()) - TIE * longest
    wanted = [near[exact.argmax()], near[level.argmax()]] if level.any() else []
    block = np.union1d(block, np.array(wanted, dtype=np.int64))
    return block, atoms.rows.take(block)


def _holding(
    atoms: Atoms,
    rule: Rule,
    residuals: Float[np.ndarray, "g d"],
    scores: Float[np.ndarray, "g n"],
    outside: Bool[np.ndarray, " n"],
    chosen: Int64[np.ndarray, " g"],
    best: Float[np.ndarray, " g"],
) -> int:
    """How many of the guessed picks hold against the rows outside the block.

    `residuals` and `scores` are those after each pick. The first pick holds by the choice of the block; a further one,
    as long as no row outside has a higher score, or an equal one and is lower.
    """
    others = np.flatnonzero(outside)
    if not len(others):
        return len(chosen)
    needed = best[1:] - atoms.error(outside) * np.linalg.norm(residuals[:-1], axis=1)
    tie = TIE * float(atoms.lengths[outside].max())
    for before in np.flatnonzero(scores[:-1, others].max(axis=1) >= needed).tolist():
        near = others[scores[before, others] >= needed[before]]
        if len(near) > SETTLED:
            return int(before) + 1
        exact, pick = rule.scores(atoms.products(near, residuals[before])), before + 1
        if (exact > best[pick]).any() or (near[exact >= best[pick] - tie] < chosen[pick]).any():
            return int(pick)
    return len(chosen)
