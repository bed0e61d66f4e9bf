"""One run of orthogonal matching pursuit: atoms added one at a time, the residual made orthogonal to all of them.

The picks are those of the plain loop in float64, which multiplies every atom with the residual before each pick. Here
picks are guessed first and checked afterwards: the next ones are made among a block of atoms with the highest scores,
which gives a residual after each; one product of all atoms with those residuals then says how many of the guesses hold.
So the atoms are read once for a row of picks, in a matrix product, and no Gram matrix is formed. Where there are few
atoms, the plain loop is faster. Products in float32 only say which atoms need not be looked at; those that come near a
pick are compared with it in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coretune.distances import Basis, Rows, blocks, slack
from coretune.shapes import Bool, Float, Int64

FEW = 1 << 19  # numbers in all atoms: up to there, 2 MB of float32, nothing is guessed
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
        lengths = rows.lengths()
        fine = lengths <= LONGEST
        if not fine.all():
            bad = int(np.flatnonzero(~fine)[0])
            raise ValueError(f"row {bad} is not finite or longer than {LONGEST:.0e}; leave it out or rescale")
        return cls(rows, lengths)

    def part(self, rows: Int64[np.ndarray, " m"]) -> Atoms:
        """These alone."""
        return Atoms(self.rows.part(rows), self.lengths[rows])

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

    @classmethod
    def empty(cls, target: Float[np.ndarray, " d"]) -> Run:
        """A run without a pick."""
        return cls(np.empty(0, np.int64), np.empty((0, 0)), np.empty(0), target)


class _Path:
    """The directions that the picks span, one a pick and orthonormal; with ridge, the first d numbers of longer ones.

    An atom with ridge is the atom followed by a number of its own, the root of the ridge. Unpicked atoms have none of
    the picks' own numbers, so their products need only the first d.
    """

    def __init__(self, directions: Basis, target: Float[np.ndarray, " d"], room: int, ridge: float) -> None:
        self.directions = directions
        self.lower = np.zeros((room, room))
        self.steps = np.empty(room)
        self.residuals = [target]  # after the last cut, and after each pick since
        self.count, self.ridge = 0, ridge

    def add(self, x: Float[np.ndarray, " d"], product: float) -> None:
        """One more atom, whose product with the residual is known."""
        t = self.count
        along, direction = self.directions.split(t, x)
        squared = float(x @ x)
        left = max(squared - float(along @ along) + self.ridge, self.ridge)
        if not self.ridge:
            if left < DEPENDENT**2 * squared:
                again, direction = self.directions.split(t, direction)
                along += again
            left = float(direction @ direction)
        length = left**0.5
        direction /= length
        step = product / length
        self.directions.put(t, direction)
        self.lower[t, :t], self.lower[t, t], self.steps[t] = along, length, step
        self.residuals.append(self.residuals[-1] - step * direction)
        self.count += 1

    def cut(self, count: int) -> None:
        """Forget the picks beyond the first `count`."""
        self.residuals = [self.residuals[count - self.count - 1]]
        self.count = count


def pursue(atoms: Atoms, target: Float[np.ndarray, " d"], free: Bool[np.ndarray, " n"], k: int, rule: Rule) -> Run:
    """Up to `k` picks among the `free` rows for a target of length 1; fewer where no score is above the tolerance.

    The tolerance is relative to the longest free row. Memory: O(n + r d + r^2) in float64 for r picks, and 64 MB;
    without ridge there are at most d.
    """
    own = np.flatnonzero(free)
    if 2 * len(own) < len(free):
        run = pursue(atoms.part(own), target, np.ones(len(own), bool), k, rule) if len(own) else Run.empty(target)
        return replace(run, rows=own[run.rows])
    room = k if rule.ridge else min(k, atoms.rows.d)
    path = _Path(atoms.rows.basis(room), target, room, rule.ridge)
    longest = float(atoms.lengths[own].max(initial=0.0))
    if atoms.rows.n * atoms.rows.d <= FEW:
        picks = _walk(atoms, rule, path, free, len(path.steps), longest)[0]
    else:
        picks = _in_blocks(atoms, rule, path, free.copy(), longest)
    t = path.count
    return Run(np.array(picks, dtype=np.int64), path.lower[:t, :t].copy(), path.steps[:t].copy(), path.residuals[-1])


def _walk(
    atoms: Atoms, rule: Rule, path: _Path, free: Bool[np.ndarray, " n"], most: int, longest: float
) -> tuple[list[int], list[float]]:
    """The plain loop, all atoms times the residual before each pick: up to `most` picks, and the score of each."""
    picks: list[int] = []
    best: list[float] = []
    barred = np.where(free, 0.0, -np.inf).astype(atoms.rows.dtype)
    error = 2 * atoms.error(free)
    most = min(most, int(np.count_nonzero(free)))
    while len(picks) < most:
        residual = path.residuals[-1]
        scores = rule.scores(atoms.rows.products(residual[None])[0])
        scores += barred
        near = (scores >= scores.max() - error * float(residual @ residual) ** 0.5).nonzero()[0]
        x = atoms.rows.take(near) if len(near) <= SETTLED else None
        products = atoms.products(near, residual) if x is None else x @ residual
        place, top = _highest(rule, products, TIE * longest)
        if top <= rule.tolerance * longest:
            break
        row = int(near[place])
        path.add(atoms.rows.take(near[place : place + 1])[0] if x is None else x[place], float(products[place]))
        barred[row] = -np.inf
        picks.append(row)
        best.append(top)
    return picks, best


def _highest(rule: Rule, products: Float[np.ndarray, " m"], tie: float) -> tuple[int, float]:
    """The first place whose score is within a tie of the highest, and the highest score."""
    if len(products) == 1:  # nearly always: no other row comes near
        return 0, float(products[0]) if rule.positive else abs(float(products[0]))
    exact = rule.scores(products.copy())
    top = float(exact.max())
    return int((exact >= top - tie).argmax()), top


def _in_blocks(atoms: Atoms, rule: Rule, path: _Path, free: Bool[np.ndarray, " n"], longest: float) -> list[int]:
    """The same picks, several guessed at a time among a block of atoms and then checked against all others."""
    rows, picks, most = atoms.rows, [], FEWEST
    scores = rule.scores(rows.products(path.residuals[-1][None]))[0]
    scores[~free] = -np.inf
    while (start := path.count) < len(path.steps):
        block = _block(atoms, rule, path.residuals[-1], scores, longest)
        room = min(most, len(path.steps) - start)
        places, best = _walk(atoms.part(block), rule, path, np.ones(len(block), bool), room, longest)
        if not places:
            break
        chosen, outside = block[places], free.copy()
        outside[block] = False
        after = np.array(path.residuals[1:])
        found = rule.scores(rows.products(after))
        kept = _holding(atoms, rule, after, found, outside, chosen, np.array(best))
        most = min(max(FEWEST, 2 * kept), MOST, max(FEWEST, HELD // rows.n))
        path.cut(start + kept)
        free[chosen[:kept]] = False
        scores = found[kept - 1].copy()
        scores[~free] = -np.inf
        picks += chosen[:kept].tolist()
    return picks


def block_size(n: int) -> int:
    """How many atoms to guess among: a larger part of few than of many."""
    return max(32, min(n // 6, 256), min(n // 20, 512))


def _block(
    atoms: Atoms, rule: Rule, residual: Float[np.ndarray, " d"], scores: Float[np.ndarray, " n"], longest: float
) -> Int64[np.ndarray, " b"]:
    """The free rows with the highest scores, ascending, the next pick surely among them.

    `scores`, in float32, are -inf for rows that are not free.
    """
    size = min(block_size(len(scores)), len(scores))
    block = np.argpartition(-scores, size - 1)[:size]
    others = scores.copy()
    others[block] = -np.inf
    error = 2 * atoms.error(scores > -np.inf) * float(np.linalg.norm(residual))
    near = np.flatnonzero((others >= scores[block].max() - error) & (others > -np.inf))
    if len(near) > SETTLED:
        exact = rule.scores(atoms.products(near, residual))
        near = near[[int(exact.argmax()), int((exact >= exact.max() - TIE * longest).argmax())]]
    return np.union1d(block[scores[block] > -np.inf], near)


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
