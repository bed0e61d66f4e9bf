"""Sliding window: farthest-first among the best rows that are left, a batch at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.distances import rows_of
from coretune.pickers.covering import Cover, farthest_in
from coretune.selection import Selection
from coretune.shapes import Float


def sliding_window(
    score: Float[np.ndarray, " n"], x: Float[Any, "n d"], k: int, *, step: int = 50, window: int | None = None
) -> Selection:
    """The best row, then batches of `step`, each farthest-first from all picks among the best `window` rows left.

    `x`: numpy array or torch tensor of any floating type. Equal scores go to the lower row, equal distances too.
    `window` (default 10 `step`) weighs quality against diversity: with `window` = `step` the first 1 + t `step` picks
    are the best so many rows; with one as large as the pool they are those of `k_center` that start at the best row.
    The first k picks are those of k + 1. Gains: the pick's distance to its nearest earlier pick, NaN for the first;
    they rise again with each batch.

    Rows are compared with the picks once they come into the window, not before. Raises `ValueError` where `k` is not
    from 0 to n, `step` is below 1, `window` below `step`, a score is NaN, or a value is not finite.

    Source: RECOST, Zhang et al. (2024), arXiv 2402.17355, diversity-consistent sampling: that it has a sliding window
    is known, window, step and metric are reconstructions.
    """
    rows, values = rows_of(x), np.asarray(score, dtype=np.float64)
    width = 10 * step if window is None else window
    if not 0 <= k <= rows.n:
        raise ValueError(f"{k} rows asked of {rows.n}")
    if len(values) != rows.n or np.isnan(values).any():
        raise ValueError(f"{rows.n} rows need a score each; found {len(values)}, {np.isnan(values).sum()} of them NaN")
    if not 1 <= step <= width:
        raise ValueError(f"batches of {step} rows from a window of {width} asked; give 1 <= step <= window")
    if not k:
        return Selection.of([])
    order = np.argsort(-values, kind="stable")
    cover = Cover(rows, k)
    picks, gains = [int(order[0])], [np.nan]
    cover.add(picks[0])
    ahead, seen = order[1 : width + 1], width + 1
    while len(picks) < k:
        cover.update(ahead)
        batch = farthest_in(cover, ahead, min(step, k - len(picks), len(ahead)))
        picks += [row for row, _ in batch]
        gains += [squared**0.5 for _, squared in batch]
        left = ahead[~np.isin(ahead, picks[-len(batch) :])]
        ahead, seen = np.concatenate([left, order[seen : seen + len(batch)]]), seen + len(batch)
    return Selection.of(picks, np.array(gains))
