"""Swaps: a centre that hardly matters moved to where a cell is best split in two, out of reach for Lloyd's passes."""

from __future__ import annotations

import numpy as np

from coretune.distances import squares
from coretune.partitions.lloyd import Fit, Level
from coretune.shapes import Float

LARGEST = 512  # rows of a cell that are looked at for its split
TRIED = 4  # cells looked at for each swap wanted


def swapped(level: Level, fit: Fit, wanted: int) -> Float[np.ndarray, "c d"]:
    """The centres with swaps made: all that lower the inertia by themselves, and the `wanted` most promising.

    Removing a centre costs what its rows gain in squared distance at their second nearest; splitting a cell saves what
    two means of its rows save over one. The cheapest removals are paired with the best splits.
    """
    c = len(fit.centers)
    cost = np.bincount(fit.cell, 2.0 * (fit.first - fit.second), minlength=c)
    inside = np.bincount(fit.cell, level.spread - 2.0 * fit.first, minlength=c)
    order = np.argsort(fit.cell, kind="stable")
    ends = np.cumsum(fit.sizes)
    halves: dict[int, tuple[float, np.ndarray, np.ndarray]] = {}
    for j in np.argsort(-inside, kind="stable")[: max(TRIED * wanted, c // 4)]:
        if fit.sizes[j] > 1:
            members = order[ends[j] - fit.sizes[j] : ends[j]]
            some = members[:: -(-len(members) // LARGEST)]
            saved, left, right = _split(level.take(some))
            if saved > 0:
                halves[int(j)] = saved * len(members) / len(some), left, right
    centers, used = fit.centers.copy(), set[int]()
    cheapest = iter(np.argsort(cost, kind="stable").tolist())
    for j in sorted(halves, key=lambda j: -halves[j][0]):
        if j in used:
            continue
        removed = next((i for i in cheapest if i not in used and i != j), None)
        if removed is None or (len(used) >= 2 * wanted and halves[j][0] <= cost[removed]):
            break
        _, centers[j], centers[removed] = halves[j]
        used |= {j, removed}
    return centers


def _split(x: Float[np.ndarray, "m d"]) -> tuple[float, Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Two means of these rows, and the inertia that they save over one: 2-means started across the widest direction."""
    mean = x.mean(axis=0)
    x = x - mean
    direction = x[squares(x).argmax()]
    for _ in range(3):
        direction = x.T @ (x @ direction)
        direction = direction / (np.linalg.norm(direction) or 1.0)
    side = x @ direction > 0
    for _ in range(4):
        right = int(side.sum())
        if right in (0, len(x)):
            return 0.0, mean, mean
        total = side @ x
        a, b = total / right, -total / (len(x) - right)
        side = x @ (a - b) > (a @ a - b @ b) / 2
    return float(right * (a @ a) + (len(x) - right) * (b @ b)), mean + a, mean + b
