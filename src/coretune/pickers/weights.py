"""Weights for chosen rows: least squares towards a target, of any sign or none below zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.distances import rows_of
from coretune.shapes import Bool, Float, Int64

EXCHANGES = 50  # most are done within ten
TRIES = 3  # exchanges of all weights that are on the wrong side, without one fewer, before single exchanges
WRONG = 1e-10  # relative to the largest weight or slope: below it, a sign means nothing


def refit(
    atoms: Float[Any, "n d"], target: Float[np.ndarray, " d"], rows: Int64[np.ndarray, " k"], *, ridge: float = 0.0
) -> Float[np.ndarray, " k"]:
    """The weights w that minimise |sum w_i a_i - target|^2 + ridge |w|^2 over the chosen rows a_i; of any sign.

    Of several such weights, which there are where rows depend on each other and there is no ridge, the shortest.
    """
    gram, products = _system(atoms, target, rows)
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    fine = values + ridge > len(rows) * np.finfo(float).eps * values.max(initial=0.0)
    within = vectors[:, fine]
    return np.asarray(within @ ((within.T @ products) / (values[fine] + ridge)))


def nonnegative_refit(
    atoms: Float[Any, "n d"], target: Float[np.ndarray, " d"], rows: Int64[np.ndarray, " k"], *, ridge: float = 0.0
) -> Float[np.ndarray, " k"]:
    """The weights that minimise the same with none below zero (NNLS), so some are exactly zero."""
    gram, products = _system(atoms, target, rows)
    least = 1e-12 * float(np.diag(gram).max(initial=0.0))  # dependent rows still have one solution
    return nonnegative(gram + max(ridge, least) * np.eye(len(rows)), products)


def nonnegative(gram: Float[np.ndarray, "k k"], products: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """The w >= 0 that minimises w' gram w - 2 w' products, for a positive definite matrix.

    Block principal pivoting: all weights below zero are set to zero and all zero weights whose slope is negative are
    set free, until there are none. Source: Judice and Pires (1994), "A block principal pivoting algorithm for
    large-scale strictly monotone linear complementarity problems"; Kim and Park (2011), SIAM J. Sci. Comput. 33(6).
    Where many exchanges do not end it, weights are set free one at a time instead.
    """
    free = np.ones(len(products), bool)
    fewest, tries = len(products) + 1, TRIES
    for _ in range(EXCHANGES):
        weights, wrong = _try(gram, products, free)
        count = int(wrong.sum())
        if not count:
            return np.asarray(np.maximum(weights, 0.0))
        if count < fewest:
            fewest, tries = count, TRIES
        elif tries:
            tries -= 1
        else:
            wrong[: int(np.flatnonzero(wrong)[-1])] = False  # Murty's rule: one at a time, always the last
        free ^= wrong
    return _from_none(gram, products)


def _from_none(gram: Float[np.ndarray, "k k"], products: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """The same by setting one weight free at a time, slower but steady where the matrix is nearly singular.

    Source: Lawson and Hanson (1974), "Solving Least Squares Problems", chapter 23.
    """
    weights, free = np.zeros(len(products)), np.zeros(len(products), bool)
    barred = free.copy()
    while True:
        slopes = np.where(free | barred, -np.inf, products - gram @ weights)
        found = int(slopes.argmax())
        if slopes[found] <= WRONG * np.abs(products).max():
            return weights
        free[found] = True
        while True:
            wanted = np.zeros(len(products))
            wanted[free] = np.linalg.solve(gram[np.ix_(free, free)], products[free])
            below = np.flatnonzero(free & (wanted < 0))
            if not len(below):
                break
            shares = weights[below] / (weights[below] - wanted[below])
            weights += shares.min() * (wanted - weights)
            free[below[shares.argmin()]] = False
            weights[~free] = 0.0
        weights = wanted
        barred = ~free & (np.arange(len(free)) == found)  # only rounding makes a weight leave as it comes: not again


def _try(
    gram: Float[np.ndarray, "k k"], products: Float[np.ndarray, " k"], free: Bool[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, " k"], Bool[np.ndarray, " k"]]:
    """The best weights with only some of them `free`, the others zero; and which are on the wrong side."""
    weights = np.zeros(len(products))
    weights[free] = np.linalg.solve(gram[np.ix_(free, free)], products[free])
    slopes = gram @ weights - products
    below = free & (weights < -WRONG * np.abs(weights).max(initial=0.0))
    return weights, below | (~free & (slopes < -WRONG * np.abs(products).max(initial=0.0)))


def _system(
    atoms: Float[Any, "n d"], target: Float[np.ndarray, " d"], rows: Int64[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, "k k"], Float[np.ndarray, " k"]]:
    chosen = rows_of(atoms).take(np.asarray(rows, dtype=np.int64))
    return chosen @ chosen.T, chosen @ np.asarray(target, dtype=np.float64)
