"""A run folder read back: its tables, arrays by row, and texts of the rows that are asked for."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coretune.errors import FolderError
from coretune.run_folder import RUN, SELECTION, STAGES
from coretune.shapes import Bool, Float, Int64

REJECTED = "rejected.jsonl"
REJECTED_SHOWN = 12
UNFINISHED = re.compile(r"\.(.+)\.part-\d+")  # what `run_folder.in_place_at_once` calls it until it is complete
TEXTS = ("id", "file", "excerpt")  # read for the rows on the page alone
FACTS = (
    *("row", "id", "file", "line", "duplicate_of", "excluded_by", "selected", "round", "rank", "gain", "weight"),
    *("cell", "source", "lang", "answer_tokens", "x", "y", "excerpt"),
)


@dataclass(frozen=True)
class Rejected:
    """Input records that could not be used: how many by reason, and the first few of them."""

    counts: Mapping[str, int] = field(default_factory=dict)
    shown: Sequence[Mapping[str, Any]] = ()

    @property
    def total(self) -> int:
        """All rejected records."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class RunFiles:
    """What a run folder holds. `table` is `selection.parquet` without its texts; row i is row i of the pool."""

    folder: Path
    run: Mapping[str, Any]
    table: pa.Table
    stages: Sequence[Mapping[str, Any]]
    rejected: Rejected

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def name(self) -> str:
        """The folder's name, also while it is still being written under a temporary one."""
        name = self.folder.absolute().name
        unfinished = UNFINISHED.fullmatch(name)
        return unfinished[1] if unfinished else name

    def section(self, name: str) -> Mapping[str, Any]:
        """A table of `run.toml`, empty where it has none."""
        found = self.run.get(name, {})
        return found if isinstance(found, Mapping) else {}

    @property
    def records(self) -> str:
        """The name of the file that holds the chosen records whole."""
        return next((path.name for path in sorted(self.folder.glob("selected.*"))), "selected.jsonl")

    def numbers(self, name: str) -> Float[np.ndarray, " n"]:
        """A column as float64 `(n,)`, NaN where it has no value or the folder no such column."""
        if name not in self.table.column_names:
            return np.full(len(self), np.nan)
        values = pc.cast(self.table[name], pa.float64()).to_numpy()
        return np.where(np.isfinite(values), values, np.nan)

    def groups(self, name: str) -> tuple[Int64[np.ndarray, " n"], list[str]]:
        """A text column as codes `(n,)`, -1 where it has no value, and the names that they stand for."""
        if name not in self.table.column_names:
            return np.full(len(self), -1, dtype=np.int64), []
        encoded = pc.dictionary_encode(self.table[name].cast(pa.large_string())).combine_chunks()
        parts = encoded.chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]
        whole = pa.concat_arrays(parts) if parts else pa.array([], pa.dictionary(pa.int32(), pa.large_string()))
        codes: np.ndarray = whole.indices.fill_null(-1).to_numpy().astype(np.int64)
        return codes, whole.dictionary.to_pylist()

    @cached_property
    def selected(self) -> Bool[np.ndarray, " n"]:
        """Which rows are chosen."""
        return np.asarray(np.nan_to_num(self.numbers("selected")) > 0)

    @cached_property
    def order(self) -> Int64[np.ndarray, " k"]:
        """The chosen rows in the order of picking."""
        rows = np.flatnonzero(self.selected)
        ranks = np.nan_to_num(self.numbers("rank")[rows], nan=np.inf)
        return np.asarray(rows[np.argsort(ranks, kind="stable")])

    @cached_property
    def excluded(self) -> Bool[np.ndarray, " n"]:
        """Which rows could not be chosen."""
        return np.asarray(self.groups("excluded_by")[0] >= 0)

    @cached_property
    def cells(self) -> Int64[np.ndarray, " n"]:
        """The cell of each row, -1 where it is in none."""
        return np.asarray(np.nan_to_num(self.numbers("cell"), nan=-1), dtype=np.int64)

    @cached_property
    def lengths(self) -> Float[np.ndarray, " n"]:
        """The answer's length of each row, in `unit`."""
        return np.asarray(np.nan_to_num(self.numbers("answer_tokens")))

    @property
    def unit(self) -> str:
        """What lengths are counted in: `tokens` or `characters`."""
        said: bytes = (self.table.schema.metadata or {}).get(b"length_unit", b"characters")
        return said.decode("utf-8", "replace")

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """The names of the score columns."""
        return tuple(
            each.name
            for each in self.table.schema
            if each.name not in FACTS and (pa.types.is_floating(each.type) or pa.types.is_integer(each.type))
        )

    def texts(self, rows: Int64[np.ndarray, " m"], names: Sequence[str] = TEXTS) -> dict[str, list[str]]:
        """Texts of these rows, in this order; the file is read in blocks and only these rows are kept."""
        wanted, place = np.unique(rows, return_inverse=True)
        file = pq.ParquetFile(self.folder / SELECTION)
        names = [name for name in names if name in file.schema_arrow.names]
        kept: dict[str, list[str]] = {name: [] for name in names}
        start = 0
        for batch in file.iter_batches(batch_size=16_384, columns=names):
            low, high = np.searchsorted(wanted, (start, start + batch.num_rows))
            here = pa.array(wanted[low:high] - start)
            for name in names:
                kept[name] += [value or "" for value in batch.column(name).take(here).to_pylist()]
            start += batch.num_rows
        return {name: [values[i] for i in place] for name, values in kept.items()}


def read_run(folder: Path) -> RunFiles:
    """Read a run folder. Raises `FolderError` where it is not a complete one."""
    for name in (RUN, SELECTION):
        if not (folder / name).is_file():
            raise FolderError(
                f"a report was asked of {folder}, which has no {name} and so is no finished run; "
                "give the folder of a finished run, or run its command again to finish it"
            )
    try:
        run = tomllib.loads((folder / RUN).read_text(encoding="utf-8"))
        schema = pq.read_schema(folder / SELECTION)
        table = pq.read_table(folder / SELECTION, columns=[name for name in schema.names if name not in TEXTS])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, pa.ArrowException) as error:
        raise FolderError(f"{folder} holds a run that cannot be read: {error}; run its command again") from error
    return RunFiles(folder, run, table.replace_schema_metadata(schema.metadata), _stages(folder), _rejected(folder))


def _stages(folder: Path) -> list[Mapping[str, Any]]:
    """The stages, in order; none where the file is absent."""
    path = folder / STAGES
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return [json.loads(line) for line in lines if line.strip()]


def _rejected(folder: Path) -> Rejected:
    """Counts by reason, and the first of each reason, from a file that may hold any number of large records."""
    counts: Counter[str] = Counter()
    shown: list[Mapping[str, Any]] = []
    if not (folder / REJECTED).is_file():
        return Rejected()
    with (folder / REJECTED).open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            reason = str(record.get("reason"))
            counts[reason] += 1
            if counts[reason] <= 3 and len(shown) < REJECTED_SHOWN:
                raw = record.get("raw")
                if raw is None:
                    raw = base64.b64decode(record.get("raw_base64") or "").decode("utf-8", "backslashreplace")
                shown.append({**record, "reason": reason, "raw": raw if isinstance(raw, str) else json.dumps(raw)})
    return Rejected(dict(counts.most_common()), shown)
