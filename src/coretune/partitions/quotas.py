"""Quotas: how many rows to pick from each cell, by largest remainder within the cells' capacities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coretune.shapes import Float, Int, Int64


def proportional(
    sizes: Int[np.ndarray, " c"] | Sequence[int],
    k: int,
    *,
    weights: Float[np.ndarray, " c"] | Sequence[float] | None = None,
) -> Int64[np.ndarray, " c"]:
    """Share `k` rows out over cells of these sizes in proportion to `weights` (without them, to the sizes).

    Each cell gets the whole part of its share; rows left over go to the largest fractional parts, ties to the lower
    cell; no cell gets more than its size; what the sizes cut off is shared out again, in the same way, over the cells
    that have room. Cells of weight 0 get rows only when all others are full, in proportion to their room. The quotas
    sum to min(k, all rows). Raises `ValueError` where `k`, a size or a weight is negative or not finite.

    Source: largest remainder (Hamilton's method) with capacities. Shares by size are counted in whole numbers, so
    equal remainders are equal.
    """
    room = _room(sizes, k)
    share = room.copy() if weights is None else np.asarray(weights, dtype=np.float64).copy()
    if share.shape != room.shape or not np.isfinite(share).all() or (share < 0).any():
        raise ValueError(f"weights must be {len(room)} finite numbers from 0; found {share.tolist()[:10]}")
    quota = np.zeros(len(room), np.int64)
    left = min(k, int(room.sum()))
    while left:
        share[room == 0] = 0
        if not share.any():
            share = room.copy()
        more = np.minimum(_largest_remainder(share, left), room)
        quota, room, left = quota + more, room - more, left - int(more.sum())
    return quota


def equal(sizes: Int[np.ndarray, " c"] | Sequence[int], k: int) -> Int64[np.ndarray, " c"]:
    """Share `k` rows out equally: every cell gets the same number, or all its rows where it has fewer.

    Rows that do not divide go one each to the lowest cells that have more. The quotas sum to min(k, all rows). Raises
    `ValueError` where `k` or a size is negative.
    """
    room = _room(sizes, k)
    left = min(k, int(room.sum()))
    low, high = 0, int(room.max(initial=0))  # the largest number that all can be given
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(np.minimum(room, middle).sum()) <= left else (low, middle - 1)
    quota: Int64[np.ndarray, " c"] = np.minimum(room, low)
    quota[np.flatnonzero(room > low)[: left - int(quota.sum())]] += 1
    return quota


def smallest_first(sizes: Int[np.ndarray, " c"] | Sequence[int], k: int, *, above: int = 0) -> Int64[np.ndarray, " c"]:
    """Share `k` rows out from the smallest cell to the largest: each gets what is left / the cells that are left.

    Rounded down, at most its size; equal sizes in order. So small cells are taken whole and what they do not use goes
    to larger ones, the rows that do not divide to the largest. Cells of at most `above` rows get rows only when all
    others are full, by the same rule. The quotas sum to min(k, all rows). Raises `ValueError` where `k` or a size is
    negative.

    Source: S2L, Yang et al. (2024), arXiv 2403.07384: over sources, and in each, with `above` 2, over its clusters:
    `[smallest_first(row, q, above=2) for row, q in zip(sizes, smallest_first(sizes.sum(axis=1), k))]`.
    """
    room = _room(sizes, k)
    quota, left = np.zeros(len(room), np.int64), min(k, int(room.sum()))
    order = np.argsort(room, kind="stable")
    for cells in (order[room[order] > above], order[room[order] <= above]):
        for place, cell in enumerate(cells.tolist()):
            quota[cell] = min(int(room[cell]), left // (len(cells) - place))
            left -= int(quota[cell])
    return quota


def _room(sizes: Int[np.ndarray, " c"] | Sequence[int], k: int) -> Int64[np.ndarray, " c"]:
    """The sizes as an array of their own, checked together with `k`."""
    room = np.array(sizes, dtype=np.int64)
    if k < 0 or room.min(initial=0) < 0:
        raise ValueError(f"{k} rows asked of cells of sizes {room.tolist()[:10]}: neither may be negative")
    return room


def _largest_remainder(share: np.ndarray, k: int) -> Int64[np.ndarray, " c"]:
    """`k` in proportion to `share`, in whole numbers that sum to `k`; cells of share 0 get none."""
    if share.dtype.kind == "f":
        share = np.ldexp(share, -np.frexp(share.max())[1])  # no overflow; by a power of two, so without rounding
    whole, rest = np.divmod(k * share, share.sum())
    quota = whole.astype(np.int64)
    rest[share == 0] = -1
    order = np.argsort(-rest, kind="stable")
    quota[order[: k - int(quota.sum())]] += 1
    return quota
