"""Record batches in memory up to a size, then in a file: what is being read never has to fit in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from coretune.errors import PoolError


@contextmanager
def room_for_large_pools(folder: Path) -> Iterator[None]:
    """Turn a folder that cannot be written, or is full, into a `PoolError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise PoolError(
            f"the pool is too large to be held in memory, and {folder} cannot be written: {error.strerror or error}; "
            "set XDG_CACHE_HOME to a folder with room"
        ) from error


class Spool:
    """Batches in order, each with its own schema; above `limit_bytes` they move to a temporary file in `folder`."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._batches: list[pa.RecordBatch] = []
        self._path: Path | None = None
        self._file: Any = None
        self.nbytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._batches.clear()
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    @property
    def in_memory(self) -> bool:
        """Whether the batches are held in memory."""
        return self._path is None

    def append(self, batch: pa.RecordBatch) -> None:
        """One more batch."""
        self.nbytes += batch.nbytes
        self._batches.append(batch)
        if self.nbytes > self._limit_bytes:
            with room_for_large_pools(self._folder):
                self._write_out()

    def _write_out(self) -> None:
        if self._path is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".reading-", suffix=".arrows", dir=self._folder)
            os.close(handle)
            self._path = Path(name)
            self._file = pa.OSFile(name, "wb")
        for batch in self._batches:
            with pa.ipc.new_stream(self._file, batch.schema) as writer:
                writer.write_batch(batch)
        self._file.flush()
        self._batches.clear()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The batches, in order; any number of times, but not while more are appended."""
        if self._path is None:
            yield from self._batches
            return
        source = pa.OSFile(str(self._path), "rb")
        while source.tell() < source.size():
            yield from pa.ipc.open_stream(source)
