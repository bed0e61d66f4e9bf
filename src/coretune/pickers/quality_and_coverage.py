"""Quality and coverage: picks that serve every row well, as facility location, and are good by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.distances import Neighbours, Similarity
from coretune.pickers.serving import Serving, compared
from coretune.pickers.top import top
from coretune.selection import Selection
from coretune.shapes import Float


def quality_and_coverage(
    x: Float[Any, "n d"] | Similarity | Neighbours, score: Float[np.ndarray, " n"], k: int, *, alpha: float
) -> Selection:
    """Greedy picks for f(A) = (1 - `alpha`) d(A) + `alpha` q(A); ties to the lower row.

    d(A) is the sum over all rows of their highest similarity to a pick, q(A) the sum of the picks' scores. `x`: as for
    `facility_location`, rows compared by (1 + cosine) / 2 or another similarity. `alpha` 0 gives the picks of
    `facility_location`, 1 those of `top`. Gains are what each pick adds to f, and fall. The first k picks are those of
    k + 1, and f is at least 1 - 1/e of the largest possible where no score is negative.

    The parts are added as they stand, and d counts rows: with scores from 0 to 1 and many rows, coverage decides all of
    the first picks whatever `alpha`. `in_gains_of` rescales scores. Time and memory: as `facility_location`. Raises
    `ValueError` where `k` is not from 0 to n, `alpha` is not from 0 to 1, or a score or value is not finite.

    Source: QDIT, Bukharin et al. (2024), arXiv 2311.14736. Which part alpha weighs, and the parts' scales, could not be
    confirmed.
    """
    source, values = compared(x), np.asarray(score, dtype=np.float64)
    if not 0 <= k <= source.n:
        raise ValueError(f"{k} rows asked of {source.n}")
    if len(values) != source.n or not np.isfinite(values).all():
        raise ValueError(f"{source.n} rows need a finite score each; found {len(values)}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha {alpha} asked; it weighs quality against coverage from 0 to 1")
    serving = Serving(source)
    own = alpha * values
    coverage = (1 - alpha) * source.step
    left = np.ones(source.n, bool)
    gains: list[float] = []
    while len(gains) < k:
        adds = np.multiply(serving.adds, coverage, out=np.full(source.n, -np.inf), where=left)
        adds += own
        winner = int(adds.argmax())
        gains.append(float(adds[winner]))
        left[winner] = False
        serving.pick(winner)
    return Selection.of(serving.best.picks, np.array(gains))


def in_gains_of(coverage: Selection, score: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The scores times one number, so that the best k add up to what k picks by coverage alone cover.

    `coverage`: `facility_location(x, k)`. Both parts of f then reach the same value at most, and an `alpha` of 1/2
    weighs them alike. Raises `ValueError` where the best k scores do not sum to more than 0. Source: a choice of ours.
    """
    best = float(top(score, len(coverage)).gains.sum(dtype=np.float64))
    if not best > 0:
        raise ValueError(f"the best {len(coverage)} scores sum to {best:.4g}; only a sum above 0 can be rescaled")
    return np.asarray(score, dtype=np.float64) * (float(coverage.gains.sum(dtype=np.float64)) / best)
