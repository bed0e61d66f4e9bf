"""Arrow tables (Parquet, IPC, hub data sets) into raw records: rows as JSON says them, conversions counted."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coretune.errors import PoolError
from coretune.readers.open_inputs import OpenInput, Record

ROWS = 1024  # rows turned into records at a time
TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
PLAIN = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, *TEXT)

_dump = json.JSONEncoder(ensure_ascii=False).encode


def read_parquet(opened: OpenInput, check: Callable[[Sequence[str], str], None]) -> Iterator[Record]:
    """The rows of a Parquet file. Raises `PoolError` where it is damaged or its columns make no known format."""
    with opened.whole() as buffer, _damage_is_clear(opened.name, "Parquet"):
        file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(buffer)))
        check(_names(file.schema_arrow, opened.name), opened.name)
        rows = 0
        for batch in file.iter_batches(batch_size=ROWS):
            yield from records_of(batch, rows, opened.converted)
            rows += batch.num_rows
            opened.seen = len(buffer) * rows // max(1, file.metadata.num_rows)


def read_arrow(opened: OpenInput, check: Callable[[Sequence[str], str], None]) -> Iterator[Record]:
    """The rows of an Arrow IPC file or stream. Raises `PoolError` as `read_parquet` does."""
    with opened.whole() as buffer, _damage_is_clear(opened.name, "Arrow"):
        source = pa.BufferReader(pa.py_buffer(buffer))
        if buffer[:6] == b"ARROW1":
            file = pa.ipc.open_file(source)
            schema, batches = file.schema, (file.get_batch(i) for i in range(file.num_record_batches))
        else:
            stream = pa.ipc.open_stream(source)
            schema, batches = stream.schema, iter(stream)
        check(_names(schema, opened.name), opened.name)
        rows = 0
        for batch in batches:
            batch.validate(full=True)
            yield from records_of(batch, rows, opened.converted)
            rows += batch.num_rows
            opened.seen = source.tell()


def records_of(batch: pa.RecordBatch, before: int, converted: Counter[str]) -> Iterator[Record]:
    """The rows of a batch; `before` rows came earlier. `raw` is the row as JSON, its columns in their order."""
    names = batch.schema.names
    for start in range(0, batch.num_rows, ROWS):
        piece = batch.slice(start, ROWS)
        columns = [plain_values(column, converted) for column in piece.columns]
        rows = zip(*columns, strict=True) if columns else [()] * piece.num_rows
        for number, values in enumerate(rows, before + start + 1):
            value = dict(zip(names, values, strict=True))
            yield _record(number, value)


def _record(number: int, value: dict[str, Any]) -> Record:
    text = _dump(value)
    try:
        return Record(number, text.encode("utf-8"), value)
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "surrogateescape")
        name = next(name for name, each in value.items() if not _is_text(_dump(each)))
        return Record(number, raw, None, f"invalid UTF-8: bytes of column {name!r} are no text")


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def plain_values(array: pa.Array, converted: Counter[str]) -> list[Any]:
    """The values of an Arrow array as JSON has them; those that it cannot say are converted, and counted by kind.

    Dates, times and decimals become their text, bytes text where they are UTF-8 and else base64, numbers that are not
    finite null. Invalid UTF-8 in text comes out as lone surrogates, one a byte.
    """
    kind = array.type
    if _is_plain(kind):
        try:
            return list(array.to_pylist())
        except UnicodeDecodeError:
            pass
    if pa.types.is_dictionary(kind):
        return plain_values(array.dictionary_decode(), converted)
    if isinstance(kind, pa.BaseExtensionType):
        return plain_values(array.storage, converted)
    if pa.types.is_struct(kind):
        return _structs(array, converted)
    if pa.types.is_map(kind):
        pairs = _lists(array.cast(pa.large_list(pa.struct([array.type.key_field, array.type.item_field]))), converted)
        return [None if each is None else _mapping(each) for each in pairs]
    if pa.types.is_nested(kind) and hasattr(kind, "value_type"):
        return _lists(array.cast(pa.large_list(kind.value_field)), converted)
    return _leaves(array, converted)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether JSON says every value of this type, and Arrow's own conversion gives it."""
    if pa.types.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    if pa.types.is_map(kind) or isinstance(kind, pa.BaseExtensionType):
        return False
    if pa.types.is_nested(kind):
        return hasattr(kind, "value_type") and _is_plain(kind.value_type)
    return any(test(kind) for test in PLAIN)


def _structs(array: pa.StructArray, converted: Counter[str]) -> list[Any]:
    names = [field.name for field in array.type]
    columns = [plain_values(column, converted) for column in array.flatten()]
    rows = zip(*columns, strict=True) if columns else [()] * len(array)
    valid = array.is_valid().to_pylist()
    return [dict(zip(names, row, strict=True)) if ok else None for ok, row in zip(valid, rows, strict=True)]


def _lists(array: pa.LargeListArray, converted: Counter[str]) -> list[Any]:
    ends = array.offsets.to_pylist()
    values = plain_values(array.values.slice(ends[0], ends[-1] - ends[0]), converted)
    valid = array.is_valid().to_pylist()
    first = ends[0]
    return [values[ends[i] - first : ends[i + 1] - first] if ok else None for i, ok in enumerate(valid)]


def _mapping(pairs: list[dict[str, Any]]) -> Any:
    """A map as an object where its keys are texts, else as a list of pairs."""
    entries = [tuple(pair.values()) for pair in pairs]
    return dict(entries) if all(isinstance(key, str) for key, _ in entries) else [list(entry) for entry in entries]


def _leaves(array: pa.Array, converted: Counter[str]) -> list[Any]:
    """Values of a type without fields."""
    kind = array.type
    if pa.types.is_run_end_encoded(kind):
        return plain_values(pc.run_end_decode(array), converted)
    if pa.types.is_floating(kind):
        numbers = array.to_pylist()
        finite = [None if number is None or not math.isfinite(number) else number for number in numbers]
        converted["number that is not finite -> null"] += finite.count(None) - array.null_count
        return finite
    if any(test(kind) for test in TEXT):
        data = array.cast(pa.large_binary()).to_pylist()
        return [None if each is None else each.decode("utf-8", "surrogateescape") for each in data]
    duration = pa.types.is_duration(kind)
    converted[f"{kind} -> {'number' if duration else 'text'}"] += len(array) - array.null_count
    if any(test(kind) for test in BINARY):
        return [None if each is None else _text_of(each) for each in array.to_pylist()]
    return list(array.cast(pa.int64() if duration else pa.string()).to_pylist())


def _text_of(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii")


def _names(schema: pa.Schema, where: str) -> list[str]:
    """The column names. Raises `PoolError` where two are alike."""
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise PoolError(f"{where}: two columns are called {twice[0][:48]!a}; give each its own name")
    return list(schema.names)


@contextmanager
def _damage_is_clear(where: str, what: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, NotImplementedError, MemoryError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise PoolError(f"{where} cannot be read as {what}: {first[:200]}; it may be damaged or cut short") from error
