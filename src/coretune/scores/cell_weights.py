"""How much of the next round each cell gets, from what the rows measured in it have shown."""

from __future__ import annotations

import numpy as np

from coretune.shapes import Float, Int


def cell_means(
    differences: Float[np.ndarray, " m"], cells: Int[np.ndarray, " m"], count: int
) -> Float[np.ndarray, " c"]:
    """The mean difference of the measured rows of each of `count` cells `(c,)`; NaN for a cell without any.

    `cells` `(m,)` says which cell each row is in; a row whose difference is NaN was not measured. Both rules below take
    a cell that is NaN as neutral. Raises `ValueError` for a cell that is not from 0 to `count` - 1, and for a
    difference that is infinite.

    Source: Diversify and Conquer, Algorithm 1: s_j = 1/|D_j| sum of S_i, over the rows of D_j that have an S.
    """
    values, where = np.asarray(differences, dtype=np.float64), np.asarray(cells)
    if len(where) and not 0 <= int(where.min()) <= int(where.max()) < count:
        raise ValueError(f"rows in cells {int(where.min())} to {int(where.max())} given; there are {count} cells")
    if np.isinf(values).any():
        raise ValueError(f"row {int(np.flatnonzero(np.isinf(values))[0])} has an infinite difference")
    known = ~np.isnan(values)
    sums = np.bincount(where[known], weights=values[known], minlength=count)
    rows = np.bincount(where[known], minlength=count)
    return np.where(rows > 0, sums / np.maximum(rows, 1), np.nan)


def standardised(differences: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Differences `(m,)` less their mean, in units of their standard deviation (of the population); NaN stays NaN.

    So a softmax of them does not depend on the scorer's unit. All 0 where no two differ.
    """
    values = np.asarray(differences, dtype=np.float64)
    known = values[~np.isnan(values)]
    if not len(known):
        return values
    spread = known.std()
    return np.asarray((values - known.mean()) / (spread if spread > 0 else 1.0))


def carried_over(
    weights: Float[np.ndarray, " c"], scores: Float[np.ndarray, " c"], *, floor: float = 0.0
) -> Float[np.ndarray, " c"]:
    """The weights `(c,)` times the scores' positive parts, made to sum to 1.

    A negative score counts as 0; where none is above 0 the weights stay. A cell whose score is NaN keeps its weight,
    and the others share the rest. A cell at weight 0 never comes back, unless `floor` is above 0: weights below it are
    raised to it before all are made to sum to 1. Raises `ValueError` for weights that are negative, not finite or all
    0, for scores that are infinite, and for a floor that is not from 0 to 1/c.

    Source: Diversify and Conquer, arXiv 2409.11378, eq. 6, whose weights sum to 1/c after the first round and are
    negative for negative scores; that they are made positive and to sum to 1, and the floor, are ours.
    """
    before, gains = _checked(weights), np.maximum(_finite(scores), 0.0)
    if len(before) != len(gains):
        raise ValueError(f"{len(before)} weights and {len(gains)} scores differ")
    if not 0 <= floor <= 1 / len(before):
        raise ValueError(f"a floor of {floor} asked for {len(before)} cells; give 0 to {1 / len(before):.4g}")
    known = ~np.isnan(gains)
    after = before.copy()
    best = gains[known].max(initial=0.0)
    grown = before[known] * (gains[known] / best) if best > 0 else np.zeros(int(known.sum()))
    if grown.any():
        grown /= grown.max()
        after[known] = grown * (before[known].sum() / grown.sum())
    after = np.maximum(after, floor)
    return np.asarray(after / after.sum())


def softmax_of(scores: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    """Weights `(c,)` in proportion to exp(score), whatever the weights before were; they sum to 1.

    Safe for scores of any size and sign. A cell whose score is NaN has that of the others' mean; without any score all
    weigh the same. The scores' unit matters: see `standardised`. Raises `ValueError` where a score is infinite.

    Source: the authors' code of Diversify and Conquer.
    """
    values = _finite(scores)
    known = ~np.isnan(values)
    values = np.where(known, values, values[known].mean() if known.any() else 0.0)
    shares = np.exp(values - values.max())
    return np.asarray(shares / shares.sum())


def _finite(scores: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    """Scores as float64. Raises `ValueError` where there are none, or one is infinite."""
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) or np.isinf(values).any():
        raise ValueError(f"scores must be finite numbers, or NaN for unknown; found {values.tolist()[:10]}")
    return values


def _checked(weights: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    """Weights that sum to 1. Raises `ValueError` where they cannot."""
    values = np.asarray(weights, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise ValueError(f"weights must be finite numbers from 0, not all 0; found {values.tolist()[:10]}")
    return np.asarray(values / values.sum())
