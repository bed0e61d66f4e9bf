"""Features: what is measured on each row alone by running something costly. One measurement a file.

A feature is a frozen, hashable dataclass. Its fields are what the measurement depends on, and so its address in the
store; a field with `metadata=place()` says where something lies (a folder, a URL) and is left out of the address,
which holds the digest of what lies there instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np

from coretune.pool import Example
from coretune.shapes import Int64


@dataclass(frozen=True)
class Ragged:
    """A row of its own length for each example: row i is `values[offsets[i]:offsets[i + 1]]`.

    `values` `(t,)` are numbers; `offsets` `(m + 1,)` ascend from 0 to t. A row without entries has no value at all,
    which is not finite if a mark says so; see `Measured`.
    """

    values: np.ndarray
    offsets: Int64[np.ndarray, " m1"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True)
class Measured:
    """What a feature gives for some examples: `values (m, ...)`, row j for example j, and boolean `marks` `(m,)`.

    A mark counts something that happened to a row (`truncated`); the lab stores marks beside the values and reports
    how many rows have each. `numbers` are further float32 numbers a row by name, `(m,)`, stored beside the values too
    (the length of a vector whose direction is the value).
    """

    values: np.ndarray
    marks: Mapping[str, np.ndarray] = field(default_factory=dict)
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)


Measure = Callable[[Sequence[Example]], Measured]


@runtime_checkable
class FeatureSpec(Protocol):
    """A measurement as data. `version` is raised by hand when the values change for the same fields.

    A class may also say `shard_rows`, the rows measured and stored at a time, `row_bytes`, the bytes a row takes on the
    disk (the lab then refuses at once what the disk will not hold), and `tolerance`, how far its values may depend on
    batches and workers (without it, not at all). What `load` gives may be called by several threads at once.
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
