"""Pools and embeddings that tests make themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from coretune.features import Measure, Measured
from coretune.pool import Example, Pool
from coretune.readers import read_pool

TOPICS = ("rivers", "bread", "comets", "chess", "violins")


def records(n: int = 120, seed: int = 0) -> list[dict[str, object]]:
    """Alpaca records on five topics, with a number a record and no two alike."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        topic = TOPICS[int(rng.integers(len(TOPICS)))]
        words = " ".join(f"{topic}{int(w)}" for w in rng.integers(0, 30, int(rng.integers(3, 40))))
        made.append(
            {
                "instruction": f"Question {i} about {topic}?",
                "input": "",
                "output": f"On {topic}: {words}.",
                "topic": topic,
                "stars": float(rng.integers(1, 6)),
            }
        )
    return made


def write_jsonl(path: Path, made: Sequence[dict[str, object]]) -> Path:
    """These records, one a line."""
    path.write_text("".join(json.dumps(each) + "\n" for each in made), encoding="utf-8")
    return path


def pool_of(folder: Path, n: int = 120, seed: int = 0) -> Pool:
    """The pool of `records(n, seed)`, read from a file in `folder`."""
    return read_pool(write_jsonl(folder / f"pool-{n}-{seed}.jsonl", records(n, seed)))


@dataclass(frozen=True)
class HashedWords:
    """A stand-in for an encoder that needs no model: unit sums of a vector a word, so that topics lie together."""

    version: ClassVar[int] = 1
    width: int = 16

    def resolved(self) -> HashedWords:
        """Nothing is open."""
        return self

    def load(self) -> Measure:
        """Nothing to load."""
        return self.measure

    def measure(self, examples: Sequence[Example]) -> Measured:
        """One unit vector an example."""
        rows = [self._vector(f"{example.prompt} {example.answer}") for example in examples]
        return Measured(np.array(rows, dtype=np.float32).reshape(len(examples), self.width))

    def _vector(self, text: str) -> np.ndarray:
        total = np.zeros(self.width)
        for word in text.lower().split():
            stem, whole = word.rstrip("0123456789?.:"), word
            for said, weight in ((stem, 1.0), (whole, 0.3)):
                seed = int.from_bytes(said.encode()[:8].ljust(8, b"."), "little")
                total += weight * np.random.default_rng(seed).normal(size=self.width)
        return total / np.linalg.norm(total)
