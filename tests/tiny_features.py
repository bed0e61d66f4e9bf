"""Pools and features that need no model: what they measure can be worked out from the text."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from coretune.features import Measure, Measured, Ragged, Texts, place
from coretune.pool import SCHEMA, Example, Message, Pool, content_key


def tiny_pool(texts: Sequence[str] | range) -> Pool:
    """A pool with one row a text; a range stands for the texts `question 0`, `question 1`, and so on."""
    said = [f"question {each}" if isinstance(texts, range) else each for each in texts]
    turns = [(Message("user", text), Message("assistant", f"answer to {text}")) for text in said]
    columns = {
        "id": [str(row) for row in range(len(said))],
        "file": ["made"] * len(said),
        "line": list(range(1, len(said) + 1)),
        "raw": [text.encode() for text in said],
        "key": [content_key(turn) for turn in turns],
        "messages": [[{"role": m.role, "content": m.content, "extra": None} for m in turn] for turn in turns],
        "tools": [None] * len(said),
        "source": ["made"] * len(said),
        "lang": [None] * len(said),
    }
    arrays = [pa.array(columns[each.name], each.type) for each in SCHEMA]
    return Pool(pa.table(arrays, schema=SCHEMA))


def hashed(example: Example, width: int) -> np.ndarray:
    """What `Hashed` measures of one example: floats in [0, 1) from the bytes of its key."""
    words = np.frombuffer((example.key * width)[: 2 * width], dtype="<u2")
    return (words / 65536).astype(np.float32)


@dataclass(frozen=True)
class Hashed:
    """Floats from the content key. Notes the rows it measures in a file, dawdles, and fails where it is told to."""

    width: int = 4
    log: str | None = field(default=None, metadata=place())
    pause_seconds: float = field(default=0.0, metadata=place())
    fail_on: str | None = field(default=None, metadata=place())
    version: ClassVar[int] = 1
    shard_rows: ClassVar[int] = 16

    def resolved(self) -> Hashed:
        """Nothing is open."""
        return self

    def load(self) -> Measure:
        """Note that something was loaded."""
        if self.log is not None:
            note(Path(self.log), f"loaded {os.getpid()}")
        return self.measure

    def measure(self, examples: Sequence[Example]) -> Measured:
        """One row of floats an example; marked `even` where the first byte of the key is."""
        if self.fail_on is not None and any(self.fail_on in example.prompt for example in examples):
            raise RuntimeError(f"told to fail on {self.fail_on}")
        rows = []
        for example in examples:
            rows.append(hashed(example, self.width))
            time.sleep(self.pause_seconds)
        if self.log is not None:
            note(Path(self.log), *(f"row {example.key.hex()}" for example in examples))
        values = np.array(rows, dtype=np.float32).reshape(len(examples), self.width)
        return Measured(values, {"even": np.array([example.key[0] % 2 == 0 for example in examples], dtype=bool)})


def spread(example: Example) -> np.ndarray:
    """What `Spread` measures of one example: none to four floats from its key, which is how many there are."""
    return hashed(example, 4)[: example.key[0] % 5]


@dataclass(frozen=True)
class Spread:
    """Ragged floats from the content key. Notes the rows it measures in a file."""

    log: str | None = field(default=None, metadata=place())
    version: ClassVar[int] = 1
    shard_rows: ClassVar[int] = 16

    def resolved(self) -> Spread:
        """Nothing is open."""
        return self

    def load(self) -> Measure:
        """Nothing to load."""
        return self.measure

    def measure(self, examples: Sequence[Example]) -> Measured:
        """One row of floats an example; marked `even` where the first byte of the key is, numbered by its second."""
        if self.log is not None:
            note(Path(self.log), *(f"row {example.key.hex()}" for example in examples))
        even = np.array([example.key[0] % 2 == 0 for example in examples], dtype=bool)
        second = np.array([example.key[1] for example in examples])
        return Measured(Ragged.of(map(spread, examples)), {"even": even}, {"second": second})


def echo(example: Example) -> str | None:
    """What `Echo` measures of one example: its prompt, halved, or None where that has the letter y."""
    return None if "y" in example.prompt else example.prompt[: len(example.prompt) // 2]


@dataclass(frozen=True)
class Echo:
    """A text a row, or none."""

    version: ClassVar[int] = 1
    shard_rows: ClassVar[int] = 16

    def resolved(self) -> Echo:
        """Nothing is open."""
        return self

    def load(self) -> Measure:
        """Nothing to load."""
        return lambda examples: Measured(Texts.of(map(echo, examples)))


@dataclass(frozen=True)
class Letters:
    """How many characters the prompt has, as integers, in shards of the default length."""

    version: ClassVar[int] = 3

    def resolved(self) -> Letters:
        """Nothing is open."""
        return self

    def load(self) -> Measure:
        """Nothing to load."""
        return lambda examples: Measured(np.array([len(example.prompt) for example in examples], dtype=np.int64))


@dataclass(frozen=True)
class Holey:
    """A float a row: the number at the end of the prompt, NaN where that is divisible by `hole`, infinite at 1."""

    hole: int
    version: ClassVar[int] = 1
    shard_rows: ClassVar[int] = 8

    def resolved(self) -> Holey:
        """Nothing is open."""
        return self

    def load(self) -> Measure:
        """Nothing to load."""
        return self.measure

    def measure(self, examples: Sequence[Example]) -> Measured:
        """One float an example."""
        numbers = np.array([int(example.prompt.split()[-1]) for example in examples])
        values = np.where(numbers % self.hole == 0, np.nan, np.where(numbers == 1, np.inf, numbers))
        return Measured(values.astype(np.float32))


def note(path: Path, *lines: str) -> None:
    """Append lines to a file that several processes write, at once and whole."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(handle, "".join(f"{line}\n" for line in lines).encode())
    finally:
        os.close(handle)


def noted(path: Path, kind: str = "row") -> list[str]:
    """What follows `kind` in the lines of such a file; an empty list where there is none."""
    if not path.exists():
        return []
    return [line.split()[1] for line in path.read_text().splitlines() if line.startswith(kind)]
