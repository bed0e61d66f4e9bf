"""Row ids that are unique over a whole pool, from ids that may be repeated or missing.

A record's own id stays where no other record has it; else it is qualified by its file, `FILE:id`. A record without one
is called by its content hash in hex. Copies of either are numbered `-2`, `-3` in order.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from coretune.shapes import Int64

Row = tuple[str | None, bytes, int]  # the record's own id, its content hash, the number of its file


class IdPlan:
    """Learns of every row in order (`add`), decides (`settle`), and then gives each row its id (`id_of`).

    Memory is 20 bytes a row: ids are remembered by 8-byte hashes. Two ids of one hash (one pool of 1e8 rows in some
    thousands has such) only mean a qualified id where the plain one would have done.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._files = list(files)
        self._place = [files.index(name) for name in files]  # a file that is given twice is one
        self._own = array("Q")  # hash of the record's own id, 0 where it has none
        self._content = array("Q")  # half of the content hash
        self._file = array("i")
        self._qualified = np.empty(0, dtype=bool)
        self._copy: Int64[np.ndarray, " n"] = np.empty(0, dtype=np.int64)
        self._endings: dict[int, str] = {}

    def add(self, own: str | None, key: bytes, file: int) -> None:
        """The next row of the pool."""
        self._own.append(0 if own is None else _hash(own) or 1)
        self._content.append(int.from_bytes(key[:8], "little"))
        self._file.append(self._place[file])

    def settle(self, rows: Callable[[], Iterator[Row]]) -> None:
        """Decide on every id. `rows` gives the rows again; ids made here that meet a record's own are told apart."""
        own, content = np.array(self._own, dtype=np.uint64), np.array(self._content, dtype=np.uint64)
        file = np.array(self._file, dtype=np.uint64)
        has = own != 0
        _, kind, counts = np.unique(own, return_inverse=True, return_counts=True)
        self._qualified = has & (counts[kind] > 1)
        spread = np.uint64(0x9E3779B97F4A7C15)  # odd: keeps ids of different files apart
        self._copy = np.ones(len(own), dtype=np.int64)
        for these, group in ((self._qualified, own + spread * file), (~has, content)):
            self._copy[these] = _occurrence(group[these])
        if not has.any() or (has & ~self._qualified).all():
            return
        for attempt in range(2, 100):
            made = np.fromiter((_hash(self.id_of(i, *row)) for i, row in enumerate(rows())), dtype=np.uint64)
            again = np.flatnonzero(_occurrence(made) > 1)
            if not len(again):
                return
            self._endings.update((int(row), f"~{attempt}") for row in again)

    def id_of(self, row: int, own: str | None, key: bytes, file: int) -> str:
        """The id of a row, once settled."""
        name = key.hex() if own is None else f"{self._files[file]}:{own}" if self._qualified[row] else own
        copy = int(self._copy[row])
        return f"{name}{f'-{copy}' if copy > 1 else ''}{self._endings.get(row, '')}"


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _occurrence(values: np.ndarray) -> Int64[np.ndarray, " n"]:
    """For each value, how many of its kind stand up to and including it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(values) else np.empty(0, dtype=bool)
    places = np.arange(len(values), dtype=np.int64)
    starts = np.maximum.accumulate(np.where(first, places, 0))
    found = np.empty(len(values), dtype=np.int64)
    found[order] = places - starts + 1
    return found
