"""Picking within cells: any picker, cell by cell, in an order of which every beginning is nearly proportional."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from coretune.partitions.partition import Partition
from coretune.selection import Selection, lift
from coretune.shapes import Float, Int64

Pick = Callable[[Int64[np.ndarray, " m"], int, np.random.Generator], Selection]


def within(
    partition: Partition,
    quota: Int64[np.ndarray, " c"],
    pick: Pick,
    rng: np.random.Generator,
    *,
    mass: Float[np.ndarray, " c"] | Int64[np.ndarray, " c"] | None = None,
    map: Callable[..., Iterable[Selection]] = map,
) -> Selection:
    """`pick(rows, quota, rng)` in every cell with a quota, as one selection of rows of the partition.

    `pick` gets the rows of a cell, ascending, and gives positions in them; gains stay as it gives them. Picks are
    ordered by (place in the cell + 1/2) / quota, ties to the lower cell, so that any first k are nearly in proportion
    to the quotas. Every cell has a generator of its own, drawn from `rng` for all cells at once: what is picked in one
    depends neither on the other cells' quotas nor on the order in which `map` works. `mass` is what each cell stands
    for, for example `partition.sizes`: the weights in a cell then sum to it, before all are scaled to mean 1; without
    it, every cell's weights keep mean 1.

    Raises `ValueError` where a quota is not from 0 to the size of its cell, or `pick` gives another number of rows.
    """
    quota = np.asarray(quota, dtype=np.int64)
    if quota.shape != partition.sizes.shape or (quota < 0).any() or (quota > partition.sizes).any():
        raise ValueError(
            f"quotas must be from 0 to the sizes of {len(partition)} cells; found {quota.tolist()[:10]} of "
            f"{partition.sizes.tolist()[:10]}"
        )
    own = [np.random.default_rng(seed) for seed in rng.integers(2**63, size=(len(quota), 2))]
    cells = np.flatnonzero(quota)
    if not len(cells):
        return Selection.of([])
    members = [partition.members(int(c)) for c in cells]
    parts = list(map(pick, members, quota[cells].tolist(), [own[c] for c in cells]))
    for c, part in zip(cells, parts, strict=True):
        if len(part) != quota[c]:
            raise ValueError(f"cell {c} was to give {quota[c]} rows, and {len(part)} were picked")
    scale = np.ones(len(cells)) if mass is None else np.asarray(mass)[cells] / quota[cells]
    sizes = quota[cells]
    place = np.concatenate([np.arange(size) for size in sizes])
    order = np.lexsort((np.repeat(cells, sizes), (place + 0.5) / np.repeat(sizes, sizes)))
    return Selection.of(
        np.concatenate([lift(part, rows).rows for part, rows in zip(parts, members, strict=True)])[order],
        np.concatenate([part.gains for part in parts])[order],
        np.concatenate([part.weights * each for part, each in zip(parts, scale, strict=True)])[order],
    )
