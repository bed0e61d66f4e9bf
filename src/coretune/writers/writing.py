"""Writing records of a pool: as they came in, or converted; and those that were rejected. Files appear whole."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coretune.atomic import replacing
from coretune.errors import nearest
from coretune.pool import DATA, MESSAGE, Pool
from coretune.shapes import Int64
from coretune.writers.conversions import to_alpaca, to_messages, to_sharegpt
from coretune.writers.original_rows import original_rows

FORMATS = ("messages", "alpaca", "sharegpt", "parquet")
BLOCK = 4096  # rows at a time
STRING_OR_BREAK = re.compile(rb'("(?:[^"\\]++|\\.)*+")|(,?)[ \t]*+[\r\n]\s*+', re.DOTALL)

_dump = json.JSONEncoder(ensure_ascii=False).encode
log = logging.getLogger(__name__)


def write_records(
    pool: Pool, rows: Int64[np.ndarray, " k"] | Sequence[int], path: Path, format: str | None = None
) -> None:
    """Write these rows of the pool, in this order.

    Without a `format`: one raw record a line, as it came in; the line breaks of one that spans lines are taken out,
    and nothing else. `messages`, `alpaca` and `sharegpt` convert, one object a line. `parquet` keeps columns and types
    where all rows came from Parquet or Arrow files, and else holds messages. Raises `ValueError` for another format, or
    where Alpaca's form cannot hold a row; `PoolError` where a Parquet file that is needed again has changed.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if format is not None and format not in FORMATS:
        raise ValueError(f"format {format!r} asked; there are {', '.join(FORMATS)}{nearest(format, FORMATS)}")
    if format == "parquet":
        write_table(_as_table(pool, rows), path)
        return
    lines = _raw_lines(pool, rows) if format is None else _converted_lines(pool, rows, format)
    with replacing(path) as part, part.open("wb") as file:
        file.writelines(line + b"\n" for line in lines)


def write_rejected(pool: Pool, path: Path) -> None:
    """Write the rejected records, one JSON object a line: file, line, reason, and `raw`, or `raw_base64` if no text."""
    with replacing(path) as part, part.open("wb") as file:
        for batch in pool.rejected.to_batches(max_chunksize=BLOCK):
            for record in batch.to_pylist():
                raw = record.pop("raw") or b""
                try:
                    record["raw"] = raw.decode("utf-8")
                except UnicodeDecodeError:
                    record["raw_base64"] = base64.b64encode(raw).decode("ascii")
                file.write(_dump(record).encode("utf-8") + b"\n")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet."""
    with replacing(path) as part:
        pq.write_table(table, part, compression="zstd")


def on_one_line(raw: bytes) -> bytes:
    """A JSON text without the line breaks between its values, and the indents after them; its values untouched."""
    if b"\n" not in raw and b"\r" not in raw:
        return raw
    return STRING_OR_BREAK.sub(lambda found: found[1] or (b", " if found[2] else b""), raw)


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


def _raw_lines(pool: Pool, rows: np.ndarray) -> Iterator[bytes]:
    for block in _blocks(rows):
        yield from map(on_one_line, pool.take(("raw",), block).column("raw").to_pylist())


def _converted_lines(pool: Pool, rows: np.ndarray, format: str) -> Iterator[bytes]:
    records = _alpaca_records(pool, rows) if format == "alpaca" else _records(pool, rows, format)
    for record in records:
        yield _dump(record).encode("utf-8")


def _records(pool: Pool, rows: np.ndarray, format: str) -> Iterator[dict[str, Any]]:
    convert = {"messages": to_messages, "sharegpt": to_sharegpt}[format]
    for block in _blocks(rows):
        yield from map(convert, pool.examples(block))


def _alpaca_records(pool: Pool, rows: np.ndarray) -> list[dict[str, Any]]:
    """Every row in Alpaca's form; raises `ValueError` that names those which it cannot hold."""
    made, refused = [], []
    for block in _blocks(rows):
        raws = pool.take(("raw",), block).column("raw").to_pylist()
        for row, example, raw in zip(block.tolist(), pool.examples(block), raws, strict=True):
            record = to_alpaca(example, raw)
            if record is None:
                refused.append(row)
            else:
                made.append(record)
    if refused:
        shown = ", ".join(map(str, refused[:10])) + (", ..." if len(refused) > 10 else "")
        raise ValueError(
            f"format 'alpaca' asked, but {len(refused)} of {len(rows)} rows are no single question and answer "
            f"(more turns, or tools): rows {shown}; --format messages or sharegpt holds them"
        )
    return made


def _as_table(pool: Pool, rows: np.ndarray) -> pa.Table:
    """The rows with the columns of their Parquet files, or else as messages with their scalar columns."""
    table = original_rows(pool, rows)
    if table is not None:
        return table
    log.info("not all records came from Parquet or Arrow files: written as messages")
    own = ("id", "messages", "tools", "source", "lang")
    scalars = [name for name in pool.table.column_names if name.startswith(DATA)]
    names = [*own, *(name for name in scalars if name.removeprefix(DATA) not in own)]
    table = pool.take(names, rows).rename_columns([name.removeprefix(DATA) for name in names])
    table = table.set_column(1, "messages", _without_empty_extra(table.column("messages")))
    return table.select([name for name in table.column_names if table.column(name).null_count < table.num_rows])


def _without_empty_extra(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Conversations without the field for a turn's other keys, where no turn has any."""
    turns = pc.list_flatten(column)
    if any(chunk.field("extra").null_count < len(chunk) for chunk in turns.chunks):
        return column
    return column.cast(pa.large_list(pa.struct([field for field in MESSAGE if field.name != "extra"])))
