"""Arrays with a key a row: what was measured of some examples, found again by what they say.

    rows.npy         (m, 2) uint64, the content keys of the rows, in the order they were measured
    data.npy         (m, ...), their values; of ragged rows (t,), all entries one after the other
    offsets.npy      (m + 1,) int64, of ragged rows: row i is data[offsets[i]:offsets[i + 1]]
    finite.npy       (m,) bool, which rows are finite; only if some are not
    mark.I.npy       (m,) bool, which rows have mark number I; only if some row has it
    number.I.npy     (m,) float32, the I-th further number of each row
    done.json        rows, type, width, whether ragged, the marks in order and how many rows have each, the names of the
                     numbers, the length of every file

Text is ragged, in bytes (type S1) of utf-8. The shards that workers write and the long arrays they are joined into (see
`joining`) are the same thing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from coretune.errors import FolderError
from coretune.shapes import Bool, Float32, Int64
from coretune.store import folders
from coretune.store.npy import open_array, save_array
from coretune.store.ragged import finite_rows

log = logging.getLogger(__name__)

ROWS, DATA, OFFSETS, FINITE = "rows.npy", "data.npy", "offsets.npy", "finite.npy"
MISSING = "missing"  # the mark of a row that has no value
IN_MEMORY = 1 << 16  # arrays of at most so many rows have their keys read, longer ones mapped
ATTEMPTS = 100  # at reading an address while other processes join its arrays


class Form(NamedTuple):
    """What the values of an array are: their type and width, whether rows are ragged, and the names of the numbers."""

    dtype: np.dtype[Any]
    width: tuple[int, ...]
    ragged: bool
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class KeyedArray:
    """A finished array: its folder, the keys of its rows, and what `done.json` says of its values."""

    path: Path
    keys: np.ndarray
    form: Form
    marks: Mapping[str, int]
    not_finite: int

    def __len__(self) -> int:
        return len(self.keys)

    def data(self, mode: Literal["r", "c"] = "r") -> np.ndarray:
        """The values, mapped: read-only, or (mode `c`) as a private copy that may be written to."""
        return open_array(self.path / DATA, mode)

    def offsets(self, mode: Literal["r", "c"] = "r") -> Int64[np.ndarray, " m1"]:
        """Where in the values each ragged row begins, and the last one ends; mapped as they are."""
        return open_array(self.path / OFFSETS, mode)

    def mark(self, name: str) -> Bool[np.ndarray, " m"]:
        """Which rows have this mark."""
        if not self.marks.get(name):
            return np.zeros(len(self), dtype=bool)
        return open_array(self.path / _mark_file(list(self.marks).index(name)))

    def number(self, name: str) -> Float32[np.ndarray, " m"]:
        """The further number of each row that has this name."""
        return open_array(self.path / _number_file(self.form.numbers.index(name)))

    def finite(self) -> Bool[np.ndarray, " m"]:
        """Which rows have only finite values."""
        return open_array(self.path / FINITE) if self.not_finite else np.ones(len(self), dtype=bool)


@dataclass(frozen=True)
class Contents:
    """What an array is written from: the values in consecutive `blocks`, and everything else a row.

    `offsets` `(m + 1,)` are None where all rows have one width.
    """

    keys: np.ndarray
    dtype: np.dtype[Any]
    width: tuple[int, ...]
    blocks: Iterable[np.ndarray]
    offsets: Int64[np.ndarray, " m1"] | None
    finite: Bool[np.ndarray, " m"]
    marks: Mapping[str, Bool[np.ndarray, " m"]]
    numbers: Mapping[str, Float32[np.ndarray, " m"]]


def write_array(
    place: Path,
    label: str,
    keys: np.ndarray,
    values: np.ndarray,
    marks: Mapping[str, Bool[np.ndarray, " m"]],
    numbers: Mapping[str, Float32[np.ndarray, " m"]] | None = None,
    *,
    offsets: Int64[np.ndarray, " m1"] | None = None,
) -> Path:
    """Store the values of some rows as one array; returns its folder. Raises `FolderError` where that cannot be.

    With `offsets`, values are those of ragged rows, one after the other. Arrays are joined in the order of their
    labels. A row is finite where its values and its numbers are, and it has no mark `missing`.
    """
    width = values.shape[1:]
    each = np.arange(len(keys) + 1) * int(np.prod(width, dtype=np.int64)) if offsets is None else offsets
    finite = finite_rows(values.reshape(-1), each)
    for number in (numbers or {}).values():
        finite &= np.isfinite(number)
    if MISSING in marks:
        finite &= ~marks[MISSING]
    return write(place, label, Contents(keys, values.dtype, width, [values], offsets, finite, marks, numbers or {}))


def write(place: Path, label: str, contents: Contents) -> Path:
    """Store contents as one array; returns its folder. Raises `FolderError` where that cannot be."""
    rows, offsets = len(contents.keys), contents.offsets
    marks = {name: int(flags.sum()) for name, flags in contents.marks.items()}
    about: dict[str, Any] = {
        "rows": rows,
        "dtype": contents.dtype.str,
        "width": contents.width,
        "ragged": offsets is not None,
        "marks": marks,
        "numbers": list(contents.numbers),
        "not_finite": rows - int(contents.finite.sum()),
    }
    with folders.new_folder(place, label, about) as folder:

        def save(name: str, values: np.ndarray) -> None:
            save_array(folder / name, values.dtype, values.shape, [values])

        save(ROWS, contents.keys)
        length = rows if offsets is None else int(offsets[-1])
        save_array(folder / DATA, contents.dtype, (length, *contents.width), contents.blocks)
        if offsets is not None:
            save(OFFSETS, offsets)
        if about["not_finite"]:
            save(FINITE, contents.finite)
        for number, (name, count) in enumerate(marks.items()):
            if count:
                save(_mark_file(number), contents.marks[name])
        for number, values in enumerate(contents.numbers.values()):
            save(_number_file(number), np.asarray(values, dtype=np.float32))
    return place / folder.name.removeprefix(".")


def scan(place: Path) -> list[KeyedArray]:
    """The finished arrays at an address. Damaged ones are left out, with a warning."""
    whole, damaged = scan_all(place)
    for path, why in damaged.items():
        log.warning("stored array %s is damaged and left out; its rows are measured again (%s)", path, why)
    return whole


def scan_all(place: Path) -> tuple[list[KeyedArray], dict[Path, Exception]]:
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


def same_form(arrays: Sequence[KeyedArray], where: str) -> Form:
    """The one type and width of arrays at an address. Raises `ValueError` where they differ."""
    forms = {each.form for each in arrays}
    if len(forms) > 1:
        raise ValueError(
            f"{where} gave values of different forms for different rows: {sorted(map(_words, forms))}; a feature "
            "has one type and width for all rows. Mend it and raise its version"
        )
    return arrays[0].form


def _words(form: Form) -> str:
    """A form in words: `float32 (2,)`."""
    numbers = f" with {', '.join(form.numbers)}" if form.numbers else ""
    return f"{'ragged ' if form.ragged else ''}{form.dtype} {form.width}{numbers}"


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
    _expect(ROWS, keys, np.dtype(np.uint64), (rows, 2))
    form = Form(np.dtype(done["dtype"]), width, bool(done.get("ragged")), tuple(done.get("numbers", ())))
    array = KeyedArray(path, keys, form, dict(done["marks"]), int(done["not_finite"]))
    length = rows
    if form.ragged:
        offsets = array.offsets()
        _expect(OFFSETS, offsets, np.dtype(np.int64), (rows + 1,))
        length = int(offsets[-1])
    _expect(DATA, array.data(), form.dtype, (length, *width))
    return array


def _expect(name: str, array: np.ndarray, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raise `ValueError` where a file holds something else than `done.json` says."""
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} holds {array.dtype} {array.shape}, not {dtype} {shape}")
