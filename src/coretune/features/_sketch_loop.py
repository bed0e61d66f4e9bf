"""The loop of the count sketch over the entries of a parameter, in plain Python that numba compiles."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from coretune.errors import need


@cache
def compiled_loop() -> Callable[..., None]:
    """`add_blocks`, compiled at the first call, or read from the disk; other threads run while it does."""
    njit = need("numba", "models").njit
    options = {"nogil": True, "error_model": "numpy"}
    try:
        made: Callable[..., None] = njit(cache=True, **options)(add_blocks)
    except RuntimeError:  # no folder to keep it in
        made = njit(**options)(add_blocks)
    return made


def add_blocks(
    out: np.ndarray,
    entries: np.ndarray,
    half: bool,
    signs: np.ndarray,
    offsets: np.ndarray,
    directed: bool,
    state: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Add the sketch of `entries` `(b, p)` into `out` `(b, d)`, both C-ordered; `half`: entries are bits of bfloat16.

    Directed, it is Adam's step that is sketched: `state` is what an `_adam.Direction` holds, mean and square `(p,)` and
    its six constants, float32. A block's state and signs stay near while it is added for all rows. Loops run over
    slices, not sums of indices: only so are they vectorised.
    """
    d, size = out.shape[1], entries.shape[1]
    mean, square, constants = state
    kept, new, kept_square, new_square, inside, outside = constants
    whole = np.empty(d, dtype=np.float32)
    for block in range(len(offsets)):
        start, end = block * d, min(size, (block + 1) * d)
        wide, first = whole[: end - start], min(end - start, d - offsets[block])
        for i in range(len(entries)):
            given = entries[i, start:end]
            if half:
                for j in range(len(wide)):
                    wide[j] = np.uint32(np.uint32(given[j]) << np.uint32(16)).view(np.float32)
            else:
                for j in range(len(wide)):
                    wide[j] = given[j]
            if directed:
                m, v = mean[start:end], square[start:end]
                for j in range(len(wide)):
                    g = wide[j]
                    root = np.sqrt(kept_square * v[j] + new_square * g * g + inside)
                    wide[j] = (kept * m[j] + new * g) / (root + outside)
            before, after = out[i, offsets[block] : offsets[block] + first], out[i, : len(wide) - first]
            head, tail = wide[:first], wide[first:]
            head_signs, tail_signs = signs[start : start + first], signs[start + first : end]
            for j in range(len(head)):
                before[j] += head[j] * np.float32(head_signs[j])
            for j in range(len(tail)):
                after[j] += tail[j] * np.float32(tail_signs[j])
