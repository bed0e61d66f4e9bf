"""A feature of a pool as a handle: row i is example i, and what is not asked for is not in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from coretune.features import Ragged, Texts
from coretune.shapes import Bool, Float32, Int32, Int64
from coretune.store.arrays import MISSING, KeyedArray, same_form
from coretune.store.digests import array_digest, digest
from coretune.store.ragged import gather

BLOCK_ROWS = 8192

Rows = Int64[np.ndarray, " k"] | Sequence[int] | slice  # numbers, a mask or a slice, as in numpy


class Feature:
    """The measured values of some rows, on disk. What is read of them is fresh and may be written to.

    Arrays are read by `rows`, `blocks` and `array`, ragged values by `ragged`, texts by `texts`; each raises
    `ValueError` where the values are of another kind, and names the one to use. A ragged feature has the shape `(n,)`
    and the dtype of its entries; texts are ragged too, in bytes of dtype S1.

    `keys` are the rows' content hashes; `which` and `place` say in which stored array, and where in it, each lies.
    """

    def __init__(
        self,
        address: str,
        keys: np.ndarray,
        arrays: Sequence[KeyedArray],
        which: Int32[np.ndarray, " n"],
        place: Int64[np.ndarray, " n"],
    ) -> None:
        self.address = address
        self.keys = keys
        used = np.unique(which)
        self._arrays: list[KeyedArray] = [arrays[number] for number in used]
        self._data = [each.data() for each in self._arrays]
        self._which = np.searchsorted(used, which).astype(np.int32) if len(used) > 1 else None
        one = len(used) == 1 and len(self._arrays[0]) == len(place)
        self._place = None if one and np.array_equal(place, np.arange(len(place))) else place
        self._finite = [each.finite() for each in self._arrays]
        self._numbers = [{name: each.number(name) for name in each.form.numbers} for each in self._arrays]
        self._marks = [{name: each.mark(name) for name in each.marks} for each in self._arrays]
        form = same_form(self._arrays or list(arrays), address) if arrays else None
        self.dtype: np.dtype[Any] = form.dtype if form else np.dtype(np.float32)
        self.shape: tuple[int, ...] = (len(keys), *(form.width if form else ()))
        self.is_ragged = form is not None and form.ragged
        self._offsets = [each.offsets() for each in self._arrays] if self.is_ragged else []
        self._known = form is not None  # an empty pool's feature may be anything

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Feature({self.address}, {'ragged ' if self.is_ragged else ''}{self.dtype} {self.shape})"

    @property
    def ndim(self) -> int:
        """How many axes the values have: 1 for a number a row."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of all values, and of the offsets of ragged ones."""
        if self.is_ragged:
            starts, ends = self._spans(slice(0, len(self)))
            return int((ends - starts).sum()) * self.dtype.itemsize + 8 * (len(self) + 1)
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @cached_property
    def fingerprint(self) -> str:
        """A digest of what was measured of which rows, in order."""
        return digest({"feature": self.address, "rows": array_digest(self.keys)})

    @property
    def is_text(self) -> bool:
        """Whether the values are texts."""
        return self.is_ragged and self.dtype.kind == "S"

    def rows(self, rows: Rows) -> np.ndarray:
        """The values `(k, ...)` of these rows (numbers, a mask or a slice, as in numpy), in this order."""
        self._expect("array")
        return self._read(self._data, rows, self.dtype, self.shape[1:])

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[np.ndarray]:
        """All values in order, `size` rows at a time."""
        if size < 1:
            raise ValueError(f"blocks of {size} rows asked; a block has at least one row")
        for start in range(0, len(self), size):
            yield self.rows(slice(start, min(start + size, len(self))))

    def array(self) -> np.ndarray:
        """All values as one array `(n, ...)`; where they lie on disk in this order, its pages are read when used."""
        self._expect("array")
        if self._place is None:
            with contextlib.suppress(FileNotFoundError):  # joined with others meanwhile: read what is still mapped
                return self._arrays[0].data("c")
        return self.rows(slice(0, len(self)))

    def ragged(self, rows: Rows | None = None) -> Ragged:
        """The ragged values of these rows, in this order; all of them are mapped where they lie on disk so."""
        self._expect("ragged")
        return self._ragged(rows)

    def texts(self, rows: Rows | None = None) -> list[str | None]:
        """The texts of these rows, in this order; None where there is none (the rows marked `missing`)."""
        self._expect("texts")
        missing = self.marks.get(MISSING, np.zeros(len(self), dtype=bool))
        return list(Texts(self._ragged(rows), missing[_asked(slice(None) if rows is None else rows)]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a feature lies on disk, so an array of it is always a copy")
        values = self.array()
        return values if dtype is None else np.array(values, dtype=dtype, copy=None)

    @cached_property
    def marks(self) -> Mapping[str, Bool[np.ndarray, " n"]]:
        """For each mark, which rows have it."""
        names = sorted({name for marks in self._marks for name in marks})
        return {name: self._flags([marks.get(name) for marks in self._marks], absent=False) for name in names}

    @cached_property
    def numbers(self) -> Mapping[str, Float32[np.ndarray, " n"]]:
        """The further numbers of each row, by name."""
        names = self._numbers[0] if self._numbers else {}
        everything, form = slice(0, len(self)), np.dtype(np.float32)
        return {name: self._read([held[name] for held in self._numbers], everything, form, ()) for name in names}

    @cached_property
    def finite(self) -> Bool[np.ndarray, " n"]:
        """Which rows have only finite values."""
        return self._flags(self._finite, absent=True)

    def _expect(self, how: str) -> None:
        """Raise `ValueError` where these values are read in another way."""
        right = "texts" if self.is_text else "ragged" if self.is_ragged else "array"
        if self._known and right != how:
            said = {"texts": "texts", "ragged": "ragged rows", "array": "an array"}
            raise ValueError(f"{self} was asked for {said[how]}, but holds {said[right]}: read it with `.{right}()`")

    def _spans(self, rows: Any) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
        """Where in their stored arrays these ragged rows begin and end."""
        form = np.dtype(np.int64)
        starts = self._read([each[:-1] for each in self._offsets], rows, form, ())
        return starts, self._read([each[1:] for each in self._offsets], rows, form, ())

    def _ragged(self, rows: Any) -> Ragged:
        """Ragged rows, all of them where none are named."""
        if rows is None and self._place is None and self._arrays:
            with contextlib.suppress(FileNotFoundError):  # joined with others meanwhile: read what is still mapped
                return Ragged(self._arrays[0].data("c"), self._arrays[0].offsets("c"))
        asked = _asked(slice(0, len(self)) if rows is None else rows)
        starts, ends = self._spans(asked)
        which = np.zeros(len(starts), dtype=np.int32) if self._which is None else self._which[asked]
        return Ragged(*gather(self._data, which, starts, ends, self.dtype))

    def _flags(self, flags: Sequence[np.ndarray | None], *, absent: bool) -> Bool[np.ndarray, " n"]:
        """Flags of the stored arrays as flags of the rows; an array without any counts as `absent`."""
        held = [
            np.full(len(array), absent) if flag is None else flag
            for array, flag in zip(self._arrays, flags, strict=True)
        ]
        return self._read(held, slice(0, len(self)), np.dtype(bool), ())

    def _read(self, held: Sequence[np.ndarray], rows: Any, dtype: np.dtype[Any], width: tuple[int, ...]) -> np.ndarray:
        """A fresh array of these rows, from arrays that are aligned with the stored ones."""
        asked = _asked(rows)
        place = asked if self._place is None else self._place[asked]
        if self._which is None and held:
            return held[0][place].copy() if isinstance(place, slice) else held[0][place]
        which = np.empty(0, dtype=np.int32) if self._which is None else self._which[asked]
        out = np.empty((len(which), *width), dtype=dtype)
        for number in np.unique(which):
            here = which == number
            out[here] = held[number][place[here]]
        return out


def _asked(rows: Any) -> Any:
    """Rows as they index an array."""
    asked = rows if isinstance(rows, slice) else np.asarray(rows)
    return asked.astype(np.int64) if not isinstance(asked, slice) and asked.size == 0 else asked
