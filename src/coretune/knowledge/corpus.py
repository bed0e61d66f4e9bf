"""A corpus as a sequence of passages over an Arrow table, which may be mapped from the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np

from coretune.errors import PoolError
from coretune.pool import Pool

BLOCK_ROWS = 4096
UNSHOWN = ("system", "developer")  # turns that say how to answer, not what is known


class Knowledge:
    """Text that can be searched: passages in order. A passage is a row of `pool`: its turns, joined by an empty line.

    System turns are left out of a passage. `rejected` (schema `coretune.pool.REJECTED`) holds the records that could
    not be read, with file, line and reason. Raises `PoolError` for a corpus without any passage.
    """

    def __init__(self, pool: Pool) -> None:
        if not len(pool):
            raise PoolError("a corpus without any passage was given as knowledge; give texts or records to search")
        self.pool = pool

    @classmethod
    def of(cls, texts: Iterable[str]) -> Knowledge:
        """The corpus of these texts, one passage each, not split; empty ones and half characters are rejected."""
        from coretune.knowledge.reading import corpus_of

        return cls(corpus_of(texts))

    @classmethod
    def from_pool(cls, pool: Pool) -> Knowledge:
        """The corpus of a pool's records, each shown as an example: its prompt and its answer."""
        return cls(pool)

    def __len__(self) -> int:
        return len(self.pool)

    def __repr__(self) -> str:
        return f"Knowledge({len(self)} passages, {self.rejected.num_rows} rejected)"

    @property
    def rejected(self) -> Any:
        """The records that could not be used, a table: `file`, `line`, `reason`, `raw`."""
        return self.pool.rejected

    @property
    def inputs(self) -> tuple[str, ...]:
        """What was named to be read."""
        return self.pool.inputs

    @cached_property
    def passages(self) -> Passages:
        """All passages as a sequence of texts, read when they are asked for."""
        return Passages(self)

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of what the passages say, in order; not of ids, files or places in them."""
        return hashlib.blake2b(np.ascontiguousarray(self.pool.keys).tobytes(), digest_size=16).hexdigest()

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[list[str]]:
        """All passages in order, so many at a time."""
        for start in range(0, len(self), rows):
            yield self.read(np.arange(start, min(start + rows, len(self))))

    def read(self, rows: np.ndarray) -> list[str]:
        """The passages at these rows."""
        return [shown(turns) for turns in self.pool.take(("messages",), rows).column(0).to_pylist()]


class Passages(Sequence[str]):
    """The passages of a corpus, read when they are asked for."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge

    def __len__(self) -> int:
        return len(self._knowledge)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return self._knowledge.read(np.arange(*row.indices(len(self))))
        if not -len(self) <= row < len(self):
            raise IndexError(f"passage {row} asked of a corpus of {len(self)}")
        return self._knowledge.read(np.array([row % len(self)]))[0]

    def __iter__(self) -> Iterator[str]:
        for block in self._knowledge.blocks():
            yield from block


def shown(turns: Sequence[dict[str, Any]]) -> str:
    """A record as a passage: what user and assistant say, joined by an empty line."""
    return "\n\n".join(turn["content"] for turn in turns if turn["role"] not in UNSHOWN and turn["content"].strip())
