"""How hard an instruction is for a model: what a classifier says, and how near it is to instructions known as hard."""

from __future__ import annotations

import numpy as np

from coretune.distances import blocks
from coretune.scores.logistic import balanced, fit
from coretune.shapes import Bool, Float, Float32, Int64

BLOCK = 1024  # rows compared at once


def probability_of_hard(
    x: Float[np.ndarray, "n d"], rows: Int64[np.ndarray, " m"], hard: Bool[np.ndarray, " m"], ridge: float = 1.0
) -> Float[np.ndarray, " n"]:
    """P: the probability of hard of every row `(n,)`, by a logistic regression fitted to these labelled rows of `x`.

    Both labels weigh the same in the fit. Where all are alike there is none, and P is 1 or 0 for every row, the share
    of hard ones; without any label it is 0.
    """
    share = float(np.mean(hard)) if len(hard) else 0.0
    if share in (0.0, 1.0):
        return np.full(len(x), share)
    return fit(x[rows], hard, ridge=ridge, row_weights=balanced(hard)).probabilities(x)


def nearness(
    x: Float[np.ndarray, "n d"], hard: Float[np.ndarray, "h d"], *, block: int = BLOCK
) -> Float32[np.ndarray, " n"]:
    """R: the largest cosine of each row to a row of the hard set, `(n,)`; exactly 1 for a copy, 0 where there is none.

    Products are in float64; a row of zeros has cosine 0 with all. Source: IterSelectTune, arXiv 2410.13464; that it is
    the largest, not the mean, is not confirmed.
    """
    found = np.zeros(len(x), np.float32)
    if not len(hard):
        return found
    set_of = _unit(hard).T
    for place in blocks(len(x), block):
        found[place] = np.minimum((_unit(x[place]) @ set_of).max(axis=1), 1.0)
    return found


def hardness(
    p: Float[np.ndarray, " n"], similarity: Float[np.ndarray, " n"], *, alpha: float = 0.7
) -> Float32[np.ndarray, " n"]:
    """Q = alpha P + (1 - alpha) R, `(n,)`. Raises `ValueError` unless `alpha` is from 0 to 1 and lengths are equal.

    Source: IterSelectTune, arXiv 2410.13464; the weight is not confirmed.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha {alpha} asked; it is the classifier's share, from 0 to 1")
    if len(p) != len(similarity):
        raise ValueError(f"{len(p)} probabilities and {len(similarity)} similarities are not of the same rows")
    mixed = alpha * np.asarray(p, np.float64) + (1 - alpha) * np.asarray(similarity, np.float64)
    return np.asarray(mixed, np.float32)


def _unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    rows = np.asarray(x, dtype=np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1.0))
