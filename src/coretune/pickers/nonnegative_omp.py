"""Matching pursuit with non-negative weights throughout: rows whose weight would turn negative leave again."""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.distances import rows_of
from coretune.pickers.omp import checked_target, closest_left
from coretune.pickers.pursuit import Atoms
from coretune.pickers.support import Support
from coretune.selection import Selection
from coretune.shapes import Bool, Float, Int64

Picked = tuple[Int64[np.ndarray, " t"], Float[np.ndarray, " t"], Float[np.ndarray, " t"]]


def nonnegative_omp(
    atoms: Float[Any, "n d"],
    target: Float[np.ndarray, " d"],
    k: int,
    *,
    ridge: float = 0.0,
    tolerance: float = 1e-5,
) -> Selection:
    """The `k` rows of matching pursuit in which the weights are the best non-negative ones at every step.

    As `omp`, but each refit is one of least squares with no weight below zero: where a new row makes another's weight
    negative, that row leaves and can come again. So a residual of 0 can be reached with any target within the cone of
    the rows, such as their mean, and further rows come from new runs, as in `omp`; rows that no run takes follow by
    their product with the target, with gain and weight 0. The first k picks of more are not the picks of k.

    Rows are in the order in which they came (the last time). Gains: the share of the target's square by which the
    objective fell when the row came; a row that came and left passes its gain to the next. Memory beyond the atoms:
    O(n + k d + k^2). Raises `ValueError` as `omp` does.

    Source: Bruckstein, Elad and Zibulevsky (2008), "On the uniqueness of nonnegative sparse solutions"; the refit is
    that of Lawson and Hanson (1974), "Solving Least Squares Problems", chapter 23.
    """
    rows = rows_of(atoms)
    unit = checked_target(rows.n, rows.d, target, k)
    if ridge < 0 or tolerance <= 0:
        raise ValueError(f"ridge must be 0 or more and tolerance more than 0; found {ridge} and {tolerance}")
    pool, free, left = Atoms.of(rows), np.ones(rows.n, bool), k
    runs: list[Picked] = []
    while left and unit.any():
        run = _run(pool, unit, free, left, ridge, tolerance)
        if not len(run[0]):
            break
        free[run[0]] = False
        left -= len(run[0])
        runs.append(run)
    picks = np.concatenate([*(run[0] for run in runs), closest_left(pool, unit, free, left)])
    gains = np.concatenate([*(run[1] for run in runs), np.zeros(left)])
    weights = np.concatenate([*(run[2] * len(run[0]) for run in runs), np.zeros(left)])
    return Selection.of(picks, gains, weights if weights.any() else None)


def _run(
    pool: Atoms, target: Float[np.ndarray, " d"], free: Bool[np.ndarray, " n"], k: int, ridge: float, tolerance: float
) -> Picked:
    """Up to `k` rows with their gains and weights, for a target of length 1."""
    support, free = Support(target, min(k, pool.rows.n), ridge), free.copy()
    longest = float(pool.lengths[free].max(initial=0.0))
    gains: dict[int, float] = {}
    weights, residual, before = np.empty(0), target, 1.0
    while len(support) < k:
        found = _best(pool, residual, free, tolerance * longest)
        if found is None:
            break
        free[found] = False
        if not support.add(found, pool.rows.take(np.array([found]))[0]):
            continue
        weights, left = _settled(support, np.append(weights, 0.0))
        free[[row for row in left if row != found]] = True  # only rounding makes a row leave as it comes: not again
        residual = support.residual(weights)
        now = float(residual @ residual) + ridge * float(weights @ weights)
        if found in support.rows:
            gains[found], before = before - now, now
    rows = np.array(support.rows, dtype=np.int64)
    return rows, np.array([gains[row] for row in support.rows]), weights


def _best(pool: Atoms, residual: Float[np.ndarray, " d"], free: Bool[np.ndarray, " n"], least: float) -> int | None:
    """The free row with the largest product with the residual in float64, ties to the lower; None if below `least`."""
    scores = np.where(free, pool.rows.products(residual[None])[0], -np.inf)
    error = 2 * pool.error(float(pool.lengths[free].max(initial=0.0))) * float(np.linalg.norm(residual))
    near = np.flatnonzero(scores >= scores.max() - error)
    near = near[free[near]]
    if not len(near):
        return None
    exact = pool.products(near, residual)
    return int(near[exact.argmax()]) if exact.max() > least else None


def _settled(support: Support, weights: Float[np.ndarray, " t"]) -> tuple[Float[np.ndarray, " t"], list[int]]:
    """The best weights with none below zero, from such weights for the support; and the rows that left it for this.

    While some weight of the refit is negative: go towards it until the first weight is zero, and drop that row.
    """
    left: list[int] = []
    while True:
        wanted = support.weights()
        below = np.flatnonzero(wanted < 0)
        if not len(below):
            return wanted, left
        shares = weights[below] / (weights[below] - wanted[below])
        place = int(below[shares.argmin()])
        weights = np.delete(weights + shares.min() * (wanted - weights), place).clip(0)
        left.append(support.rows[place])
        support.drop(place)
