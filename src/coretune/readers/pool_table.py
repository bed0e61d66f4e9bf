"""Parsed records into the columns of a pool: batches as they come, ids and scalar columns when all have come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pyarrow as pa

from coretune.formats import Parsed, Scalar
from coretune.pool import MESSAGE, REJECTED, SCHEMA, Message, content_key
from coretune.readers.scalar_columns import ScalarColumns
from coretune.readers.spools import Spool
from coretune.readers.unique_ids import IdPlan, Row
from coretune.scripts_of_text import dominant_script
from coretune.turns import Unusable

BATCH_ROWS = 4096
BATCH_BYTES = 16 << 20  # of raw records


class PoolTable:
    """Takes examples (`add`) and rejected records (`reject`), and gives the finished columns, batch by batch.

    `files` are the inputs' names and `ids` the names for them in ids, `sources` what stands for a source where records
    name none. Above `limit_bytes` what was taken moves to temporary files in `folder`, removed at the end of the block.
    """

    def __init__(
        self, files: Sequence[str], ids: Sequence[str], sources: Sequence[str], *, folder: Path, limit_bytes: int
    ) -> None:
        self.formats: Counter[str] = Counter()
        self.rows = 0
        self._files, self._sources = pa.array(files, pa.string()), list(sources)
        self._names = list(files)
        self._plan = IdPlan(ids)
        self._scalars = ScalarColumns()
        self._spool, self._rejected = Spool(folder, limit_bytes), Spool(folder, limit_bytes)
        self._waiting: list[tuple[int, int, bytes, bytes, Parsed, str | None]] = []
        self._waiting_rejects: list[tuple[str, int, str, bytes]] = []
        self._waiting_bytes = 0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self._spool)
        self._open.enter_context(self._rejected)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, file: int, line: int, raw: bytes, parsed: Parsed) -> None:
        """One example. Raises `Unusable` where its text is not Unicode."""
        said = "\n".join([message.content for message in parsed.messages])
        extras = [message.extra for message in parsed.messages if message.extra is not None]
        _check_unicode([said, *extras, *filter(None, (parsed.tools, parsed.id, parsed.source, parsed.lang))])
        key = content_key(parsed.messages, parsed.tools)
        self._plan.add(parsed.id, key, file)
        self._waiting.append((file, line, raw, key, parsed, parsed.lang or dominant_script(said)))
        self.formats[parsed.format] += 1
        self.rows += 1
        self._count(raw)

    def reject(self, file: int, line: int, reason: str, raw: bytes) -> None:
        """One record that cannot be used."""
        printable = reason.encode("utf-8", "backslashreplace").decode()
        self._waiting_rejects.append((self._names[file], line, printable, raw))
        self._count(raw)

    def finish(self) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The schema and the batches of the pool, with ids and scalar columns settled."""
        self._flush()
        schema = pa.schema([*SCHEMA, *self._scalars.fields()])
        self._plan.settle(self._rows)
        return schema, self._finished(schema)

    def rejected(self) -> Iterator[pa.RecordBatch]:
        """The rejected records, once finished: batches of schema `REJECTED`."""
        return iter(self._rejected)

    @property
    def nbytes(self) -> int:
        """Size of all that was taken, in memory or not."""
        return self._spool.nbytes + self._rejected.nbytes

    def _count(self, raw: bytes) -> None:
        self._waiting_bytes += len(raw)
        waiting = len(self._waiting) + len(self._waiting_rejects)
        if waiting >= BATCH_ROWS or self._waiting_bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._spool.append(self._batch())
        if self._waiting_rejects:
            columns = zip(*self._waiting_rejects, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, REJECTED, strict=True)]
            self._rejected.append(pa.record_batch(arrays, schema=REJECTED))
        self._waiting, self._waiting_rejects, self._waiting_bytes = [], [], 0

    def _batch(self) -> pa.RecordBatch:
        """The waiting examples as a batch: ids are the records' own yet, scalars typed for themselves."""
        files, lines, raws, keys, parsed, langs = zip(*self._waiting, strict=True)
        sources = [each.source or self._sources[file] for each, file in zip(parsed, files, strict=True)]
        places = pa.DictionaryArray.from_arrays(pa.array(files, pa.int32()), self._files)
        messages = _messages([each.messages for each in parsed])
        values = {
            "id": [each.id for each in parsed],
            "line": lines,
            "raw": raws,
            "key": keys,
            "tools": [each.tools for each in parsed],
            "source": sources,
            "lang": langs,
        }
        columns = {name: pa.array(each, SCHEMA.field(name).type) for name, each in values.items()}
        columns |= {"file": places, "messages": messages}
        data: list[dict[str, Scalar]] = [each.data for each in parsed]
        ordered = {name: columns[name] for name in SCHEMA.names} | self._scalars.arrays(data)
        return pa.record_batch(list(ordered.values()), names=list(ordered))

    def _rows(self) -> Iterator[Row]:
        """Every row's own id, content hash and file, in order."""
        for batch in self._spool:
            yield from _row_facts(batch)

    def _finished(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in self._spool:
            ids = [self._plan.id_of(row + i, *facts) for i, facts in enumerate(_row_facts(batch))]
            row += batch.num_rows
            columns = [_column(batch, field) for field in schema]
            columns[schema.get_field_index("id")] = pa.array(ids, pa.large_string())
            yield pa.record_batch(columns, schema=schema)


def _row_facts(batch: pa.RecordBatch) -> Iterator[Row]:
    files = batch.column("file").indices.to_pylist()
    return zip(batch.column("id").to_pylist(), batch.column("key").to_pylist(), files, strict=True)


def _column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    """The batch's column of this name, in the pool's type; nulls where no record of the batch has it."""
    if field.name not in batch.schema.names:
        return pa.nulls(batch.num_rows, field.type)
    column = batch.column(field.name)
    return column if column.type == field.type else column.cast(field.type)


def _messages(conversations: Sequence[Sequence[Message]]) -> pa.Array:
    """Conversations as one column of the pool."""
    ends = [0]
    for messages in conversations:
        ends.append(ends[-1] + len(messages))
    every = [message for messages in conversations for message in messages]
    columns = [[getattr(message, field.name) for message in every] for field in MESSAGE]
    turns = pa.StructArray.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, MESSAGE, strict=True)], fields=list(MESSAGE)
    )
    offsets = pa.array(ends, pa.int64())
    return pa.LargeListArray.from_arrays(offsets, turns)


def _check_unicode(texts: Sequence[str]) -> None:
    """Raise `Unusable` where a text cannot be written as UTF-8."""
    for text in texts:
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                code = f"\\u{ord(text[error.start]):04x}"
                raise Unusable(f"lone surrogate: the text holds half a character, {code}") from error
