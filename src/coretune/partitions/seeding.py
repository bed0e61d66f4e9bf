"""k-means++ seeding: rows drawn one by one, each in proportion to its squared distance to the rows drawn so far."""

from __future__ import annotations

import numpy as np

from coretune.distances import squares
from coretune.partitions.lloyd import Level
from coretune.shapes import Float

PROPOSALS = 256


def seeds(level: Level, c: int, rng: np.random.Generator) -> Float[np.ndarray, "c d"]:
    """`c` rows of the level as first centres, drawn as k-means++ draws them.

    A draw from squared distances that are out of date, kept with probability new / old, is a draw from the new ones.
    So rows are proposed many at a time, and distances of all rows are brought up to date once for all that were kept.
    Where fewer than `c` rows differ, the rest are arbitrary.

    Source: Arthur and Vassilvitskii (2007), k-means++: the advantages of careful seeding, section 2.2; drawing by
    rejection after Cohen-Addad et al. (2020), Fast and accurate k-means++ via rejection sampling, NeurIPS.
    """
    m = len(level.spread)
    away = np.full(m, np.inf)
    chosen = np.empty((0, level.rows.d))
    fresh = level.take(rng.integers(m, size=1))
    while True:
        chosen = np.concatenate([chosen, fresh])
        vectors = fresh - level.mean
        products = level.rows.best(level.index, vectors, squares(vectors) / 2 + vectors @ level.mean)
        away = np.minimum(away, np.maximum(level.spread - 2.0 * products, 0.0))
        if len(chosen) == c:
            return chosen
        fresh = _kept(level, away, c - len(chosen), rng)


def _kept(level: Level, away: Float[np.ndarray, " m"], most: int, rng: np.random.Generator) -> Float[np.ndarray, "k d"]:
    """Up to `most` further seeds out of a batch of proposals, at least one."""
    up_to = np.cumsum(away)
    if up_to[-1] == 0:
        return level.take(rng.integers(len(away), size=most))
    proposed = np.searchsorted(up_to, rng.random(PROPOSALS) * up_to[-1], side="right").clip(max=len(away) - 1)
    bar = rng.random(PROPOSALS) * away[proposed]
    x = level.take(proposed)
    now = away[proposed].copy()
    kept: list[int] = []
    for i in range(PROPOSALS):
        if bar[i] < now[i]:
            kept.append(i)
            if len(kept) == most:
                break
            now = np.minimum(now, squares(x - x[i]))
    return x[kept]
