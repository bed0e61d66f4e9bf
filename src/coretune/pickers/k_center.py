"""Greedy k-center: each pick is the row farthest from all picks so far, so that no row is left far from a pick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coretune.distances import rows_of
from coretune.pickers.covering import Cover, farthest_in
from coretune.selection import Selection
from coretune.shapes import Float, Int64

BLOCK = 1024  # candidates among which picks are made before any other row is looked at
CHUNK = 4096  # rows brought up to date at a time, or a quarter of those already done


def k_center(
    x: Float[Any, "n d"],
    k: int,
    *,
    start: int | None = None,
    chosen: Int64[np.ndarray, " s"] | Sequence[int] | None = None,
) -> Selection:
    """The `k` rows of farthest-first traversal under Euclidean distance; equal distances go to the lower row.

    `x`: numpy array or torch tensor, any floating type, any unit. `start`: the first pick; without it, the row nearest
    the mean, or, where rows are `chosen`, the row farthest from those. `chosen`: rows that count as centres and never
    return. `k` counts the start. Gains are the covering radius before each pick, in the unit of `x`; NaN for a start.

    The picks are those of the plain loop in float64; products in float32 only say which rows need not be looked at.
    Most rows are compared with most picks never, or many picks at a time. Memory beyond `x`: O(n + k d). Raises
    `ValueError` where `k` is more than there is, a row is not finite, or `start` or `chosen` are not rows of `x`.

    Source: Gonzalez (1985), "Clustering to minimize the maximum intercluster distance"; the radius is at most twice the
    smallest possible. For coresets: Sener and Savarese (2018), arXiv 1708.00489, algorithm 1.
    """
    rows = rows_of(x)
    centers = _check(rows.n, k, start, [] if chosen is None else np.asarray(chosen, dtype=np.int64).tolist())
    cover = Cover(rows, len(centers) + k)
    for row in centers:
        cover.add(row)
    picks: list[int] = []
    gains: list[float] = []
    if k and (start is not None or not centers):
        picks, gains = [int(cover.spread.argmin()) if start is None else start], [np.nan]
        cover.add(picks[0])
    while len(picks) < k:
        block, bound, bound_row = _frontier(cover)
        for row, squared in farthest_in(cover, block, k - len(picks), bound=bound, bound_row=bound_row):
            picks.append(row)
            gains.append(squared**0.5)
    return Selection.of(picks, np.array(gains))


def _check(n: int, k: int, start: int | None, chosen: list[int]) -> list[int]:
    """The rows already chosen, checked."""
    if len(set(chosen)) != len(chosen) or not all(0 <= row < n for row in chosen):
        raise ValueError(f"chosen rows must be distinct and within 0..{n - 1}")
    if start is not None and (not 0 <= start < n or start in chosen):
        raise ValueError(f"start {start} must be a row within 0..{n - 1} that is not chosen already")
    if not 0 <= k <= n - len(chosen):
        raise ValueError(f"{k} rows asked of {n} rows with {len(chosen)} of them already chosen")
    return chosen


def _frontier(cover: Cover) -> tuple[Int64[np.ndarray, " b"], float, int]:
    """Up-to-date rows with the highest bounds; the highest bound of all others, and the lowest row that has it."""
    order = np.argsort(-cover.high, kind="stable")
    order = order[: cover.rows.n - cover.count]  # picks are last
    end = 0
    while end < len(order):
        step = max(CHUNK, end // 4)
        cover.update(order[end : end + step])
        end = min(end + step, len(order))
        if end < len(order) and np.count_nonzero(cover.high[order[:end]] >= cover.high[order[end]]) >= BLOCK:
            break
    fresh = order[np.lexsort((order[:end], -cover.high[order[:end]]))]
    block, others = fresh[:BLOCK], np.concatenate([fresh[BLOCK:], order[end:]])
    if not len(others):
        return block, -np.inf, cover.rows.n
    bound = cover.high[others].max()
    return block, float(bound), int(others[cover.high[others] == bound].min())
