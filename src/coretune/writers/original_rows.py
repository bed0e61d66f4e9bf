"""Rows of Parquet and Arrow files with the columns and types that they had, for pools that were read from such."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coretune.errors import PoolError
from coretune.pool import Pool
from coretune.readers.arrow_records import records_of
from coretune.readers.record_files import MAGIC, kind_of_name
from coretune.shapes import Int64

MAGIC_BYTES = 6


def original_rows(pool: Pool, rows: Int64[np.ndarray, " k"]) -> pa.Table | None:
    """These rows of the pool as they stand in their files, in this order; None where some are from other files.

    Raises `PoolError` where a file is gone or has changed since it was read, or the files' columns do not go together.
    """
    facts = pool.take(("file", "line", "raw"), np.asarray(rows, dtype=np.int64))
    names = np.array(facts.column("file").to_pylist(), dtype=object)
    kinds = {name: _kind(name) for name in dict.fromkeys(names)}
    if None in kinds.values() or not kinds:
        return None
    lines, raws = facts.column("line").to_numpy() - 1, facts.column("raw")
    parts, order = [], []
    for name, kind in kinds.items():
        mine = np.flatnonzero(names == name)
        mine = mine[np.argsort(lines[mine], kind="stable")]
        part = _rows_of_file(Path(name), str(kind), lines[mine])
        _check_unchanged(part, raws.take(pa.array(mine)).to_pylist(), name)
        parts.append(part)
        order.append(mine)
    try:
        together = pa.concat_tables(parts, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise PoolError(
            f"{', '.join(kinds)} have columns of different types ({error}); write them as messages instead"
        ) from error
    return together.take(pa.array(np.argsort(np.concatenate(order), kind="stable")))


def _kind(name: str) -> str | None:
    """`parquet` or `arrow` for the name of such a file, None for any other."""
    path = Path(name)
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(MAGIC_BYTES)
        return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if kind_of_name(name) in ("parquet", "arrow"):
        raise PoolError(f"{name}, which the pool was read from, is there no more, so its columns cannot be written")
    return None


def _rows_of_file(path: Path, kind: str, rows: Int64[np.ndarray, " k"]) -> pa.Table:
    """Rows, in rising order, of one file."""
    parts = []
    before = 0
    try:
        for table in _pieces(path, kind):
            inside = rows[(rows >= before) & (rows < before + table.num_rows)] - before
            if len(inside):
                parts.append(table.take(pa.array(inside)))
            before += table.num_rows
        return pa.concat_tables(parts)
    except (pa.ArrowException, OSError) as error:
        raise PoolError(f"{path} cannot be read again: {error}") from error


def _pieces(path: Path, kind: str) -> Iterator[pa.Table]:
    """The file in parts, one after the other."""
    if kind == "parquet":
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)
        return
    with pa.memory_map(str(path)) as source:
        if source.read(MAGIC_BYTES) == b"ARROW1":
            reader = pa.ipc.open_file(source)
            for place in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(place)])
        else:
            source.seek(0)
            for batch in pa.ipc.open_stream(source):
                yield pa.Table.from_batches([batch])


def _check_unchanged(table: pa.Table, raws: list[bytes], name: str) -> None:
    """Raise `PoolError` unless these rows still say what was read."""
    tally: Counter[str] = Counter()
    now = [record.raw for batch in table.to_batches() for record in records_of(batch, 0, tally)]
    if now != raws:
        raise PoolError(f"{name} has changed since it was read; read the pool again")
