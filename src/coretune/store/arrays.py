"""Arrays with a key a row: what was measured of some examples, found again by what they say.

    rows.npy         (m, 2) uint64, the content keys of the rows, in the order they were measured
    data.npy         (m, ...), their values
    finite.npy       (m,) bool, where a value is finite; only if some row's is not
    mark.I.npy       (m,) bool, which rows have mark number I; only if some row has it
    number.I.npy     (m,) float32, the I-th further number of each row
    done.json        rows, type, width, the marks in order and how many rows have each, the names of the numbers, the
                     length of every file

The shards that workers write and the long arrays they are joined into are the same thing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coretune.errors import FolderError
from coretune.shapes import Bool, Float32
from coretune.store import folders
from coretune.store.keys import first_of_each

log = logging.getLogger(__name__)

Form = tuple[np.dtype[Any], tuple[int, ...]]  # the type of a value, and its width

ROWS, DATA, FINITE = "rows.npy", "data.npy", "finite.npy"
BLOCK_BYTES = 1 << 24  # of a joined array written at once
SMALL_BYTES = 1 << 14  # files of at most so many are read, not mapped
IN_MEMORY = 1 << 16  # arrays of at most so many rows have their keys read, longer ones mapped
ATTEMPTS = 100  # at reading an address while other processes join its arrays


@dataclass(frozen=True)
class KeyedArray:
    """A finished array: its folder, the keys of its rows, and what `done.json` says of its values."""

    path: Path
    keys: np.ndarray
    dtype: np.dtype[Any]
    width: tuple[int, ...]
    marks: Mapping[str, int]
    numbers: Sequence[str]
    not_finite: int

    def __len__(self) -> int:
        return len(self.keys)

    def data(self, mode: Literal["r", "c"] = "r") -> np.ndarray:
        """The values, mapped: read-only, or (mode `c`) as a private copy that may be written to."""
        return open_array(self.path / DATA, mode)

    def mark(self, name: str) -> Bool[np.ndarray, " m"]:
        """Which rows have this mark."""
        if not self.marks.get(name):
            return np.zeros(len(self), dtype=bool)
        return open_array(self.path / _mark_file(list(self.marks).index(name)))

    def number(self, name: str) -> Float32[np.ndarray, " m"]:
        """The further number of each row that has this name."""
        return open_array(self.path / _number_file(list(self.numbers).index(name)))

    def finite(self) -> Bool[np.ndarray, " m"]:
        """Which rows have only finite values."""
        return open_array(self.path / FINITE) if self.not_finite else np.ones(len(self), dtype=bool)


def write_array(
    place: Path,
    label: str,
    keys: np.ndarray,
    values: np.ndarray,
    flags: Mapping[str, Bool[np.ndarray, " m"]],
    numbers: Mapping[str, Float32[np.ndarray, " m"]] | None = None,
) -> Path:
    """Store the values of some rows as one array; returns its folder. Raises `FolderError` where that cannot be.

    Arrays are joined in the order of their labels. `flags` are the marks by name; a row is finite where its value and
    its numbers are.
    """
    finite = np.ones(len(values), dtype=bool)
    if values.dtype.kind == "f":
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    for each in (numbers or {}).values():
        finite &= np.isfinite(each)
    form = (values.dtype, values.shape[1:])
    return _write(place, label, keys, form, [values], {"": finite, **flags}, numbers or {})


def scan(place: Path) -> list[KeyedArray]:
    """The finished arrays at an address. Damaged ones are left out, with a warning."""
    whole, damaged = _scan(place)
    for path, why in damaged.items():
        log.warning("stored array %s is damaged and left out; its rows are measured again (%s)", path, why)
    return whole


def _scan(place: Path) -> tuple[list[KeyedArray], dict[Path, Exception]]:
    """The finished arrays at an address, and the damaged ones with what is wrong."""
    for _ in range(ATTEMPTS):
        whole: list[KeyedArray] = []
        damaged: dict[Path, Exception] = {}
        for path in folders.finished(place):
            try:
                whole.append(_open(path))
            except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
                if not path.exists():
                    break  # another process has just joined it: look again
                damaged[path] = error
        else:
            return whole, damaged
    raise FolderError(f"the arrays at {place} change faster than they can be read: is something else pruning them?")


def join(place: Path, small_rows: int) -> None:
    """Join all arrays of at most `small_rows` rows into one, and with them those that are no longer than it.

    They keep the order of their names, so a pool measured in many shards lies in pool order. There are never more than
    a few long arrays, and each row is copied a logarithmic number of times. The joined array is complete before the
    others go; rows that stand in two of them are kept once. Damaged arrays go too.
    """
    with folders.alone(place):
        whole, damaged = _scan(place)
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


def same_form(arrays: Sequence[KeyedArray], where: str) -> Form:
    """The one type and width of arrays at an address. Raises `ValueError` where they differ."""
    forms = sorted({(str(each.dtype), each.width, *each.numbers) for each in arrays})
    if len(forms) > 1:
        raise ValueError(
            f"{where} gave values of different forms for different rows: {forms}; a feature has one type and width "
            "for all rows. Mend it and raise its version"
        )
    return arrays[0].dtype, arrays[0].width


def _write_joined(place: Path, group: Sequence[KeyedArray]) -> None:
    """Write the rows of several arrays as one, block by block."""
    form, label = same_form(group, str(place)), group[0].path.name.rpartition("-")[0]
    keys = np.concatenate([each.keys for each in group])
    kept = np.zeros(len(keys), dtype=bool)
    kept[first_of_each(keys)] = True
    mine = np.split(kept, np.cumsum([len(each) for each in group])[:-1])

    def gathered(read: Callable[[KeyedArray], np.ndarray]) -> np.ndarray:
        return np.concatenate([read(each)[keep] for each, keep in zip(group, mine, strict=True)])

    def blocks() -> Iterator[np.ndarray]:
        for each, keep in zip(group, mine, strict=True):
            data, rows = each.data(), np.flatnonzero(keep)
            step = max(1, BLOCK_BYTES * len(each) // max(1, data.nbytes))
            for start in range(0, len(rows), step):
                yield data[rows[start : start + step]]

    names = sorted({name for each in group for name in each.marks})
    flags = {"": gathered(KeyedArray.finite)}
    for name in names:
        flags[name] = gathered(lambda each, name=name: each.mark(name))  # type: ignore[misc]
    numbers = {name: gathered(lambda each, name=name: each.number(name)) for name in group[0].numbers}  # type: ignore[misc]
    _write(place, label, keys[kept], form, blocks(), flags, numbers)


def _write(
    place: Path,
    label: str,
    keys: np.ndarray,
    form: Form,
    blocks: Iterable[np.ndarray],
    flags: Mapping[str, np.ndarray],
    numbers: Mapping[str, np.ndarray],
) -> Path:
    """Write one array; `flags` holds the marks by name, and under the empty name which rows are finite."""
    marks = {name: int(flag.sum()) for name, flag in flags.items() if name}
    not_finite = len(keys) - int(flags[""].sum())
    dtype, width = form
    about: dict[str, Any] = {"rows": len(keys), "dtype": dtype.str, "width": width, "numbers": list(numbers)}
    with folders.new_folder(place, label, about | {"marks": marks, "not_finite": not_finite}) as folder:
        save_array(folder / ROWS, np.uint64(0).dtype, (len(keys), 2), [keys])
        save_array(folder / DATA, dtype, (len(keys), *width), blocks)
        if not_finite:
            save_array(folder / FINITE, np.dtype(bool), (len(keys),), [flags[""]])
        for number, (name, count) in enumerate(marks.items()):
            if count:
                save_array(folder / _mark_file(number), np.dtype(bool), (len(keys),), [flags[name]])
        for number, values in enumerate(numbers.values()):
            save_array(folder / _number_file(number), np.dtype(np.float32), (len(keys),), [values])
    return place / folder.name.removeprefix(".")


def save_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Write a `.npy` file from consecutive blocks; through the file, so that a full disk is an error, not a crash."""
    with path.open("wb") as handle:
        np.lib.format.write_array_header_1_0(
            handle, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        for block in blocks:
            if block.size:
                handle.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)


def open_array(path: Path, mode: Literal["r", "c"] = "r") -> np.ndarray:
    """A `.npy` file, mapped read-only or (mode `c`) as a private copy that may be written to; a small one is read."""
    mapped = path.stat().st_size > SMALL_BYTES
    return np.asarray(np.load(path, mmap_mode=mode if mapped else None, allow_pickle=False))


def _mark_file(number: int) -> str:
    """The file of an array's mark: by number, since a mark may be any words."""
    return f"mark.{number}.npy"


def _number_file(number: int) -> str:
    """The file of an array's further number."""
    return f"number.{number}.npy"


def _open(path: Path) -> KeyedArray:
    """Open a finished array. Raises `OSError` or `ValueError` where it is gone or damaged."""
    done = folders.read_done(path)
    rows, width = int(done["rows"]), tuple(int(each) for each in done["width"])
    keys = np.asarray(np.load(path / ROWS, allow_pickle=False)) if rows <= IN_MEMORY else open_array(path / ROWS)
    if keys.shape != (rows, 2) or keys.dtype != np.uint64:
        raise ValueError(f"{ROWS} holds {keys.dtype} {keys.shape}, not uint64 {(rows, 2)}")
    array = KeyedArray(
        path=path,
        keys=keys,
        dtype=np.dtype(done["dtype"]),
        width=width,
        marks=dict(done["marks"]),
        numbers=tuple(done.get("numbers", ())),
        not_finite=int(done["not_finite"]),
    )
    data = array.data()
    if data.shape != (rows, *width) or data.dtype != array.dtype:
        raise ValueError(f"{DATA} holds {data.dtype} {data.shape}, not {array.dtype} {(rows, *width)}")
    return array
