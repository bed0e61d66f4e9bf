"""Orthogonal matching pursuit: rows whose weighted sum comes close to a target, each for what is still missing."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from coretune.distances import rows_of
from coretune.pickers.pursuit import Atoms, Rule, Run, pursue
from coretune.pickers.weights import nonnegative
from coretune.selection import Selection
from coretune.shapes import Bool, Float, Int64

WIDENED = 1 << 28  # numbers of float16 that are widened once, to 1 GiB, rather than for every product

log = logging.getLogger(__name__)


def omp(
    atoms: Float[Any, "n d"],
    target: Float[np.ndarray, " d"],
    k: int,
    *,
    ridge: float = 0.0,
    positive: bool = True,
    tolerance: float = 1e-5,
) -> Selection:
    """The `k` rows of orthogonal matching pursuit towards `target`; equal scores go to the lower row.

    `atoms`: numpy array or torch tensor, any floating type. A pick is the row with the largest product with the
    residual (`positive`; otherwise the largest absolute product), which is then refitted on all picks: least squares
    with `ridge` in the squared unit of the atoms. The picks do not depend on the length of the target.

    Weights minimise |sum w_i a_i - target|^2 + ridge |w|^2 over the picks with none below zero, scaled to mean 1: where
    the refit has no negative weight they are the refit's, otherwise some picks have weight 0. (`refit` in
    `coretune.pickers.weights` gives those of any sign.) Gains: the share of the target's square by which the pick
    lowers the squared residual, ridge included. They need not fall from pick to pick.

    A run ends when no score is above `tolerance` times the target's length times the longest row: the target is
    matched, or no row helps. Further picks are those of a new run towards the whole target among the rows left; the
    runs' weights then count by their share of the picks, so that the weighted sum still matches, and gains are those
    within the run. Rows that no run would take follow by their product with the target, with gain and weight 0. If
    all weights would be 0, they are equal.

    The picks are those of the plain loop in float64. Memory beyond the atoms: O(n + r d + r^2) for the r picks of a
    run, no Gram matrix; float16 is widened to float32 up to 1 GiB.

    Raises `ValueError` where `k` is more than there is, shapes differ, or a number is not finite.
    Source: Killamsetty et al. (2021), arXiv 2103.00123; as a Cholesky factorisation: Rubinstein et al. (2008).
    """
    rows = rows_of(_widened(atoms))
    unit = checked_target(rows.n, rows.d, target, k)
    if ridge < 0 or tolerance <= 0:
        raise ValueError(f"ridge must be 0 or more and tolerance more than 0; found {ridge} and {tolerance}")
    pool, rule, free = Atoms.of(rows), Rule(ridge, positive, tolerance), np.ones(rows.n, bool)
    runs: list[Run] = []
    left = k
    while left and unit.any():
        run = pursue(pool, unit, free, left, rule)
        if not len(run.rows):
            break
        free[run.rows] = False
        left -= len(run.rows)
        runs.append(run)
    rest = closest_left(pool, unit, free, left)
    picks = np.concatenate([*(run.rows for run in runs), rest])
    gains = np.concatenate([*(run.steps**2 for run in runs), np.zeros(left)])
    weights = np.concatenate([*(weights_of(run, ridge) * len(run.rows) for run in runs), np.zeros(left)])
    return Selection.of(picks, gains, weights if weights.any() else None)


def checked_target(n: int, d: int, target: Float[np.ndarray, " d"], k: int) -> Float[np.ndarray, " d"]:
    """The target at length 1, or all zeros. Raises `ValueError` where it or `k` does not fit the atoms."""
    found = np.asarray(target, dtype=np.float64)
    if found.shape != (d,) or not np.isfinite(found).all():
        raise ValueError(f"the target must be {d} finite numbers, as wide as the atoms; found {found.shape}")
    if not 0 <= k <= n:
        raise ValueError(f"{k} rows asked of {n}")
    largest = float(np.abs(found).max(initial=0.0))
    if not largest:
        return found
    found = found / largest
    return np.asarray(found / np.linalg.norm(found))


def weights_of(run: Run, ridge: float) -> Float[np.ndarray, " t"]:
    """The best weights that are not negative for the picks of a run, towards a target of length 1."""
    weights = _backwards(run.lower, run.steps)
    negative = int((weights < 0).sum())
    if not negative:
        return weights
    log.info("%d of %d refitted weights are negative; the best without any are taken", negative, len(weights))
    return nonnegative(run.lower @ run.lower.T, run.lower @ run.steps)


def closest_left(
    pool: Atoms, target: Float[np.ndarray, " d"], free: Bool[np.ndarray, " n"], k: int
) -> Int64[np.ndarray, " k"]:
    """The `k` free rows with the largest products with the target, ties to the lower row."""
    if not k:
        return np.empty(0, np.int64)
    left = np.flatnonzero(free)
    return left[np.argsort(-pool.products(left, target), kind="stable")[:k]]


def _backwards(lower: Float[np.ndarray, "t t"], steps: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """The solution of lower' w = steps, by halves."""
    t = len(steps)
    if t <= 64:
        return np.asarray(np.linalg.solve(lower.T, steps))
    half = t // 2
    second = _backwards(lower[half:, half:], steps[half:])
    first = _backwards(lower[:half, :half], steps[:half] - lower[half:, :half].T @ second)
    return np.concatenate([first, second])


def _widened(atoms: Any) -> Any:
    """Atoms of float16 in numpy as float32, unless there are too many."""
    small = isinstance(atoms, np.ndarray) and atoms.dtype == np.float16 and atoms.size <= WIDENED
    return atoms.astype(np.float32) if small else atoms
