"""Partition: which cell each row is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from coretune.shapes import Float32, Int32, Int64


@dataclass(frozen=True, eq=False)
class Partition:
    """Each row's cell, 0 to c - 1, or -1 for rows outside the partition. Cells may be empty.

    `centers` and `inertia` (the sum of squared distances to them, in squared units of the features) where cells have
    centres. `count` is the number of cells; given only where there are no centres and the last cells may be empty.
    `notes` holds what the maker of the partition wants written down: numbers, strings, lists and tables of them.
    """

    cell: Int32[np.ndarray, " n"]
    centers: Float32[np.ndarray, "c d"] | None = None
    inertia: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    count: int | None = None

    def __post_init__(self) -> None:
        if self.cell.ndim != 1 or self.cell.dtype != np.int32:
            raise ValueError(f"cells must be one-dimensional int32; found {self.cell.shape} {self.cell.dtype}")
        if self.centers is not None and (self.centers.ndim != 2 or self.centers.dtype != np.float32):
            raise ValueError(f"centres must be (c, d) float32; found {self.centers.shape} {self.centers.dtype}")
        lowest, highest = int(self.cell.min(initial=0)), int(self.cell.max(initial=-1))
        count = highest + 1 if self.count is None else self.count
        if self.centers is not None:
            count = len(self.centers)
        if self.count not in (None, count):
            raise ValueError(f"{self.count} cells and {count} centres differ")
        if lowest < -1 or highest >= count:
            raise ValueError(f"cells must lie within -1..{count - 1}; found {lowest}..{highest}")
        if self.inertia is not None and not 0 <= self.inertia < np.inf:
            raise ValueError(f"inertia must be a finite number from 0; found {self.inertia}")
        object.__setattr__(self, "count", count)

    def __len__(self) -> int:
        """The number of cells, empty ones included."""
        return int(self.count or 0)

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " c"]:
        """Rows in each cell."""
        return np.bincount(self.cell[self.cell >= 0], minlength=len(self)).astype(np.int64)

    def members(self, c: int) -> Int64[np.ndarray, " m"]:
        """The rows of cell `c`, ascending. Raises `ValueError` where there is no such cell."""
        if not 0 <= c < len(self):
            raise ValueError(f"cell {c} asked of a partition with cells 0..{len(self) - 1}")
        return self._order[self._ends[c] : self._ends[c + 1]]

    @cached_property
    def _order(self) -> Int64[np.ndarray, " n"]:
        """Rows by cell, ascending within a cell; those outside come first."""
        return np.argsort(self.cell, kind="stable")

    @cached_property
    def _ends(self) -> Int64[np.ndarray, " c1"]:
        """Where in `_order` the rows outside end, and then each cell."""
        return np.cumsum(np.bincount(self.cell + 1, minlength=len(self) + 1))

    def lift(self, rows: Int64[np.ndarray, " m"], n: int) -> Partition:
        """The same cells for a pool of `n` rows of which this partition holds `rows`; all others are outside (-1)."""
        if len(rows) != len(self.cell):
            raise ValueError(f"{len(rows)} rows given for a partition of {len(self.cell)}")
        cell = np.full(n, -1, np.int32)
        cell[rows] = self.cell
        return replace(self, cell=cell, count=len(self))


def by_column(values: np.ndarray | list[Any]) -> Partition:
    """A cell for each distinct value of a column `(n,)`, numbered by first appearance; missing values are one cell.

    None and NaN are missing. The values, as text, are in `notes["names"]`, a missing one as an empty string. Raises
    `ValueError` where a value cannot be compared with others (a list, an object).
    """
    found: dict[Any, int] = {}
    column = values.tolist() if isinstance(values, np.ndarray) else values
    try:
        cell = [found.setdefault(None if value != value else value, len(found)) for value in column]
    except TypeError as error:
        raise ValueError(f"a column with values such as {column[0]!r} does not make cells: {error}") from error
    names = ["" if value is None else str(value) for value in found]
    return Partition(np.array(cell, np.int32), notes={"names": names})


def by_quantile(values: np.ndarray, c: int) -> Partition:
    """`c` cells of nearly equal size by the value of each row `(n,)`, lowest values first; equal values share a cell.

    Row i is in the cell that holds the middle of the ranks of its value, so many equal values may leave cells empty.
    `notes["edges"]` has the smallest value of each cell that is not empty, but the first. Raises `ValueError` for
    values that are not finite, or `c` below 1.
    """
    if c < 1:
        raise ValueError(f"{c} cells asked; at least 1 is needed")
    if not np.isfinite(values).all():
        raise ValueError(f"row {int(np.flatnonzero(~np.isfinite(values))[0])} has no finite value to be sorted by")
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) * 2 - counts  # twice the middle rank of each distinct value, in whole numbers
    cell = (middle * c // (2 * max(1, len(values))))[place].astype(np.int32)
    edges = [float(values[cell == j].min()) for j in range(1, c) if (cell == j).any()]
    return Partition(cell, notes={"edges": edges}, count=c)


def split(partition: Partition, most: int, rng: np.random.Generator) -> Partition:
    """The same cells, but those above `most` rows cut at random into the fewest parts, of nearly equal size.

    A cell's parts follow each other in its place; parts have no centres. Raises `ValueError` for `most` below 1.
    """
    if most < 1:
        raise ValueError(f"cells of at most {most} rows asked; at least 1 is needed")
    if partition.sizes.max(initial=0) <= most:
        return partition
    cell, count = np.full(len(partition.cell), -1, np.int32), 0
    for c in range(len(partition)):
        rows = partition.members(c)
        parts = max(1, -(-len(rows) // most))
        for part in np.array_split(rng.permutation(rows), parts):
            cell[part] = count
            count += 1
    return Partition(cell, notes={**partition.notes, "split_above_rows": most}, count=count)
