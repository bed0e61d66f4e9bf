"""Files into a corpus: instruction records, texts in a column, plain text and markdown; every record accounted for."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from coretune.errors import PoolError
from coretune.formats import Layout, Parsed, Recogniser
from coretune.knowledge.corpus import Knowledge
from coretune.knowledge.splitting import join_paragraphs, split_text
from coretune.pool import REJECTED, Message, Pool
from coretune.readers import pool_cache
from coretune.readers.inputs import ABOUT_DATA, Source, find_sources
from coretune.readers.json_records import BOM
from coretune.readers.open_inputs import OpenInput, Record, open_input
from coretune.readers.pool_table import PoolTable
from coretune.readers.record_files import COMPRESSED, KINDS, read_records
from coretune.turns import Unusable, kind_of

log = logging.getLogger(__name__)

VERSION = "1"  # of what the same files become
TEXT_KINDS = (".txt", ".text", ".md", ".markdown", ".rst")
TEXT_KEYS = ("text", "passage", "content", "contents", "document")  # the first of them that a record has
TEXT = "text"
UNLIMITED = 1 << 62  # bytes
EVERY_RECORDS = 256  # between two calls of `progress`

Progress = Callable[[str, int, int | None], None]


def read_knowledge(
    *inputs: str | Path, progress: Progress | None = None, map_above_bytes: int = pool_cache.MAP_ABOVE_BYTES
) -> Knowledge:
    """Read a corpus, in the order given: files, folders of them, globs, hub data sets.

    Records of the formats that pools have become a passage each, prompt and answer. Records with a text (`TEXT_KEYS`,
    after its `title` if it has one), JSON texts, and text and markdown files are split at paragraph ends into passages
    of at most 200 words. What cannot be read stands in `Knowledge.rejected` with its reason. A corpus above
    `map_above_bytes` is written to the user's cache once and mapped. `progress(stage, done, total)` is told the bytes
    read. Raises `PoolError` where an input cannot be read or holds no passage.
    """
    sources = find_sources([place for given in inputs for place in _files(given)])
    address = pool_cache.address(sources, {"knowledge": VERSION})
    tables = pool_cache.find(address) if address is not None else None
    if tables is None:
        tables = _read(sources, address, map_above_bytes, progress)
    pool = Pool(tables.table, rejected=tables.rejected, formats=tables.formats, inputs=[str(each) for each in inputs])
    log.info("%s: %d passages read, %d records rejected", pool.inputs, len(pool), pool.rejected.num_rows)
    return Knowledge(pool)


def corpus_of(texts: Iterable[str]) -> Pool:
    """Texts as the pool under a corpus, one passage each."""
    name = "texts"
    with PoolTable([name], [name], [name], folder=pool_cache.cache_folder(), limit_bytes=UNLIMITED) as made:
        for number, text in enumerate(texts, 1):
            _add(made, 0, Record(number, b"", None), [text])
        tables = _finished(made, None, UNLIMITED)
    return Pool(tables.table, rejected=tables.rejected, formats=tables.formats)


def _files(given: str | Path) -> list[str | Path]:
    """The files that one input names; a folder's are those of known kinds, sorted by path, hidden ones passed over."""
    path = Path(given)
    if path.is_dir():
        return _in_folder(path)
    if path.exists() or not glob.has_magic(str(given)):
        return [given]
    matches = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]  # noqa: PTH207
    files: list[str | Path] = [match for match in matches if match.is_file()]
    return files or [file for match in matches for file in _in_folder(match)] or [given]


def _in_folder(folder: Path) -> list[str | Path]:
    found: list[Path] = []
    others = 0
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            known = not name.startswith(".") and name not in ABOUT_DATA and _suffix(name) in (*KINDS, *TEXT_KINDS)
            others += not known
            found += [Path(place, name)] if known else []
    if not found:
        raise PoolError(
            f"{folder} holds no file that can be read as knowledge: of {others} files, none ends in "
            f"{', '.join((*TEXT_KINDS, *KINDS))} (with {' or '.join(COMPRESSED)} too)"
        )
    if others:
        log.warning("%s: %d files of other kinds were passed over", folder, others)
    return list(sorted(found))


def _suffix(name: str) -> str:
    """What a name says of its kind, whatever its compression."""
    path = Path(name)
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSED else path).suffix.lower()


def _read(
    sources: Sequence[Source], address: str | None, limit_bytes: int, progress: Progress | None
) -> pool_cache.Tables:
    names, shorts, stems = zip(*((source.name, source.short, source.stem) for source in sources), strict=True)
    recogniser = Recogniser()
    recogniser.layouts = (*recogniser.layouts, *(Layout(TEXT, turns=key) for key in TEXT_KEYS))
    with PoolTable(names, shorts, stems, folder=pool_cache.cache_folder(), limit_bytes=limit_bytes) as made:
        for file, source in enumerate(sources):
            _take_source(made, file, source, recogniser, progress)
        return _finished(made, address, limit_bytes)


def _finished(made: PoolTable, address: str | None, limit_bytes: int) -> pool_cache.Tables:
    """What was taken, in memory or, above the limit, mapped. Raises `PoolError` where that is nothing."""
    schema, batches = made.finish()
    if not made.rows:
        first = next((batch.slice(0, 1).to_pylist()[0] for batch in made.rejected()), None)
        why = f"; the first record rejected is line {first['line']}: {first['reason']}" if first else ""
        raise PoolError(f"what was named as knowledge holds no passage{why}. Give text, or records with an answer")
    if made.nbytes > limit_bytes:
        return pool_cache.keep(address, schema, batches, made.rejected(), made.formats)
    rejected = pa.Table.from_batches(list(made.rejected()), REJECTED).combine_chunks()
    return pool_cache.Tables(
        pa.Table.from_batches(list(batches), schema).combine_chunks(), rejected, dict(made.formats)
    )


def _take_source(made: PoolTable, file: int, source: Source, recogniser: Recogniser, progress: Progress | None) -> None:
    """All of one source."""
    if source.dataset is not None:
        from coretune.readers.hub import read_dataset

        for record in read_dataset(source.dataset, recogniser, Counter()):
            _take(made, file, record, recogniser)
        return
    with open_input(source.name, source.path) as opened:
        plain = _suffix(source.name) in TEXT_KINDS
        try:
            records = _paragraph_passages(opened) if plain else read_records(opened, recogniser)
            for number, record in enumerate(records):
                _take(made, file, record, recogniser)
                if progress is not None and number % EVERY_RECORDS == 0:
                    progress("reading knowledge", opened.done(), opened.total)
        except PoolError as error:
            if "--columns" not in str(error):
                raise
            fitting = (
                f"{str(error).partition(';')[0]}; a corpus has a column {', '.join(TEXT_KEYS)}, or prompt and answer"
            )
            raise PoolError(fitting) from error


def _take(made: PoolTable, file: int, record: Record, recogniser: Recogniser) -> None:
    """One record as passages, or as a reject with its reason."""
    reason = record.fault
    if reason is None:
        try:
            found = _understood(record.value, recogniser)
            if isinstance(found, Parsed):
                made.add(file, record.line, record.raw, found)
            else:
                _add(made, file, record, found)
            return
        except Unusable as error:
            reason = str(error)
        except RecursionError:
            reason = "nested too deep: more levels than can be read"
    made.reject(file, record.line, reason, record.raw if record.origin is None else record.origin)


def _understood(value: Any, recogniser: Recogniser) -> Parsed | list[str]:
    """The example in a record, or the passages of its text. Raises `Unusable`."""
    if isinstance(value, str):
        return list(split_text(value))
    fitting = recogniser.fitting(value) if isinstance(value, dict) else ()
    layout = next((each for each in fitting if all(value[key] is not None for key in each.needs)), None)
    if layout is None or layout.name != TEXT:
        return recogniser.parse(value)
    text, title = value[layout.turns], value.get("title")
    if not isinstance(text, str):
        raise Unusable(f"wrong type: field {layout.turns!r} is {kind_of(text)}, not text")
    head = f"{title.strip()}\n\n" if isinstance(title, str) and title.strip() and text.strip() else ""
    return list(split_text(head + text))


def _add(made: PoolTable, file: int, record: Record, passages: Sequence[str]) -> None:
    """The passages of one record; a record without any is a reject."""
    if not any(passage.strip() for passage in passages):
        made.reject(file, record.line, "no text: there is nothing but space", record.raw)
        return
    for passage in passages:
        try:
            message = Message("user", passage)
            made.add(file, record.line, b"", Parsed(TEXT, [message], None, None, None, None, {}))
        except Unusable as error:
            made.reject(file, record.line, str(error), record.raw)


def _paragraph_passages(opened: OpenInput) -> Iterator[Record]:
    """The passages of a text file, and its paragraphs that are no UTF-8 as records with a fault."""
    faults: list[Record] = []

    def readable() -> Iterator[tuple[int, str]]:
        for line, raw in _paragraphs(opened.stream):
            try:
                yield line, raw.decode("utf-8")
            except UnicodeDecodeError as error:
                what = f"invalid UTF-8: byte 0x{raw[error.start]:02x} in the paragraph"
                faults.append(Record(line, raw, None, what))

    for line, passage in join_paragraphs(readable()):
        yield Record(line, passage.encode(), passage)
    yield from faults
    if opened.fault is not None:
        yield Record(0, b"", None, f"torn end: {opened.fault}")


def _paragraphs(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Paragraphs, with the line where each starts: what stands between blank lines."""
    held: list[bytes] = []
    start = 1
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(BOM) if number == 1 else line
        if text.strip():
            if not held:
                start = number
            held.append(text)
        elif held:
            yield start, b"".join(held)
            held = []
    if held:
        yield start, b"".join(held)
