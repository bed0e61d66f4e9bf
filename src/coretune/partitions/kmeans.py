"""k-means: exact, seeded, and fast by starting on samples and by moving centres that hardly matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.distances import Rows, centred, nearest, rows_of, squared_distances
from coretune.partitions.lloyd import Fit, Level, descend
from coretune.partitions.partition import Partition
from coretune.partitions.seeding import seeds
from coretune.partitions.swaps import swapped
from coretune.shapes import Float, Int32

SAMPLE = 16  # rows a cell in the first sample
SAMPLE_TOLERANCE = 1e-3  # samples differ by more than this from the whole
SAMPLE_SWAPS = 2
SWAPPED = 8  # one in so many centres is moved in a round of swaps
SETTLING = 2  # passes after a round of swaps before it is judged
WORTH = 1e-4  # of the inertia: a round that saves less is followed by one of half as many swaps
UNIT = 0.02  # how far the length of a unit row may be from 1: float16 rows are not off by more


@dataclass(frozen=True)
class _Effort:
    """When to stop. `watch` is told the inertia after every pass over all rows."""

    swaps: int
    max_passes: int
    tolerance: float
    watch: Callable[[float], None] | None


def kmeans(  # noqa: PLR0913
    x: Float[Any, "n d"],
    c: int,
    rng: np.random.Generator,
    *,
    spherical: bool = False,
    start: Float[np.ndarray, "c d"] | None = None,
    restarts: int = 1,
    swaps: int = 6,
    max_passes: int = 100,
    tolerance: float = 1e-4,
    watch: Callable[[float], None] | None = None,
) -> Partition:
    """`c` cells around centres such that the sum of squared Euclidean distances to them is small.

    `x`: numpy array or torch tensor, any floating type; products are taken where it lies. `spherical`: centres have
    length 1, as the rows must have, and a row goes to the centre with the largest cosine. `start`: the first centres;
    without it, k-means++ on a sample of 16 rows a cell, which grows by doubling to all rows. `restarts`: the best of
    so many runs. `swaps`: rounds in which centres that hardly matter are moved to split other cells, kept where the
    inertia falls; 0 is Lloyd's passes alone. A run ends after `max_passes` over all rows, or when a pass lowers the
    inertia by no more than `tolerance` of it; with 0, when nothing changes. `watch` is told the inertia after every
    pass over all rows.

    The result: labels are each row's nearest of the returned centres, as plain float64 arithmetic has it, ties to the
    lower centre; no cell is empty; cells are numbered by their lowest row; inertia is in float64. Notes: `passes` over
    all rows, `converged` (not stopped by `max_passes`), `moved` (rows whose cell the final assignment changed),
    `imbalance` (1 where all cells are equal), `spherical`, `swaps` kept. Memory beyond `x`: O(n + c d).

    Raises `ValueError` where fewer than `c` rows differ, a row is not finite, or spherical rows are not of length 1.
    Source: Lloyd (1982), Least squares quantization in PCM; spherical: Dhillon and Modha (2001).
    """
    rows = rows_of(x)
    effort = _Effort(swaps, max_passes, tolerance, watch)
    _check(rows, c, start, restarts, effort)
    mean, spread = centred(rows)
    if spherical:
        _check_lengths(rows)
    whole = Level(rows, None, spread, mean, spherical)
    best: _Run | None = None
    for _ in range(restarts):
        run = _run(whole, _sampled(whole, c, rng, effort) if start is None else start.astype(np.float64), effort)
        best = run if best is None or run.fit.inertia < best.fit.inertia else best
    assert best is not None
    return _partition(whole, best)


def _check(rows: Rows, c: int, start: Float[np.ndarray, "c d"] | None, restarts: int, effort: _Effort) -> None:
    """Raises `ValueError` for arguments that contradict the rows or each other."""
    if not 1 <= c <= rows.n:
        raise ValueError(f"{c} cells asked of {rows.n} rows; ask for 1 to {rows.n}")
    if start is not None and start.shape != (c, rows.d):
        raise ValueError(f"a start for {c} cells must have shape {(c, rows.d)}; found {start.shape}")
    if restarts < 1 or (start is not None and restarts > 1):
        raise ValueError(f"{restarts} runs asked; at least 1 is needed, and a start leaves nothing to restart")
    if effort.swaps < 0 or effort.max_passes < 1 or not effort.tolerance >= 0:
        raise ValueError(
            f"swaps {effort.swaps}, max_passes {effort.max_passes} and tolerance {effort.tolerance} must be at least "
            "0, 1 and 0"
        )


def _check_lengths(rows: Rows) -> None:
    """Raises `ValueError` unless all rows are of length 1."""
    lengths = np.sqrt(squared_distances(rows, np.zeros(rows.d)))
    if (np.abs(lengths - 1) > UNIT).any():
        raise ValueError(f"spherical k-means takes rows of length 1; found {lengths.min():.4g} to {lengths.max():.4g}")


@dataclass(frozen=True, eq=False)
class _Run:
    fit: Fit
    passes: int
    kept: int  # rounds of swaps
    converged: bool


def _sampled(whole: Level, c: int, rng: np.random.Generator, effort: _Effort) -> Float[np.ndarray, "c d"]:
    """First centres: k-means++ on a sample, brought down on it and on samples twice as large, up to half the rows."""
    n = len(whole.spread)
    if 2 * SAMPLE * c > n:
        return seeds(whole, c, rng)
    order = rng.permutation(n)
    centers: Float[np.ndarray, "c d"] | None = None
    size = SAMPLE * c
    loose = _Effort(min(effort.swaps, SAMPLE_SWAPS), effort.max_passes, max(effort.tolerance, SAMPLE_TOLERANCE), None)
    while 2 * size <= n:
        some = np.sort(order[:size])
        level = Level(whole.rows, some, whole.spread[some], whole.mean, whole.spherical)
        centers = _run(level, seeds(level, c, rng) if centers is None else centers, loose).fit.centers
        size *= 2
    assert centers is not None
    return centers


def _run(level: Level, centers: Float[np.ndarray, "c d"], effort: _Effort) -> _Run:
    """Passes, rounds of swaps with a few passes each, and passes to the end."""
    passes = 0

    def tell(fit: Fit) -> None:
        nonlocal passes
        passes += 1
        if effort.watch is not None:
            effort.watch(fit.inertia)

    def down(centers: Float[np.ndarray, "c d"], before: Fit | None, most: int, tolerance: float) -> Fit:
        return descend(
            level, centers, before, passes=min(most, effort.max_passes - passes), tolerance=tolerance, tell=tell
        )

    rough = max(effort.tolerance, SAMPLE_TOLERANCE) if effort.swaps else effort.tolerance
    fit = down(centers, None, effort.max_passes, rough)
    wanted, kept = max(1, len(centers) // SWAPPED), 0
    for _ in range(effort.swaps if len(centers) > 1 else 0):
        if not wanted or passes >= effort.max_passes:
            break
        tried = down(swapped(level, fit, wanted), fit, SETTLING, 0.0)
        if fit.inertia - tried.inertia < WORTH * fit.inertia:
            wanted //= 2
        fit, kept = (tried, kept + 1) if tried.inertia < fit.inertia else (fit, kept)
    if effort.tolerance < rough and not fit.settled and passes < effort.max_passes:
        fit = down(fit.centers, fit, effort.max_passes, effort.tolerance)
    return _Run(fit, passes, kept, passes < effort.max_passes or fit.settled)


def _partition(whole: Level, run: _Run) -> Partition:
    """Labels from a final assignment of all rows to the centres as they are returned, and cells in stable order."""
    centers, c = run.fit.centers.astype(np.float32), len(run.fit.centers)
    while True:
        cell, squared = nearest(whole.rows, centers.astype(np.float64), whole.mean, whole.spread)
        sizes = np.bincount(cell, minlength=c)
        if sizes.all():
            break
        _refill(whole, centers, np.flatnonzero(sizes == 0), cell, squared)
    order = np.argsort(np.unique(cell, return_index=True)[1])
    place = np.empty(c, np.int32)
    place[order] = np.arange(c)
    notes = {
        "passes": run.passes,
        "converged": run.converged,
        "moved": int(np.count_nonzero(cell != run.fit.cell)),
        "imbalance": float(c * (sizes / len(cell)) @ (sizes / len(cell))),
        "spherical": whole.spherical,
        "swaps": run.kept,
    }
    return Partition(place[cell], centers[order], float(squared.sum()), notes)


def _refill(
    whole: Level,
    centers: np.ndarray,
    empty: np.ndarray,
    cell: Int32[np.ndarray, " n"],
    squared: Float[np.ndarray, " n"],
) -> None:
    """Move centres without rows to the rows farthest from theirs; raises `ValueError` where no row is away."""
    shared = np.bincount(cell, minlength=len(centers))[cell] > 1
    farthest = np.argsort(-squared, kind="stable")
    farthest = farthest[shared[farthest] & (squared[farthest] > 0)]
    if not len(farthest):
        raise ValueError(
            f"{len(centers)} cells asked of {len(cell)} rows, of which only {len(centers) - len(empty)} differ; "
            "ask for fewer cells"
        )
    some = farthest[: len(empty)]
    centers[empty[: len(some)]] = whole.take(some)
