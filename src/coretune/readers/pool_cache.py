"""Large pools, written once as uncompressed Arrow and memory-mapped from then on.

A cached pool is a folder of `pool.arrow`, `rejected.arrow` and `about.json`, named by a digest of what it was read
from: paths, sizes, times of change, and named columns. It appears under its name whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from coretune.atomic import sync
from coretune.pool import REJECTED, SCHEMA
from coretune.readers.inputs import Source
from coretune.readers.spools import room_for_large_pools

VERSION = 1  # of what the readers make of the same bytes
ROWS = 65536  # of a batch in the file
MAP_ABOVE_BYTES = 256 << 20
UNFINISHED_SECONDS = 24 * 3600


class Tables(NamedTuple):
    """A pool's tables, and the counts by record format."""

    table: pa.Table
    rejected: pa.Table
    formats: dict[str, int]


def cache_folder() -> Path:
    """Where large pools are kept: `$XDG_CACHE_HOME/coretune/pools`, by default under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coretune" / "pools"


def address(sources: Sequence[Source], columns: Mapping[str, str]) -> str | None:
    """The name of the cached pool for these files as they are now; None where they are not all files."""
    facts: list[Any] = [VERSION, str(SCHEMA), sorted(columns.items())]
    for source in sources:
        if source.path is None or not source.path.is_file():
            return None
        about = source.path.stat()
        facts.append([source.name, source.short, str(source.path.resolve()), about.st_size, about.st_mtime_ns])
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def find(name: str) -> Tables | None:
    """The cached pool of this name; None where there is none."""
    return _load(cache_folder() / name) if (cache_folder() / name / "about.json").is_file() else None


def keep(
    name: str | None,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    rejected: Iterable[pa.RecordBatch],
    formats: Mapping[str, int],
) -> Tables:
    """Write a pool and map it: under `name`, or, without one, in files that go when the process ends.

    Raises `PoolError` where the cache cannot be written.
    """
    folder = cache_folder()
    with room_for_large_pools(folder), ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        part = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
        stack.callback(shutil.rmtree, part, ignore_errors=True)
        _write(part / "pool.arrow", schema, batches)
        _write(part / "rejected.arrow", REJECTED, rejected)
        (part / "about.json").write_text(json.dumps({"formats": dict(formats)}) + "\n", encoding="utf-8")
        for path in (*sorted(part.iterdir()), part):
            sync(path)
        if name is not None:
            _put(part, folder / name)
        tables = _load(part if name is None else folder / name)
    return tables


def _sweep(folder: Path) -> None:
    """Remove what readers that were killed left unfinished, when it is a day old."""
    for left in (*folder.glob(".writing-*"), *folder.glob(".reading-*")):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > UNFINISHED_SECONDS:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Batches as one uncompressed Arrow file, joined to `ROWS` rows each."""
    held: list[pa.RecordBatch] = []
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            held.append(batch)
            if sum(each.num_rows for each in held) >= ROWS:
                writer.write_batch(pa.concat_batches(held))
                held.clear()
        if held:
            writer.write_batch(pa.concat_batches(held))


def _put(part: Path, place: Path) -> None:
    """Move a finished folder to its place, unless another process was first."""
    try:
        part.rename(place)
    except OSError:
        if not (place / "about.json").is_file():
            raise
    sync(place.parent)


def _load(folder: Path) -> Tables:
    """Map a cached pool. The maps hold when the files are removed."""
    tables = [
        pa.ipc.open_file(pa.memory_map(str(folder / f"{name}.arrow"))).read_all() for name in ("pool", "rejected")
    ]
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    return Tables(tables[0], tables[1], about["formats"])
