"""The plain loop of matching pursuit in plain Python that numba compiles, and when to load it.

In many small cells most of a pick is the overhead of numpy's calls: compiled, a pick takes little more than the product
of the atoms with the residual. But numba and the loop take as long to load as tens of thousands of picks gain.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import numpy as np

from coretune.distances.rows import ArrayRows
from coretune.errors import MissingExtra, need
from coretune.shapes import Bool, Float, Int64

SMALL = 1 << 19  # numbers in all atoms: what a core's own cache holds; beyond, a BLAS with threads may gain
PAYS = 1 << 15  # picks of one process: by then they would have gained 0.65 s, what numba and the loop take to load
OPTIONS = {"error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}  # sums in any order, as in a BLAS

Walk = Callable[..., int]
Made = tuple[
    Float[np.ndarray, "room d"], Float[np.ndarray, "room room"], Float[np.ndarray, " room"], Int64[np.ndarray, " room"]
]

log = logging.getLogger(__name__)


class Asked:
    """How many picks this process was asked for among few atoms."""

    def __init__(self) -> None:
        self.count = 0

    def loop(self, rows: ArrayRows, picks: int) -> Walk | None:
        """What makes these picks: the compiled loop where it is loaded or pays by now; None where numpy is to do it."""
        if rows.n * rows.d > SMALL or not suits(rows.x):
            return None
        self.count += picks
        return compiled_walk() if self.count >= PAYS or compiled_walk.cache_info().currsize else None


ASKED = Asked()


def suits(x: Float[np.ndarray, "n d"]) -> bool:
    """Whether the compiled loop takes rows as they lie."""
    return x.dtype in (np.float32, np.float64) and x.flags.c_contiguous and x.flags.aligned


@cache
def compiled_walk() -> Walk | None:
    """`walk`, from then on used for all runs among few atoms; None without numba or a folder to keep it in.

    It is compiled at its first call, or read from the disk.
    """
    try:
        njit, extending = need("numba", "models").njit, need("numba.extending", "models")
        for part in (_dot, _best, _settled, _direction):
            extending.register_jitable(**OPTIONS)(part)
        made: Walk = njit(cache=True, nogil=True, **OPTIONS)(walk)
    except (MissingExtra, RuntimeError) as error:
        log.info("matching pursuit stays with numpy: %s", error)
        return None
    return made


def walk(
    x: Float[np.ndarray, "n d"],
    residual: Float[np.ndarray, " d"],
    barred: Bool[np.ndarray, " n"],
    positive: bool,
    bounds: tuple[float, float, float, float, float],
    made: Made,
) -> int:
    """How many picks are made from a residual that is the target on; fills `made`, bars picks, changes the residual.

    `bounds`: the ridge, the least score, up to which difference scores are equal, how far products in the type of `x`
    can be off for a residual of length 1, and up to which part of a squared length an atom depends on those before.
    `made`: directions, factor (zeros), steps and rows, as `Directions` and `Run` hold them.
    """
    ridge, least, tie, error, dependent = bounds
    vectors, lower, steps, rows = made
    atom, short, scores = np.empty(len(residual)), np.empty(len(residual), x.dtype), np.empty(len(x), x.dtype)
    for t in range(len(rows)):
        short[:] = residual
        row = _best(x, short, barred, positive, scores)
        near = scores[row] - error * np.sqrt(_dot(residual, residual))
        row = _settled(x, residual, positive, scores, (row, near, tie))
        atom[:] = x[row]
        product = _dot(atom, residual)
        if (product if positive else abs(product)) <= least:
            return t
        length = _direction(vectors[: t + 1], atom, lower[t], ridge, dependent)
        step = product / length
        for j in range(len(residual)):
            residual[j] -= step * vectors[t, j]
        steps[t], rows[t], barred[row] = step, row, True
    return len(rows)


def _dot(a: Float[np.ndarray, " d"], b: Float[np.ndarray, " d"]) -> float:
    """Their product in float64."""
    total = 0.0
    for j in range(len(a)):
        total += np.float64(a[j]) * b[j]
    return total


def _best(
    x: Float[np.ndarray, "n d"],
    residual: Float[np.ndarray, " d"],
    barred: Bool[np.ndarray, " n"],
    positive: bool,
    scores: Float[np.ndarray, " n"],
) -> int:
    """Fill in all scores, in the type of `x`, -inf for barred rows; the row with the highest."""
    row, highest = 0, -np.inf
    for i in range(len(x)):
        if barred[i]:
            scores[i] = -np.inf
            continue
        own, total = x[i], x.dtype.type(0)
        for j in range(len(residual)):
            total += own[j] * residual[j]
        scores[i] = total if positive else abs(total)
        if scores[i] > highest:
            row, highest = i, scores[i]
    return row


def _settled(
    x: Float[np.ndarray, "n d"],
    residual: Float[np.ndarray, " d"],
    positive: bool,
    scores: Float[np.ndarray, " n"],
    found: tuple[int, float, float],
) -> int:
    """The lowest of the rows that tie for the highest score in float64; `found`: the row, which are near, a tie."""
    row, near, tie = found
    count = 0
    for i in range(len(scores)):
        count += scores[i] >= near
    if count == 1:
        return row
    rows, exact, filled = np.empty(count, np.int64), np.empty(count), 0
    for i in range(len(scores)):
        if scores[i] >= near:
            product = _dot(x[i], residual)
            rows[filled], exact[filled] = i, product if positive else abs(product)
            filled += 1
    return int(rows[np.argmax(exact >= exact.max() - tie)])


def _direction(
    vectors: Float[np.ndarray, "t d"],
    atom: Float[np.ndarray, " d"],
    along: Float[np.ndarray, " room"],
    ridge: float,
    dependent: float,
) -> float:
    """Fill in the last direction, and its products with those before and itself; the length of what is left.

    With ridge, directions are parts of longer ones, so that only products with the atom itself are meant.
    """
    last = len(vectors) - 1
    direction, wanted = vectors[last], atom.copy()
    direction[:] = atom
    for turn in range(2):
        for p in range(last):
            before = vectors[p]
            product = _dot(before, wanted)
            along[p] += product
            for j in range(len(before)):
                direction[j] -= product * before[j]
        left = _dot(atom, direction) if ridge else _dot(direction, direction)
        if turn or ridge or _dot(atom, direction) >= dependent * _dot(atom, atom):
            break
        wanted[:] = direction
    length = np.sqrt(max(left, 0.0) + ridge)
    for j in range(len(direction)):
        direction[j] /= length
    along[last] = length
    return float(length)
