"""Joining the arrays at an address, so that what was measured in many shards lies in few arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from coretune.shapes import Bool
from coretune.store import folders
from coretune.store.arrays import Contents, KeyedArray, same_form, scan_all, write
from coretune.store.keys import first_of_each
from coretune.store.ragged import offsets_of, spans

BLOCK_BYTES = 1 << 24  # of a joined array written at once


def join(place: Path, small_rows: int) -> None:
    """Join all arrays of at most `small_rows` rows into one, and with them those that are no longer than it.

    They keep the order of their names, so a pool measured in many shards lies in pool order. There are never more than
    a few long arrays, and each row is copied a logarithmic number of times. The joined array is complete before the
    others go; rows that stand in two of them are kept once. Damaged arrays go too.
    """
    with folders.alone(place):
        whole, damaged = scan_all(place)
        for path in damaged:
            folders.remove(path)
        group: list[KeyedArray] = []
        for array in sorted(whole, key=len):
            if len(array) <= max(small_rows, sum(map(len, group))):
                group.append(array)
        if len(group) > 1:
            _write_joined(place, sorted(group, key=lambda each: each.path.name))
            for array in group:
                folders.remove(array.path)
        folders.sweep(place)


def _write_joined(place: Path, group: Sequence[KeyedArray]) -> None:
    """Write the rows of several arrays as one, block by block."""
    form, label = same_form(group, str(place)), group[0].path.name.rpartition("-")[0]
    keys = np.concatenate([each.keys for each in group])
    kept = np.zeros(len(keys), dtype=bool)
    kept[first_of_each(keys)] = True
    mine = np.split(kept, np.cumsum([len(each) for each in group])[:-1])

    def gathered(read: Callable[[KeyedArray], np.ndarray]) -> np.ndarray:
        return np.concatenate([read(each)[keep] for each, keep in zip(group, mine, strict=True)])

    offsets = offsets_of(gathered(lambda each: np.diff(each.offsets()))) if form.ragged else None
    read_blocks = _ragged_blocks if form.ragged else _blocks
    names = sorted({name for each in group for name in each.marks})
    contents = Contents(
        keys=keys[kept],
        dtype=form.dtype,
        width=form.width,
        blocks=(block for each, keep in zip(group, mine, strict=True) for block in read_blocks(each, keep)),
        offsets=offsets,
        finite=gathered(KeyedArray.finite),
        marks={name: gathered(lambda each, name=name: each.mark(name)) for name in names},  # type: ignore[misc]
        numbers={name: gathered(lambda each, name=name: each.number(name)) for name in form.numbers},  # type: ignore[misc]
    )
    write(place, label, contents)


def _blocks(array: KeyedArray, keep: Bool[np.ndarray, " m"]) -> Iterator[np.ndarray]:
    """The rows of an array that are kept, some at a time."""
    data, rows = array.data(), np.flatnonzero(keep)
    step = max(1, BLOCK_BYTES * len(array) // max(1, data.nbytes))
    for start in range(0, len(rows), step):
        yield data[rows[start : start + step]]


def _ragged_blocks(array: KeyedArray, keep: Bool[np.ndarray, " m"]) -> Iterator[np.ndarray]:
    """The entries of the rows that are kept, as they lie on the disk: nothing is copied."""
    data, offsets = array.data(), array.offsets()
    starts, ends = offsets[:-1][keep], offsets[1:][keep]
    for _, start, end in spans(np.zeros(len(starts), dtype=np.int32), starts, ends):
        yield data[start:end]
