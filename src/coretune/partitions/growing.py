"""Growing a selection: more rows from the cells by weight, none of them twice."""

from __future__ import annotations

import numpy as np

from coretune.partitions.partition import Partition
from coretune.partitions.picking import Pick, within
from coretune.partitions.quotas import proportional
from coretune.selection import Selection, lift, union
from coretune.shapes import Float, Int64


def grown(
    before: Selection,
    partition: Partition,
    weights: Float[np.ndarray, " c"],
    pick: Pick,
    k: int,
    rng: np.random.Generator,
) -> Selection:
    """The rows of `before`, and then new ones of the partition until there are `k`; its first `k` where it has more.

    Cells get the new rows in proportion to `weights`, by largest remainder, at most as many as they have left; what
    that cuts off goes to the other cells in the same way, see `proportional`. `pick(rows, quota, rng)` picks among the
    rows of a cell that are not in `before`, as in `within`. There are fewer than `k` rows where the cells hold no more.
    """
    if k <= len(before):
        return before.head(k)
    taken = np.isin(np.arange(len(partition.cell)), before.rows)
    inside = partition.cell[before.rows]
    left = partition.sizes - np.bincount(inside[inside >= 0], minlength=len(partition))

    def among_the_others(rows: Int64[np.ndarray, " m"], quota: int, rng: np.random.Generator) -> Selection:
        others = np.flatnonzero(~taken[rows])
        return lift(pick(rows[others], quota, rng), others)

    quotas = proportional(left, k - len(before), weights=weights)
    return union([before, within(partition, quotas, among_the_others, rng)])
