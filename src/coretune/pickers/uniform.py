"""Uniform: every row with the same chance."""

from __future__ import annotations

import numpy as np

from coretune.pickers.drawn import drawn
from coretune.selection import Selection


def uniform(n: int, k: int, *, rng: np.random.Generator) -> Selection:
    """`k` of `n` rows drawn uniformly without replacement, in order of drawing; `k` rows are the first of k + 1.

    Gains are the noise by which rows are ordered. Raises `ValueError` where `k` is not from 0 to n.
    """
    return drawn(np.zeros(n), k, rng=rng)
