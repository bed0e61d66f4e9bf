"""CSV and TSV into raw records: every value stays the text it is, and a row costs itself alone when it is broken."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from coretune.errors import PoolError
from coretune.readers.open_inputs import OpenInput, Record

LONGEST_FIELD = 2**31 - 1  # characters; Python's own limit is 131,072
DELIMITERS = {"csv": ",;\t", "tsv": "\t"}

_dump = json.JSONEncoder(ensure_ascii=False).encode


def read_csv(
    opened: OpenInput,
    kind: str,
    is_record: Callable[[Iterable[str]], bool],
    check: Callable[[Sequence[str], str], None],
) -> Iterator[Record]:
    """The rows of a table with a header; `raw` is the row as JSON, its columns in their order.

    The delimiter is the first of the usual ones whose header `is_record` knows. `check` raises `PoolError` for a
    header of no known format.
    """
    csv.field_size_limit(LONGEST_FIELD)
    text = io.TextIOWrapper(opened.stream, "utf-8-sig", "surrogateescape", newline="")
    try:
        rows = _rows(text, _delimiter(opened.head, kind, is_record))
        header: list[str] | None = None
        for line, source, row, fault in rows:
            if header is None:
                if fault is not None:
                    raise PoolError(f"{opened.name}: the header cannot be read ({fault})")
                header = _named(row, opened.name)
                check(header, opened.name)
            elif fault is None and len(row) != len(header):
                count = f"{len(row)} values where the header names {len(header)} columns"
                yield Record(line, source, None, f"wrong number of values: {count}")
            elif fault is not None:
                yield Record(line, source, None, fault)
            else:
                value = dict(zip(header, row, strict=True))
                yield Record(line, _dump(value).encode("utf-8", "surrogateescape"), value, None, source)
    finally:
        text.detach()


def _rows(text: io.TextIOWrapper, delimiter: str) -> Iterator[tuple[int, bytes, list[str], str | None]]:
    """Rows that are not blank: the line where each starts, its own bytes, its values, and what is wrong with it."""
    held: list[str] = []
    before = 0

    def lines() -> Iterator[str]:
        for line in text:
            held.append(line)
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    while True:
        row: list[str] = []
        fault = None
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = f"broken CSV: {error}"
        source = "".join(held).rstrip("\r\n")
        start, before = before + 1, before + len(held)
        held.clear()
        if not source or source.isspace():
            continue
        if fault == "broken CSV: unexpected end of data":
            fault = "broken CSV: a quote that opens in this row is never closed"
        elif fault is None and not source.isascii() and any("\udc80" <= letter <= "\udcff" for letter in source):
            fault = "invalid UTF-8: bytes of the row are no text"
        yield start, source.encode("utf-8", "surrogateescape"), row, fault


def split_header(head: bytes, kind: str, is_record: Callable[[Iterable[str]], bool]) -> list[str]:
    """The names in the first line that is not blank, split so that `is_record` knows them, if it can be."""
    return _split(head, _delimiter(head, kind, is_record))


def _delimiter(head: bytes, kind: str, is_record: Callable[[Iterable[str]], bool]) -> str:
    """The delimiter that makes a known header; the kind's own where none does."""
    known = (delimiter for delimiter in DELIMITERS[kind] if is_record(_split(head, delimiter)))
    return next(known, DELIMITERS[kind][0])


def _split(head: bytes, delimiter: str) -> list[str]:
    lines = head.decode("utf-8-sig", "replace").lstrip().splitlines()[:1]
    return next(csv.reader(lines, delimiter=delimiter), [])


def _named(header: Sequence[str], where: str) -> list[str]:
    """The column names; an empty one is called by its number. Raises `PoolError` where two are alike."""
    names = [name if name.strip() else f"column {i}" for i, name in enumerate(header, 1)]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise PoolError(f"{where}: two columns are called {twice[:48]!a}; give each its own name")
    return names
