"""The compiled loops of the count sketch. Importing this module compiles nothing; the first call does, or reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., Any])


def _compiled(loop: Loop) -> Loop:
    """Compiled at the first call, and kept on the disk; lets other threads run."""
    made: Loop = njit(nogil=True, cache=True, error_model="numpy")(loop)
    return made


@_compiled
def _widened(entries: np.ndarray, half: bool, out: np.ndarray) -> None:
    """Entries as float32; `half`: they are the bits of bfloat16."""
    if half:
        for j in range(len(entries)):
            out[j] = np.uint32(np.uint32(entries[j]) << np.uint32(16)).view(np.float32)
    else:
        for j in range(len(entries)):
            out[j] = entries[j]


@_compiled
def _add_rotated(row: np.ndarray, entries: np.ndarray, signs: np.ndarray, offset: int) -> None:
    """Add signed entries to a row, the first one at `offset`, going on at the row's beginning."""
    first = min(len(entries), len(row) - offset)
    before, after = row[offset : offset + first], row[: len(entries) - first]
    head, tail, head_signs, tail_signs = entries[:first], entries[first:], signs[:first], signs[first:]
    for j in range(len(head)):  # slices, not sums of indices: only so are the loops vectorised
        before[j] += head[j] * np.float32(head_signs[j])
    for j in range(len(tail)):
        after[j] += tail[j] * np.float32(tail_signs[j])


@_compiled
def add_blocks(out: np.ndarray, entries: np.ndarray, half: bool, signs: np.ndarray, offsets: np.ndarray) -> None:
    """Add the sketch of `entries` `(b, p)` into `out` `(b, d)`."""
    d, size = out.shape[1], entries.shape[1]
    wide = np.empty(d, dtype=np.float32)
    for block in range(len(offsets)):
        start, end = block * d, min(size, (block + 1) * d)
        for i in range(len(entries)):
            _widened(entries[i, start:end], half, wide[: end - start])
            _add_rotated(out[i], wide[: end - start], signs[start:end], offsets[block])


@_compiled
def add_directed_blocks(
    out: np.ndarray,
    entries: np.ndarray,
    half: bool,
    signs: np.ndarray,
    offsets: np.ndarray,
    state: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """The same for Adam's step: `state` is what an `_adam.Direction` holds, mean and square `(p,)` and constants."""
    d, size = out.shape[1], entries.shape[1]
    mean, square, constants = state
    kept, new, kept_square, new_square, inside, outside = constants
    wide = np.empty(d, dtype=np.float32)
    for block in range(len(offsets)):
        start, end = block * d, min(size, (block + 1) * d)
        m, v = mean[start:end], square[start:end]
        for i in range(len(entries)):
            _widened(entries[i, start:end], half, wide[: end - start])
            for j in range(end - start):
                g = wide[j]
                root = np.sqrt(kept_square * v[j] + new_square * g * g + inside)
                wide[j] = (kept * m[j] + new * g) / (root + outside)
            _add_rotated(out[i], wide[: end - start], signs[start:end], offsets[block])
