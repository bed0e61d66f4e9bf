"""Rows of their own lengths, one after the other in one flat array; row i is `values[offsets[i]:offsets[i + 1]]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from coretune.shapes import Bool, Int64


def offsets_of(lengths: np.ndarray) -> Int64[np.ndarray, " m1"]:
    """Where rows of these lengths `(m,)` begin, one after the other, and where the last one ends."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def spans(
    which: np.ndarray, starts: Int64[np.ndarray, " k"], ends: Int64[np.ndarray, " k"]
) -> Iterator[tuple[int, int, int]]:
    """The pieces `(array, start, end)` to be read one after the other to have rows, each given by the same three.

    Rows that follow each other in one array are one piece.
    """
    first = np.ones(len(starts), dtype=bool)
    first[1:] = (which[1:] != which[:-1]) | (starts[1:] != ends[:-1])
    last = np.append(first[1:], True)[: len(first)]
    return zip(which[first].tolist(), starts[first].tolist(), ends[last].tolist(), strict=True)


def gather(
    held: Sequence[np.ndarray],
    which: np.ndarray,
    starts: Int64[np.ndarray, " k"],
    ends: Int64[np.ndarray, " k"],
    dtype: np.dtype[Any],
) -> tuple[np.ndarray, Int64[np.ndarray, " k1"]]:
    """Rows as flat values `(t,)` and offsets; row j is `held[which[j]][starts[j]:ends[j]]`. Both are fresh."""
    offsets = offsets_of(ends - starts)
    values, at = np.empty(offsets[-1], dtype=dtype), 0
    for number, start, end in spans(which, starts, ends):
        values[at : at + end - start] = held[number][start:end]
        at += end - start
    return values, offsets


def finite_rows(values: np.ndarray, offsets: Int64[np.ndarray, " m1"]) -> Bool[np.ndarray, " m"]:
    """Which rows have only finite entries; an empty one has."""
    finite = np.ones(len(offsets) - 1, dtype=bool)
    if values.dtype.kind == "f":
        finite[np.searchsorted(offsets, np.flatnonzero(~np.isfinite(values)), side="right") - 1] = False
    return finite
