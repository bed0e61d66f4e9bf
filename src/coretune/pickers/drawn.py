"""Drawn: a weighted draw without replacement."""

from __future__ import annotations

import logging

import numpy as np

from coretune.pickers.top import highest
from coretune.selection import Selection
from coretune.shapes import Float

log = logging.getLogger(__name__)


def drawn(log_weights: Float[np.ndarray, " n"], k: int, *, rng: np.random.Generator) -> Selection:
    """`k` rows drawn one after the other without replacement, each in proportion to exp(log_weight).

    Only differences of log-weights matter, so any size is safe. A row at -inf (weight 0) is drawn only when no other is
    left: then such rows follow at random, with gain NaN, and the log says how many. Gains are the perturbed keys, log
    weight less the largest one plus Gumbel noise. Noise is drawn for all rows at once: `k` rows are the first of k + 1,
    and equal weights give the rows of `uniform`.

    Raises `ValueError` where `k` is not from 0 to n, or a log-weight is NaN or +inf.
    Source: the k largest perturbed keys are such a draw: Vieira (2014), Gumbel-max trick and weighted reservoir
    sampling; Kool, van Hoof and Welling (2019), arXiv 1903.06059, section 3.
    """
    weights = np.asarray(log_weights, dtype=np.float64)
    if not (weights < np.inf).all():
        row = int(np.flatnonzero(~(weights < np.inf))[0])
        raise ValueError(f"row {row} has log-weight {weights[row]}; weights must be finite numbers from 0")
    if not 0 <= k <= len(weights):
        raise ValueError(f"{k} rows asked of {len(weights)}")
    noise = rng.gumbel(size=len(weights))
    possible = weights > -np.inf
    count = int(possible.sum())
    if count:
        weights = weights - weights.max()
    keys = weights + noise
    rows = highest(keys, min(k, count))
    if k > count:
        log.warning("%d rows asked, %d have a weight above 0: %d of weight 0 follow at random", k, count, k - count)
        others = np.flatnonzero(~possible)
        rows = np.concatenate([rows, others[highest(noise[others], k - count)]])
    return Selection.of(rows, np.where(possible, keys, np.nan)[rows])
