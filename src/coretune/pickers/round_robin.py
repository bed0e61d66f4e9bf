"""Round-robin: several rankings take turns, each picks its best row that is still there."""

from __future__ import annotations

import numpy as np

from coretune.selection import Selection
from coretune.shapes import Float


def round_robin(scores: Float[np.ndarray, "n t"], k: int) -> Selection:
    """`k` rows: ranking 0 picks its highest row, then ranking 1, and so on, again and again; no row comes twice.

    Equal scores go to the lower row. Gains are the share of turns still to come, from 1 down: picks of different
    rankings have no common scale. Raises `ValueError` where `k` is not from 0 to n, or a score is NaN.

    Source: Ivison et al., "Large-Scale Data Selection for Instruction Tuning", 2025, arXiv 2503.01807 (RDS+).
    """
    n, t = scores.shape
    if not 0 <= k <= n:
        raise ValueError(f"{k} rows asked of {n}")
    if np.isnan(scores).any():
        raise ValueError(f"row {int(np.flatnonzero(np.isnan(scores).any(axis=1))[0])} has no score to be picked by")
    order = np.argsort(-scores, axis=0, kind="stable")
    taken, place, rows = np.zeros(n, dtype=bool), [0] * t, np.empty(k, dtype=np.int64)
    for turn in range(k):
        ranking = turn % t
        while taken[order[place[ranking], ranking]]:
            place[ranking] += 1
        rows[turn] = order[place[ranking], ranking]
        taken[rows[turn]] = True
    return Selection.of(rows, 1 - np.arange(k) / n)
