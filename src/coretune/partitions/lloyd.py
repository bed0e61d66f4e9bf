"""Lloyd's passes over all rows or some: every row to its nearest centre, every centre to its cell's mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from coretune.distances import Rows, squares
from coretune.shapes import Float, Int32, Int64


@dataclass(frozen=True, eq=False)
class Level:
    """The rows that passes go over: `index` of all `rows`, or all where it is None; `spread` is their |x - mean|^2."""

    rows: Rows
    index: Int64[np.ndarray, " m"] | None
    spread: Float[np.ndarray, " m"]
    mean: Float[np.ndarray, " d"]  # of all rows, whatever the sample
    spherical: bool

    def take(self, positions: Int64[np.ndarray, " p"]) -> Float[np.ndarray, "p d"]:
        """The rows at these positions, in float64."""
        return self.rows.take(positions if self.index is None else self.index[positions])

    def totals(self, positions: Int64[np.ndarray, " p"], cell: Int32[np.ndarray, " p"], c: int) -> np.ndarray:
        """The sum of the rows at these positions in each cell."""
        return self.rows.totals(positions if self.index is None else self.index[positions], cell, c)


@dataclass(frozen=True, eq=False)
class Fit:
    """After a pass: the cells of the rows, and the centres that are these cells' means (unit means if spherical).

    `first` and `second` are the products of each row with its nearest and second nearest centre *before* the means
    were taken; half the difference of two squared distances is the difference of two products.
    """

    centers: Float[np.ndarray, "c d"]
    cell: Int32[np.ndarray, " m"]
    first: Float[np.ndarray, " m"]
    second: Float[np.ndarray, " m"]
    totals: Float[np.ndarray, "c d"]
    sizes: Int64[np.ndarray, " c"]
    inertia: float
    settled: bool = False  # the pass changed no cell


def one_pass(level: Level, centers: Float[np.ndarray, "c d"], before: Fit | None) -> Fit:
    """Assign every row to its nearest centre, fill empty cells, take the means. `before` saves summing all over."""
    c = len(centers)
    vectors = centers - level.mean
    cell, first, second = level.rows.best_two(level.index, vectors, squares(vectors) / 2 + vectors @ level.mean)
    changed = np.arange(len(cell)) if before is None else np.flatnonzero(cell != before.cell)
    if before is None or len(changed) > len(cell) // 3:
        totals = level.totals(np.arange(len(cell)), cell, c)
    else:
        totals = (
            before.totals + level.totals(changed, cell[changed], c) - level.totals(changed, before.cell[changed], c)
        )
    sizes = np.bincount(cell, minlength=c).astype(np.int64)
    fit = Fit(centers, cell, first, second, totals, sizes, np.inf, settled=not len(changed))
    return _with_means(level, _filled(level, fit) if not sizes.all() else fit)


def _with_means(level: Level, fit: Fit) -> Fit:
    """The centres at their cells' means, with the inertia that this gives; a mean of nothing keeps the old centre."""
    filled = np.flatnonzero(fit.sizes)
    centers, totals, sizes = fit.centers.copy(), fit.totals[filled], fit.sizes[filled]
    if level.spherical:
        lengths = np.sqrt(squares(totals))
        kept = lengths > 1e-12 * sizes  # opposite rows have no direction in the mean
        centers[filled[kept]] = totals[kept] / lengths[kept, None]
        inside = np.einsum("cd,cd->", centers[filled], totals)
        total = (
            level.spread.sum() + 2 * (level.mean @ totals.sum(axis=0)) - len(fit.cell) * (level.mean @ level.mean - 1)
        )
        return replace(fit, centers=centers, inertia=max(0.0, float(total - 2 * inside)))
    centers[filled] = totals / sizes[:, None]
    away = squares(centers[filled] - level.mean)
    return replace(fit, centers=centers, inertia=max(0.0, float(level.spread.sum() - sizes @ away)))


def _filled(level: Level, fit: Fit) -> Fit:
    """Every empty cell given the row farthest from its centre, out of a cell with other rows; ties to the lower row.

    Cells stay empty where no row is away from its centre: there are too few distinct rows.
    """
    cell, sizes, totals = fit.cell.copy(), fit.sizes.copy(), fit.totals.copy()
    away = np.empty(len(cell))
    for start in range(0, len(cell), 1024):
        here = np.arange(start, min(start + 1024, len(cell)))
        away[here] = squares(level.take(here) - fit.centers[cell[here]])
    farthest = iter(np.argsort(-away, kind="stable"))
    for empty in np.flatnonzero(sizes == 0):
        row = next((row for row in farthest if sizes[cell[row]] > 1 and away[row] > 0), None)
        if row is None:
            break
        x = level.take(np.array([row]))[0]
        totals[cell[row]] -= x
        totals[empty] = x
        sizes[cell[row]] -= 1
        sizes[empty], cell[row] = 1, empty
    return replace(fit, cell=cell, sizes=sizes, totals=totals, settled=False)


def descend(
    level: Level,
    centers: Float[np.ndarray, "c d"],
    before: Fit | None,
    *,
    passes: int,
    tolerance: float,
    tell: Callable[[Fit], None] | None = None,
) -> Fit:
    """At least one pass and at most `passes`, until one changes nothing or lowers the inertia by `tolerance` of it."""
    last = np.inf
    for _ in range(max(1, passes)):
        before = one_pass(level, centers, before)
        centers = before.centers
        if tell is not None:
            tell(before)
        if before.settled or last - before.inertia <= tolerance * before.inertia:
            break
        last = before.inertia
    assert before is not None
    return before
