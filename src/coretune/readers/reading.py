"""Reading pools: from whatever a user names to a `Pool`, in which every record given is an example or a reject."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from coretune.errors import PoolError
from coretune.formats import Recogniser
from coretune.pool import REJECTED, Pool
from coretune.readers import pool_cache
from coretune.readers.advice import suggestion
from coretune.readers.inputs import Source, find_sources
from coretune.readers.json_records import decode
from coretune.readers.open_inputs import Record, open_input
from coretune.readers.pool_table import PoolTable
from coretune.readers.record_files import read_records
from coretune.turns import Unusable

STAGE = "reading"
EVERY_SECONDS = 0.2  # between two calls of `progress`

Progress = Callable[[str, int, int | None], None]
log = logging.getLogger(__name__)


def read_pool(
    *inputs: str | Path,
    columns: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    map_above_bytes: int = pool_cache.MAP_ABOVE_BYTES,
) -> Pool:
    """Read instruction data as one pool, in the order given.

    An input is a file (json, jsonl, csv, tsv, parquet, arrow; gzip or zstd around it), a folder or glob of such, `-`
    for standard input, or a hub data set, `owner/name[/config][:split]`. Record formats are recognised from the records
    (`coretune.formats.KNOWN`), or `columns` names the keys to use: {"prompt": "Question", "completion": "Best Answer"};
    its fields are `coretune.formats.FIELDS`. Every record is an example of the pool or stands in `Pool.rejected` with
    its file, line, reason (`kind: detail`) and bytes.

    `progress(stage, done, total)` is called with the bytes read so far. Pools above `map_above_bytes` are written to
    the user's cache once and memory-mapped. Raises `PoolError` where an input cannot be read, a table's columns make
    no known format, or no record at all is usable; `ValueError` where `columns` are not understood.
    """
    recogniser = Recogniser(columns)
    sources = find_sources(inputs)
    names = tuple(str(each) for each in inputs)
    address = pool_cache.address(sources, recogniser.columns)
    watch = _Watch(sources, progress)
    tables = pool_cache.find(address) if address is not None else None
    if tables is None:
        tables = _read(sources, recogniser, watch, address, map_above_bytes)
    watch.finish()
    log.info("%s: %d records read, %d rejected", ", ".join(names), tables.table.num_rows, tables.rejected.num_rows)
    return Pool(tables.table, rejected=tables.rejected, formats=tables.formats, inputs=names)


def _read(
    sources: Sequence[Source], recogniser: Recogniser, watch: _Watch, address: str | None, limit_bytes: int
) -> pool_cache.Tables:
    names, shorts, stems = zip(*((source.name, source.short, source.stem) for source in sources), strict=True)
    with PoolTable(names, shorts, stems, folder=pool_cache.cache_folder(), limit_bytes=limit_bytes) as made:
        for file, source in enumerate(sources):
            for record in _records(source, recogniser, watch):
                _take(made, file, record, recogniser)
        schema, batches = made.finish()
        unmet = sorted(set(recogniser.columns.values()) - recogniser.met)
        if not made.rows:
            raise PoolError(_nothing_usable(names, made.rejected()))
        if unmet:
            raise PoolError(f"--columns names {unmet[0]!r}, which no record of {_listed(names)} has")
        if made.nbytes > limit_bytes:
            return pool_cache.keep(address, schema, batches, made.rejected(), made.formats)
        table = pa.Table.from_batches(list(batches), schema).combine_chunks()
        rejected = pa.Table.from_batches(list(made.rejected()), REJECTED).combine_chunks()
        return pool_cache.Tables(table, rejected, dict(made.formats))


def _records(source: Source, recogniser: Recogniser, watch: _Watch) -> Iterator[Record]:
    """The records of one source; says what was converted."""
    if source.dataset is not None:
        from coretune.readers.hub import read_dataset

        converted: Counter[str] = Counter()
        yield from read_dataset(source.dataset, recogniser, converted)
    else:
        with open_input(source.name, source.path) as opened:
            for number, record in enumerate(read_records(opened, recogniser)):
                if number % 64 == 0:
                    watch.at(opened.done())
                yield record
        converted = opened.converted
        watch.passed(opened.total or 0)
    counts = ", ".join(f"{count} x {kind}" for kind, count in sorted(converted.items()) if count)
    if counts:
        log.warning("%s: values that JSON cannot say were converted in the records: %s", source.name, counts)


def _take(made: PoolTable, file: int, record: Record, recogniser: Recogniser) -> None:
    """One record as an example, or as a reject with the reason."""
    reason = record.fault
    if reason is None:
        try:
            made.add(file, record.line, record.raw, recogniser.parse(record.value))
            return
        except Unusable as error:
            reason = str(error)
        except RecursionError:
            reason = "nested too deep: more levels than can be read"
    made.reject(file, record.line, reason, record.raw if record.origin is None else record.origin)


def _nothing_usable(names: Sequence[str], rejected: Iterator[pa.RecordBatch]) -> str:
    """What to say of inputs without one usable record: how many there were, why none was, what may help."""
    table = pa.Table.from_batches(list(rejected), REJECTED)
    if not table.num_rows:
        return f"{_listed(names)}: no records in it"
    first = table.slice(0, 1).to_pylist()[0]
    kinds = Counter(reason.partition(":")[0] for reason in table.column("reason").to_pylist())
    counts = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(4))
    advice = ""
    if first["reason"].startswith("missing field"):
        value = decode(1, first["raw"]).value
        advice = f". {suggestion(list(value))}" if isinstance(value, dict) else ""
    place = f"the first is line {first['line']} of {first['file']}: {first['reason']}"
    return f"{_listed(names)}: none of {table.num_rows} records is usable ({counts}); {place}{advice}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class _Watch:
    """Tells `progress` how many bytes of all the files were read, five times a second at most, and once at the end."""

    def __init__(self, sources: Sequence[Source], progress: Progress | None) -> None:
        sizes = [source.path.stat().st_size if source.path and source.path.is_file() else None for source in sources]
        self._total = None if None in sizes else sum(size for size in sizes if size)
        self._progress = progress
        self._before = self._done = 0
        self._next = time.monotonic()

    def at(self, done: int) -> None:
        """So many bytes of the present file are read."""
        self._done = max(self._done, self._before + done)
        if self._progress is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY_SECONDS
            self._progress(STAGE, self._done, self._total)

    def passed(self, size: int) -> None:
        """All of the present file, of this size, is read."""
        self._before += size

    def finish(self) -> None:
        """All is read."""
        if self._progress is not None:
            done = self._done if self._total is None else self._total
            self._progress(STAGE, done, self._total)
