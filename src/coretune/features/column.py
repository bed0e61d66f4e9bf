"""Numbers that come with the data: a column of the records, or a file of scores joined by id.

These are plain functions, not features. A feature is found in the store by what an example says, whatever its id,
source or place in a file; a number beside the text may differ between two records that say the same, and costs
nothing to read again. So it is read from the pool at hand, and whoever uses it excludes rows without a number.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coretune.errors import PoolError, nearest
from coretune.pool import Pool
from coretune.shapes import Float32

SEPARATORS = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".ndjson")

Record = tuple[int, dict[str, Any]]  # line (row of a parquet file), and what stands there


@dataclass(frozen=True)
class Scores:
    """Scores of a pool's rows, NaN where the file has none.

    `name` is the column they were in; `rows_without` counts rows of the pool, `ids_unknown` ids of the file that the
    pool does not have.
    """

    values: Float32[np.ndarray, " n"]
    name: str
    rows_without: int
    ids_unknown: int


def column(pool: Pool, name: str) -> Float32[np.ndarray, " n"]:
    """The number that each record has under `name`, NaN where it has none; text that is a number (csv) is read as one.

    Raises `ValueError` where no record has such a field (naming the nearest) or where it holds other text.
    """
    values = pool.column(name)
    if values.dtype == object:
        said = [math.nan if value is None or not str(value).strip() else value for value in values.tolist()]
        try:
            return np.array([float(value) for value in said], dtype=np.float32)
        except ValueError as error:
            raise ValueError(f"column {name!r} is asked as a number a row, but holds text: {error}") from error
    return values.astype(np.float32)


def scores_file(pool: Pool, path: str | Path, *, score: str | None = None, id: str = "id") -> Scores:
    """The scores of a csv, tsv, jsonl (each also .gz) or parquet file, joined to the pool by the records' ids.

    `score` and `id` name the file's columns; `score` may be left out where one column besides `id` is left. Empty
    values are missing. Raises `PoolError` where the file cannot be read, a score is no number, an id stands twice with
    different scores, or no id is one of the pool's.
    """
    path = Path(path)
    found: dict[str, float] = {}
    for line, record in _records(path):
        score = score or _only_other(path, record, id)
        for name in (id, score):
            if name not in record:
                raise PoolError(f"{path}:{line} has no {name!r}; it has {', '.join(record)}{nearest(name, record)}")
        key, value = str(record[id]), _number(path, line, record[score])
        before = found.setdefault(key, value)
        if before != value and not (math.isnan(before) and math.isnan(value)):
            raise PoolError(f"{path}:{line}: id {key!r} has the score {value:g}, and {before:g} further up; keep one")
    ids = pool.take(("id",)).column(0).to_pylist()
    known = set(ids) & found.keys()
    if score is None or not known:
        raise PoolError(_no_match(path, list(found), ids))
    values = np.array([found.get(each, math.nan) for each in ids], dtype=np.float32)
    return Scores(values, score, int(np.isnan(values).sum()), len(found) - len(known))


def _no_match(path: Path, found: list[str], ids: list[str]) -> str:
    if not found:
        return f"{path} holds no scores; it needs a column of ids and one of numbers"
    return f"none of the {len(found)} ids in {path}, as {found[0]!r}, is one of the pool's {len(ids)}, as {ids[:1]}"


def _only_other(path: Path, record: dict[str, Any], id: str) -> str:
    """The one column besides the id. Raises `PoolError` where there are several, or none."""
    others = [name for name in record if name != id]
    if len(others) != 1:
        raise PoolError(f"{path} has the columns {', '.join(record)}; say which one holds the score, and which the id")
    return others[0]


def _number(path: Path, line: int, value: Any) -> float:
    """A score as a number, NaN where there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise PoolError(
            f"{path}:{line}: the score {value!r} is no number; leave it empty where there is none"
        ) from error


def _records(path: Path) -> Iterator[Record]:
    """The records of a file of scores, with their lines. Raises `PoolError` where it cannot be read."""
    kind = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    read = _from_lines if kind in LINES else _from_table if kind in SEPARATORS else None
    if kind != ".parquet" and read is None:
        raise PoolError(f"{path} is asked as a file of scores; give .csv, .tsv, .jsonl (or these with .gz) or .parquet")
    try:
        if read is None:
            yield from enumerate(pq.read_table(path).to_pylist(), start=1)
            return
        opened = gzip.open if path.suffix.lower() == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as text:
            yield from read(path, text, SEPARATORS.get(kind, ""))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise PoolError(f"the scores in {path} cannot be read: {error}") from error


def _from_lines(path: Path, text: IO[str], _: str) -> Iterator[Record]:
    for line, said in enumerate(text, start=1):
        if not said.strip():
            continue
        try:
            record = json.loads(said)
        except ValueError as error:
            raise PoolError(
                f"{path}:{line} is not JSON ({error}); every line is an object with an id and a score"
            ) from error
        if not isinstance(record, dict):
            raise PoolError(f"{path}:{line} is not an object with an id and a score, but {said.strip()[:40]}")
        yield line, record


def _from_table(path: Path, text: IO[str], separator: str) -> Iterator[Record]:
    reader = csv.DictReader(text, delimiter=separator, strict=True)
    for record in reader:
        if None in record or None in record.values():
            raise PoolError(
                f"{path}:{reader.line_num} has another number of values than its header of {reader.fieldnames}"
            )
        yield reader.line_num, record
