"""One run of orthogonal matching pursuit: atoms added one at a time, the residual made orthogonal to all of them.

The picks are those of the plain loop in float64, which multiplies every atom with the residual before each pick. Here
picks are guessed first and checked afterwards: a factorisation in float32 among a block of atoms with high scores says
which are likely to come next, their directions and the residual after each are made in float64 for all of them at once,
and one product of all atoms with those residuals then says how many of the guesses hold. So atoms and directions are
read once for a row of picks, in matrix products, and no Gram matrix of all atoms is formed. Where there are few atoms,
the plain loop is faster, compiled where a process makes many picks. Products in float32 only say which atoms need not
be looked at; those that come near a pick are compared with it in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coretune.distances import Rows, blocks, slack
from coretune.distances.rows import ArrayRows
from coretune.pickers._pursuit_loop import ASKED, Walk
from coretune.pickers.directions import DEPENDENT, Directions
from coretune.pickers.guesses import Guesses, block_size
from coretune.shapes import Bool, Float, Int64

FEW = 1 << 21  # numbers in all atoms: up to there, 8 MB of float32, nothing is guessed
FEWEST, MOST = 8, 32  # picks guessed at a time
HELD = 1 << 22  # products held at a time: 16 MB of float32, and as much again while they are checked
TAKEN = 1024  # atoms compared again in float64 at a time
TIE = 1e-12  # scores that differ by less, relative to the longest atom and the target, are equal
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

    def error(self, longest: float) -> float:
        """How far products in float32 of rows up to this length with a vector of length 1 can be from the truth."""
        return float(slack(self.rows, np.array([longest]), 1.0, 0.0)[0])


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


def pursue(atoms: Atoms, target: Float[np.ndarray, " d"], free: Bool[np.ndarray, " n"], k: int, rule: Rule) -> Run:
    """Up to `k` picks among the `free` rows for a target of length 1; fewer where no score is above the tolerance.

    The tolerance is relative to the longest free row. Memory: O(n + r d + r^2) in float64 for r picks, 16 KB a pick,
    and 64 MB; without ridge there are at most d.
    """
    own = np.flatnonzero(free)
    if 2 * len(own) < len(free):
        run = pursue(atoms.part(own), target, np.ones(len(own), bool), k, rule) if len(own) else Run.empty(target)
        return replace(run, rows=own[run.rows])
    room = min(k, len(own) if rule.ridge else min(len(own), atoms.rows.d))
    few = atoms.rows.n * atoms.rows.d <= FEW
    if few and isinstance(atoms.rows, ArrayRows) and (loop := ASKED.loop(atoms.rows, room)) is not None:
        return _compiled(loop, atoms.rows, target, room, _Check(atoms, rule, free))
    path = Directions(atoms.rows.basis(room), target, room, rule.ridge)
    picks = (_one_by_one if few else _guessed)(atoms, path, _Check(atoms, rule, free))
    t = path.count
    return Run(np.array(picks, dtype=np.int64), path.lower[:t, :t].copy(), path.steps[:t].copy(), path.residual)


def _one_by_one(atoms: Atoms, path: Directions, check: _Check) -> list[int]:
    """The plain loop, all atoms times the residual before each pick."""
    picks: list[int] = []
    while path.count < path.room:
        row, x, product = check.best(path.residual, check.scores(atoms.rows.products(path.residual[None])[0]))
        if check.weak(product):
            break
        path.add(x, product)
        check.barred[row] = -np.inf
        picks.append(row)
    return picks


def _compiled(loop: Walk, rows: ArrayRows, target: Float[np.ndarray, " d"], room: int, check: _Check) -> Run:
    """The plain loop again, compiled."""
    x, residual, barred = rows.x.view(), np.array(target, dtype=np.float64), check.barred < 0
    x.setflags(write=False)  # always: for rows that can be written it would be compiled again
    vectors, lower, steps = np.empty((room, rows.d)), np.zeros((room, room)), np.empty(room)
    picks = np.empty(room, np.int64)
    bounds = float(check.rule.ridge), check.least, check.tie, check.error, DEPENDENT**2
    t = loop(x, residual, barred, bool(check.rule.positive), bounds, (vectors, lower, steps, picks))
    return Run(picks[:t].copy(), lower[:t, :t].copy(), steps[:t].copy(), residual)


def _guessed(atoms: Atoms, path: Directions, check: _Check) -> list[int]:
    """The same picks, several guessed at a time and then checked."""
    rows, picks, most = atoms.rows, [], FEWEST
    guesses = Guesses(rows, path.basis, path.room, path.ridge, check.rule.positive)
    products = rows.products(path.residual[None])[0]
    while (start := path.count) < path.room:
        scores = check.scores(products.copy())
        first, _, product = check.best(path.residual, scores)
        if check.weak(product):
            break
        chosen = guesses.after(first, start, products, _block(scores, first), min(most, path.room - start))
        after = path.extend(rows.take(chosen))
        found = rows.products(after)
        kept = check.holding(chosen[: len(after)], after, found, path.scores(start))
        path.cut(start + kept, after[kept - 1])
        guesses.learn(start, products, found[:kept], path.steps[start : start + kept])
        check.barred[chosen[:kept]] = -np.inf
        products = found[kept - 1].copy()
        most = min(max(FEWEST, 2 * kept), MOST, max(FEWEST, HELD // rows.n))
        picks += chosen[:kept].tolist()
    return picks


class _Check:
    """What is picked next, decided in float64, ties to the lower row."""

    def __init__(self, atoms: Atoms, rule: Rule, free: Bool[np.ndarray, " n"]) -> None:
        self.atoms, self.rule = atoms, rule
        longest = float(atoms.lengths[free].max(initial=0.0))
        self.least, self.tie = rule.tolerance * longest, TIE * longest
        self.error = 2 * atoms.error(longest)
        self.barred = np.where(free, 0.0, -np.inf).astype(atoms.rows.dtype)

    def scores(self, products: np.ndarray) -> np.ndarray:
        """Scores from products, in place, -inf for rows that are barred."""
        scores = self.rule.scores(products)
        scores += self.barred
        return scores

    def weak(self, product: float) -> bool:
        """Whether it is not worth a pick."""
        return (product if self.rule.positive else abs(product)) <= self.least

    def best(
        self, residual: Float[np.ndarray, " d"], scores: Float[np.ndarray, " n"]
    ) -> tuple[int, Float[np.ndarray, " d"], float]:
        """The next pick, and its product with the residual."""
        row = int(scores.argmax())
        near = scores >= float(scores[row]) - self.error * float(residual @ residual) ** 0.5
        if np.count_nonzero(near) > 1:
            rows = np.flatnonzero(near)
            exact = self.rule.scores(self.atoms.products(rows, residual))
            row = int(rows[(exact >= exact.max() - self.tie).argmax()])
        x = self.atoms.rows.take(slice(row, row + 1))[0]
        return row, x, float(x @ residual)

    def holding(
        self,
        chosen: Int64[np.ndarray, " g"],
        after: Float[np.ndarray, "g d"],
        products: Float[np.ndarray, "g n"],
        exact: Float[np.ndarray, " g"],
    ) -> int:
        """How many of the guessed picks hold, the first of which surely does.

        `after` and `products` are the residuals after each pick and the products with them, `exact` the products of
        the picks with the residuals before. A pick holds where no other row comes near it, or where it is the best of
        those that do.
        """
        weak = np.flatnonzero(self.rule.scores(exact[1:]) <= self.least)
        last = int(weak[0]) if len(weak) else len(chosen) - 1
        scores, each = self.scores(products[:last].copy()), np.arange(last)
        for i in range(last):
            scores[i:, chosen[i]] = -np.inf
        lengths = np.sqrt(np.vecdot(after[:last], after[:last]))
        needed = scores[each, chosen[1 : last + 1]] - self.error * lengths
        for i in np.flatnonzero(np.count_nonzero(scores >= needed[:, None], axis=1) > 1).tolist():
            if self.best(after[i], scores[i])[0] != chosen[i + 1]:
                return int(i) + 1
        return last + 1


def _block(scores: Float[np.ndarray, " n"], first: int) -> Int64[np.ndarray, " b"]:
    """The rows with the highest scores, ascending, the next pick among them; `scores` are -inf for rows not free."""
    size = min(block_size(len(scores)), len(scores))
    block = np.argpartition(-scores, size - 1)[:size]
    block = block[scores[block] > -np.inf]
    if first not in block:
        block[0] = first
    return np.sort(block)
