"""The records' top-level scalars as columns, where a key has values of one type in every record that has it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pyarrow as pa

from coretune.formats import Scalar
from coretune.pool import DATA

MOST_COLUMNS = 256  # further keys stay in the raw records alone
EXACT = 2**53  # whole numbers up to here are exact as float64
LARGEST = 2**63 - 1

log = logging.getLogger(__name__)


class ScalarColumns:
    """Learns batch by batch (`arrays`) what types each key has, and so what its column is in the end (`fields`).

    Whole numbers together with others are float64, where that is exact. A key with values of several types, whole
    numbers beyond 64 bits, or text that is not Unicode makes no column.
    """

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}
        self._beyond = 0

    def arrays(self, records: Sequence[dict[str, Scalar]]) -> dict[str, pa.Array]:
        """Columns of one batch, by `data.NAME`, each of the type that its values have in this batch."""
        for name in (name for record in records for name in record if name not in self._seen):
            if len(self._seen) < MOST_COLUMNS:
                self._seen[name] = set()
            else:
                self._beyond += 1
        found = {}
        for name, seen in self._seen.items():
            values = [record.get(name) for record in records]
            kinds = _kinds(values)
            seen.update(kinds)
            kind = _column_type(kinds)
            if kind is not None and _column_type(seen) is not None:
                found[DATA + name] = pa.array(values, kind)
        return found

    def fields(self) -> list[pa.Field]:
        """The scalar columns of the pool, in order of first appearance. Says what was left out."""
        typed = {name: _column_type(seen) for name, seen in self._seen.items()}
        mixed = [name for name, kind in typed.items() if kind is None and self._seen[name]]
        if mixed:
            log.info("keys with values of several types stay in the raw records alone: %s", ", ".join(mixed[:20]))
        if self._beyond:
            log.warning(
                "more than %d top-level keys: %d values are in the raw records alone", MOST_COLUMNS, self._beyond
            )
        return [pa.field(DATA + name, kind) for name, kind in typed.items() if kind is not None]


def _kinds(values: Sequence[Scalar | None]) -> set[str]:
    """The types of these values: bool, int, wide (an int that no float64 may hold), float, string or other."""
    types = set(map(type, values)) - {type(None)}
    kinds = {{bool: "bool", int: "int", float: "float", str: "string"}[each] for each in types}
    if "int" in kinds:
        largest = max(abs(value) for value in values if type(value) is int)
        if largest > EXACT:
            kinds.add("wide" if largest <= LARGEST else "other")
    if "string" in kinds and not _is_unicode("".join(value for value in values if isinstance(value, str))):
        kinds.add("other")
    return kinds


def _column_type(kinds: set[str]) -> pa.DataType | None:
    """The type that holds values of all these kinds; None where none does."""
    if kinds in ({"bool"}, {"string"}):
        return pa.bool_() if kinds == {"bool"} else pa.string()
    if kinds and kinds <= {"int", "wide"}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {"int", "float"} else None


def _is_unicode(text: str) -> bool:
    try:
        text.isascii() or text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
