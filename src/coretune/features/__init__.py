"""Features: what is measured on each row alone by running something costly. One measurement a file.

A feature is a frozen, hashable dataclass. Its fields are what the measurement depends on, and so its address in the
store; a field with `metadata=place()` says where something lies (a folder, a URL) and is left out of the address,
which holds the digest of what lies there instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np

from coretune.pool import Example
from coretune.shapes import Bool, Int64


@dataclass(frozen=True)
class Ragged:
    """A row of its own length for each example: row i is `values[offsets[i]:offsets[i + 1]]`.

    `values` `(t,)` are numbers; `offsets` `(m + 1,)` ascend from 0 to t. A row without entries is a row like any other:
    that there is nothing to measure is said by the mark `missing`, see `Measured`.
    """

    values: np.ndarray
    offsets: Int64[np.ndarray, " m1"]

    @classmethod
    def of(cls, rows: Iterable[np.ndarray | Sequence[float]], dtype: Any = np.float32) -> Ragged:
        """These rows, one after the other."""
        each = [np.asarray(row, dtype=dtype) for row in rows]
        offsets = np.cumsum([0, *map(len, each)], dtype=np.int64)
        return cls(np.concatenate([np.empty(0, dtype=dtype), *each]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        at = range(len(self))[row]
        return self.values[self.offsets[at] : self.offsets[at + 1]]

    @property
    def nbytes(self) -> int:
        """The bytes of entries and offsets."""
        return self.values.nbytes + self.offsets.nbytes


@dataclass(frozen=True)
class Texts:
    """A text or None for each example, in order: `Texts.of(["a text", "", None])`; `list(texts)` gives them back.

    `utf8` are the bytes of each, and `missing` `(m,)` says where there is None: no text at all; an empty text is one.
    """

    utf8: Ragged
    missing: Bool[np.ndarray, " m"]

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> Texts:
        """These texts; half a surrogate pair is kept as it is."""
        said = list(texts)
        each = [b"" if text is None else text.encode("utf-8", "surrogatepass") for text in said]
        offsets = np.cumsum([0, *map(len, each)], dtype=np.int64)
        values = np.frombuffer(b"".join(each), dtype="S1")
        return cls(Ragged(values, offsets), np.array([text is None for text in said], dtype=bool))

    def __len__(self) -> int:
        return len(self.utf8)

    def __getitem__(self, row: int) -> str | None:
        return None if self.missing[row] else self.utf8[row].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str | None]:
        return map(self.__getitem__, range(len(self)))

    @property
    def nbytes(self) -> int:
        """The bytes of texts, offsets and marks."""
        return self.utf8.nbytes + self.missing.nbytes


@dataclass(frozen=True)
class Measured:
    """What a feature gives for some examples: row j of `values` for example j, and boolean `marks` `(m,)`.

    `values` are an array `(m, ...)`, a `Ragged` or `Texts`. A mark counts something that happened to a row
    (`truncated`); the lab stores marks beside the values and reports how many rows have each. `numbers` are further
    float32 numbers a row by name, `(m,)`, stored beside the values too (the length of a vector whose direction is the
    value).

    A row is finite where all its entries and numbers are and it has no mark `missing`; an empty row has no entry that
    is not, so a feature that finds nothing to measure marks it `missing`. A text that is None has that mark by itself.
    """

    values: np.ndarray | Ragged | Texts
    marks: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)


Measure = Callable[[Sequence[Example]], Measured]


@runtime_checkable
class FeatureSpec(Protocol):
    """A measurement as data. `version` is raised by hand when the values change for the same fields.

    A class may also say `shard_rows`, the rows measured and stored at a time, `row_bytes`, the bytes a row takes on the
    disk (the lab then refuses at once what the disk will not hold), `tolerance`, how far its values may depend on
    batches and workers (without it, not at all), and `detail`, words that tell it from others of its class and model.
    What `load` gives may be called by several threads at once.
    """

    version: ClassVar[int]

    def resolved(self) -> Self:
        """The same measurement with nothing left open: weights by digest, precision and length limit as numbers."""
        ...

    def load(self) -> Measure:
        """Do the costly part once (load the model); the result measures any examples, each on its own."""
        ...


@dataclass(frozen=True)
class Contexts:
    """Text to put before each example: some passages a row, the best first, and what happened on the way.

    `marks` and `numbers` are those of `Measured`, `(m,)` each: which rows had a copy of themselves left out, how many.
    """

    passages: Sequence[Sequence[str]]
    marks: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)


@runtime_checkable
class ContextSpec(Protocol):
    """Where text before an example comes from, as data: a field of a feature's spec, so part of its address."""

    version: ClassVar[int]

    def resolved(self) -> Self:
        """The same with nothing left open."""
        ...

    def load(self) -> Callable[[Sequence[Example]], Contexts]:
        """Open what is searched; the result finds contexts for any examples, each on its own, from any thread."""
        ...


def place() -> dict[str, Any]:
    """Field metadata for what says where something lies, not what it is: left out of a feature's address."""
    return {"place": True}


def later() -> dict[str, Any]:
    """Field metadata for an option that came later: left out of an address while it is at its default.

    So what was stored before there was such an option is found again.
    """
    return {"later": True}
