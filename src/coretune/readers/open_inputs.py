"""Inputs as streams of bytes, decompressed, that know how far they were read; and the raw record they are cut into."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import shutil
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from coretune.errors import PoolError
from coretune.readers.inflate import Inflated, is_compressed

HEAD = 1 << 16  # bytes that can be looked at before reading


class Record(NamedTuple):
    """One record as read: where it starts, its own bytes, and what they mean, or why they mean nothing.

    `line` counts from 1: the line of a line format or csv, else the number of the record. `raw` travels on untouched;
    `origin` is what goes to the rejected records where `raw` was made from it (csv).
    """

    line: int
    raw: bytes
    value: Any
    fault: str | None = None
    origin: bytes | None = None


class OpenInput:
    """An input being read. `stream` gives its bytes, decompressed; `converted` counts values that JSON cannot say."""

    def __init__(self, name: str, file: IO[bytes], total: int | None) -> None:
        self.name = name
        self.total = total
        self.seen = 0  # bytes of the file behind the records that came out, where reading jumps
        self.converted: Counter[str] = Counter()
        self._file = file
        self._inflated: list[Inflated] = []
        self.stream = _buffered(file)
        while is_compressed(self.head):
            self._inflated.append(Inflated(self.stream, self.head))
            self.stream = _buffered(self._inflated[-1])

    @property
    def head(self) -> bytes:
        """The next bytes of the stream, at most `HEAD`, without moving on; none at its end."""
        return self.stream.peek(HEAD)[:HEAD]

    @property
    def fault(self) -> str | None:
        """What is wrong with the compressed data; known when they were read to their end."""
        return next((each.fault for each in self._inflated if each.fault), None)

    def done(self) -> int:
        """Bytes of the file read so far."""
        return max(self.seen, 0 if self.total is None else self._file.tell())

    @contextlib.contextmanager
    def whole(self) -> Iterator[mmap.mmap]:
        """The content as memory that is read from disk when touched, spooled to a temporary file where it must be."""
        with contextlib.ExitStack() as stack:
            file = self._file
            if self._inflated or self.total is None:
                file = cast(IO[bytes], stack.enter_context(tempfile.TemporaryFile(prefix="coretune-")))
                shutil.copyfileobj(self.stream, file, 1 << 20)
                file.flush()
            yield mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _buffered(file: IO[bytes] | Inflated) -> io.BufferedReader:
    return io.BufferedReader(cast(io.RawIOBase, file), HEAD)


@contextlib.contextmanager
def open_input(name: str, path: Path | None) -> Iterator[OpenInput]:
    """Open a file, or standard input where `path` is None. Raises `PoolError` where it cannot be read."""
    try:
        with contextlib.ExitStack() as stack:
            if path is None:
                file, total = _standard_input(stack), None
            else:
                file = stack.enter_context(path.open("rb", buffering=0))
                about = os.fstat(file.fileno())
                total = about.st_size if stat.S_ISREG(about.st_mode) else None
            opened = OpenInput(name, file, total)
            if opened.head[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise PoolError(f"{name} is UTF-16; write it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW_FILE")
            yield opened
    except OSError as error:
        raise PoolError(f"{name} cannot be read: {error.strerror or error}") from error


def _standard_input(stack: contextlib.ExitStack) -> IO[bytes]:
    source = sys.stdin.buffer
    try:
        handle = source.fileno()
    except OSError:  # replaced by an object in memory
        return io.BytesIO(source.read())
    if os.isatty(handle):
        raise PoolError("'-' asked for standard input, which is a terminal; pipe records into it")
    return stack.enter_context(open(handle, "rb", buffering=0, closefd=False))
