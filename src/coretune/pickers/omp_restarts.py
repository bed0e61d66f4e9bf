"""Matching pursuit as the authors of TAGCOS run it: rounds that stop early, each towards the whole target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from coretune.pickers.support import Support
from coretune.selection import Selection
from coretune.shapes import Bool, Float, Int64

Ending = Literal["budget", "matched", "picked again", "newest deleted", "no direction"]


@dataclass(frozen=True)
class Round:
    """One round: its rows in order of picking, a weight and the product with the residual for each; why it ended.

    Weights can be negative and belong to another support where it ended with `newest deleted`.
    """

    rows: Int64[np.ndarray, " t"]
    weights: Float[np.ndarray, " t"]
    products: Float[np.ndarray, " t"]
    ended: Ending


def omp_restarts(
    atoms: Float[Any, "n d"],
    target: Float[np.ndarray, " d"],
    k: int,
    *,
    ridge: float = 1.0,
    tolerance: float = 1e-4,
    positive: bool = True,
) -> Selection:
    """The `k` rows that the authors' program of TAGCOS picks for one cell, to the letter.

    `atoms`: numpy array of any floating type; products are in float32 as theirs, in float64 for float64. See `a_round`
    for the rule. Rounds follow each other until `k` rows are picked, each towards the whole target among the rows that
    are left. A round that picks no row, where their program would not end, is the last: the remaining rows are those
    with the largest products with the target, ties to the lower row, with gain and weight 0.

    Gains: the product with the residual when picked, for a target of length 1; they start anew with each round.
    Weights, which the authors throw away: those of each round, by its share of the rows, with 0 for negative ones;
    equal if all would be 0. Raises `ValueError` where `k` is more than there is, or shapes differ.

    Source: 2003pro/TAGCOS, commit 93a5a38, utils/omp.py; Zhang et al. (2025), arXiv 2407.15235.
    """
    x = np.asarray(atoms)
    x = x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)
    wanted = np.asarray(target, dtype=np.float64)
    if x.ndim != 2 or wanted.shape != x.shape[1:] or not np.isfinite(wanted).all():
        raise ValueError(f"the target must be finite and as wide as the atoms; found {wanted.shape} and {x.shape}")
    if not 0 <= k <= len(x):
        raise ValueError(f"{k} rows asked of {len(x)}")
    free, left = np.ones(len(x), bool), k
    rounds: list[Round] = []
    while left:
        found = a_round(x, wanted, left, free, ridge=ridge, tolerance=tolerance, positive=positive)
        if not len(found.rows):
            break
        free[found.rows] = False
        left -= len(found.rows)
        rounds.append(found)
    others = np.flatnonzero(free)
    rest = others[np.argsort(-(x[others] @ wanted.astype(x.dtype)), kind="stable")[:left]] if left else others[:0]
    length = float(np.linalg.norm(wanted)) or 1.0
    gains = np.concatenate([*(found.products / length for found in rounds), np.zeros(left)])
    weights = np.concatenate([*(found.weights * len(found.rows) for found in rounds), np.zeros(left)]).clip(0)
    picks = np.concatenate([*(found.rows for found in rounds), rest])
    return Selection.of(picks, gains, weights if weights.any() else None)


def a_round(
    x: Float[np.ndarray, "n d"],
    target: Float[np.ndarray, " d"],
    k: int,
    free: Bool[np.ndarray, " n"],
    *,
    ridge: float,
    tolerance: float,
    positive: bool = True,
) -> Round:
    """One round of the authors' rule among the free rows, at most `k` picks.

    Each step takes the row with the largest product with the residual, picked ones included: if it is picked already,
    the round ends. The first weight has no ridge. With `positive`, the most negative weight is deleted and the others
    refitted until none is; if the newest row is the one to go, the round ends, and the rows left keep the weights that
    they had beside it. Rows with weight exactly 0 are not picked.
    """
    support = Support(target, min(k, len(x)), ridge)
    products: dict[int, float] = {}
    weights, residual = np.empty(0), target
    ended: Ending = "budget"
    length = float(np.linalg.norm(target))
    for _ in range(k):
        if np.linalg.norm(residual) < tolerance * length:
            ended = "matched"
            break
        scores = x @ residual.astype(x.dtype)
        if not positive:
            scores = np.abs(scores)
        row = int(np.where(free, scores, -np.inf).argmax())
        if row in products and row in support.rows:
            ended = "picked again"
            break
        atom = x[row].astype(np.float64)
        if not atom.any() or not support.add(row, atom):
            ended = "no direction"
            break
        products[row] = float(scores[row])
        first = len(support) == 1
        weights = np.array([atom @ residual / (atom @ atom)]) if first else support.weights()
        while positive and not first and weights.min() < 0:
            place = int(weights.argmin())
            support.drop(place)
            if place == len(support):
                ended = "newest deleted"
                break
            weights = support.weights()
        if ended == "newest deleted":
            break
        residual = support.residual(weights)
    return _picked(support, weights, products, ended)


def _picked(support: Support, weights: np.ndarray, products: dict[int, float], ended: Ending) -> Round:
    """The rows with a weight other than 0, paired by position as their program does."""
    rows, kept = np.array(support.rows, dtype=np.int64), weights[: len(support)]
    some = kept != 0
    return Round(rows[some], kept[some], np.array([products[row] for row in rows[some].tolist()]), ended)
