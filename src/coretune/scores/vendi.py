"""The Vendi score: how many different rows a set has in effect, from 1 (all point one way) to its size."""

from __future__ import annotations

import numpy as np

from coretune.distances import blocks
from coretune.shapes import Float

BLOCK = 4096


def vendi(x: Float[np.ndarray, "n d"]) -> float:
    """The exponential of the entropy of the eigenvalues of K/n; K holds the cosines of all pairs of rows `(n, d)`.

    From the smaller of the two Gram matrices, `(n, n)` or `(d, d)`: both have the same eigenvalues but for zeros.
    n d min(n, d) multiplications in float64. Raises `ValueError` without rows, and where a row has no direction: its
    length is 0 or not finite.

    Source: Friedman and Dieng (2023), "The Vendi Score", arXiv 2210.02410, with the cosine kernel.
    """
    n, d = x.shape
    if not n:
        raise ValueError("the Vendi score of no rows is asked; give 1 or more")
    lengths = np.linalg.norm(x.astype(np.float64), axis=1)
    odd = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(odd):
        raise ValueError(f"row {odd[0]} has length {lengths[odd[0]]}, so no cosine with others; leave it out")
    if n <= d:
        units = x.astype(np.float64) / lengths[:, None]
        gram = units @ units.T
    else:
        gram = np.zeros((d, d))
        for place in blocks(n, BLOCK):
            units = x[place].astype(np.float64) / lengths[place, None]
            gram += units.T @ units
    shares = np.clip(np.linalg.eigvalsh(gram / n), 0.0, None)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
