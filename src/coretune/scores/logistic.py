"""Logistic regression fitted exactly, and how well scores tell two kinds of rows apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coretune.shapes import Bool, Float

STEPS = 100  # of Newton; some ten are enough
CLOSE = 1e-10  # the slope at which a fit has arrived, as a share of its slope at no weights, or of 1
TINY = 1e-12  # of the loss and its bend: what rounding may add to one, and what keeps the other invertible


@dataclass(frozen=True, eq=False)
class Logistic:
    """P(label) = 1 / (1 + exp(-(x . weights + bias))); weights `(d,)` float64."""

    weights: Float[np.ndarray, " d"]
    bias: float

    def probabilities(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """The probability of the label `(n,)` float64 for rows `(n, d)` of any floating type."""
        return _probability(np.asarray(x @ self.weights, dtype=np.float64) + self.bias)


def fit(
    x: Float[np.ndarray, "n d"],
    labels: Bool[np.ndarray, " n"],
    *,
    ridge: float = 1.0,
    row_weights: Float[np.ndarray, " n"] | None = None,
) -> Logistic:
    """The weights w and bias b with the least  sum_i row_weights_i log_loss_i + ridge / 2 |w|^2.

    The loss has one minimum, also where a plane separates the labels, and is brought down to it by Newton's steps in
    float64, each halved until it lowers the loss. The bias has no ridge. `row_weights` (n,) are 1 unless given; see
    `balanced`. With more columns than rows the fit is made in the span of the rows, in which the weights lie. Raises
    `ValueError` where lengths differ, a value is not finite, the ridge is not above 0, or all labels are the same.
    """
    rows = np.asarray(x, dtype=np.float64)
    y = np.asarray(labels, dtype=np.float64)
    mass = np.ones(len(y)) if row_weights is None else np.asarray(row_weights, dtype=np.float64)
    _check(rows, y, mass, ridge)
    span = np.linalg.qr(rows.T) if rows.shape[1] > rows.shape[0] else None
    inside = np.hstack([rows if span is None else span.R.T, np.ones((len(y), 1))])
    found = _least(inside, y, mass, np.append(np.full(inside.shape[1] - 1, float(ridge)), 0.0))
    return Logistic(found[:-1] if span is None else span.Q @ found[:-1], float(found[-1]))


def balanced(labels: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Row weights with mean 1 under which both labels count the same. Raises `ValueError` where there is but one."""
    y = np.asarray(labels, dtype=bool)
    counts = np.array([len(y) - y.sum(), y.sum()])
    if not counts.all():
        raise ValueError(f"all {len(y)} labels are {bool(y.any())}: there is nothing to balance")
    return np.asarray(len(y) / (2.0 * counts[y.astype(np.int64)]))


def auc(scores: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"]) -> float:
    """The share of pairs of a labelled and another row in which the labelled one scores higher, ties a half.

    NaN where there are no such pairs. Raises `ValueError` where lengths differ or a score is NaN.
    """
    y, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    if len(y) != len(values) or np.isnan(values).any():
        raise ValueError(
            f"{len(values)} scores, {int(np.isnan(values).sum())} of them NaN, for {len(y)} labels; give one for each"
        )
    ones = int(y.sum())
    if ones in (0, len(y)):
        return float("nan")
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]  # from 1, ties share their mean rank
    return float((ranks[y].sum() - ones * (ones + 1) / 2) / (ones * (len(y) - ones)))


def balanced_accuracy(probabilities: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"]) -> float:
    """The mean over both labels of the share of their rows on the right side of a half; NaN where there is but one."""
    y = np.asarray(labels, dtype=bool)
    if not y.any() or y.all():
        return float("nan")
    right = (np.asarray(probabilities) > 0.5) == y
    return float((right[y].mean() + right[~y].mean()) / 2)


def _least(
    x: Float[np.ndarray, "n d1"], y: Float[np.ndarray, " n"], mass: Float[np.ndarray, " n"], ridge: np.ndarray
) -> Float[np.ndarray, " d1"]:
    """Newton's steps (iteratively reweighted least squares) from no weights at all, until the slope is gone."""
    w = np.zeros(x.shape[1])
    slope = x.T @ (mass * (0.5 - y))
    enough = CLOSE * max(1.0, float(np.abs(slope).max()))
    loss = _loss(x, y, mass, ridge, w)
    for _ in range(STEPS):
        p = _probability(x @ w)
        slope = x.T @ (mass * (p - y)) + ridge * w
        if np.abs(slope).max() <= enough:
            break
        bend = (x.T * (mass * p * (1 - p))) @ x
        bend[np.diag_indices_from(bend)] += ridge + TINY * float(np.diagonal(bend).max())
        step = np.linalg.solve(bend, slope)
        size, drop = 1.0, float(slope @ step)
        while (after := _loss(x, y, mass, ridge, w - size * step)) > loss - 1e-4 * size * drop + TINY * abs(loss):
            size /= 2
        w, loss = w - size * step, after
    return w


def _loss(x: np.ndarray, y: np.ndarray, mass: np.ndarray, ridge: np.ndarray, w: np.ndarray) -> float:
    logit = x @ w
    return float((mass * (np.logaddexp(0, logit) - y * logit)).sum() + 0.5 * (ridge * w * w).sum())


def _probability(logit: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.asarray(np.exp(-np.logaddexp(0, -logit)))


def _check(rows: np.ndarray, y: np.ndarray, mass: np.ndarray, ridge: float) -> None:
    if rows.ndim != 2 or not len(rows) == len(y) == len(mass):
        raise ValueError(f"rows of shape {rows.shape}, {len(y)} labels and {len(mass)} weights do not belong together")
    if not np.isfinite(rows).all() or not (np.isfinite(mass) & (mass >= 0)).all():
        raise ValueError("a row or a row's weight is not finite, or a weight is negative; leave those rows out")
    if not 0 < ridge < np.inf:
        raise ValueError(f"a ridge of {ridge} asked; it must be above 0, or labels that a plane separates have no fit")
    if not 0 < (mass * y).sum() < mass.sum():
        raise ValueError(f"all {len(y)} labels are the same; a classifier needs rows of both kinds")
