"""Indexes of a corpus in the store: made once, addressed by what they are made of, found again by any run.

STORE/indexes/ADDRESS/spec.json     what it is an index of, in words
                      NAME/         its arrays; done.json says it is complete
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coretune import store
from coretune.errors import Unmeasurable, nearest
from coretune.features import place
from coretune.features.embedding import Embedding
from coretune.knowledge import bm25, bm25_building, dense
from coretune.knowledge.corpus import Knowledge
from coretune.knowledge.searching import RanksAt, SearchAt
from coretune.store import folders
from coretune.store.digests import spec_words, words
from coretune.store.npy import open_array, save_array

if TYPE_CHECKING:
    from coretune.lab import Lab

log = logging.getLogger(__name__)

VERSION = 1  # of what an index holds; raised when words, texts or files change
LETTERS, ENDS = "letters.npy", "ends.npy"
WAYS = ("bm25", "dense")


@dataclass(frozen=True)
class KnowledgeAt:
    """A corpus in the store, with the index that it is searched by."""

    digest: str
    """The corpus's fingerprint."""
    search: SearchAt
    """Its index, or several as one."""
    path: str = field(metadata=place())
    """Where its passages lie."""


@dataclass(frozen=True)
class Texts:
    """The passages of a corpus in the store, mapped: passage i is `letters[ends[i]:ends[i + 1]]`, UTF-8."""

    letters: np.ndarray
    ends: np.ndarray

    @classmethod
    def open(cls, path: str) -> Texts:
        """Map the passages in a folder."""
        return cls(*(open_array(Path(path) / name) for name in (LETTERS, ENDS)))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, row: int) -> str:
        return self.letters[self.ends[row] : self.ends[row + 1]].tobytes().decode("utf-8")


def indexed(
    knowledge: Knowledge, lab: Lab, *, by: Sequence[str] = WAYS, embedder: str | Embedding = "minilm"
) -> KnowledgeAt:
    """A corpus in the lab's store, ready to be searched `by` words (`bm25`), vectors (`dense`), or both by their ranks.

    What is stored is not made again. `embedder` makes the vectors; it is loaded only for `dense`, whose vectors are
    measured by the lab, so that a kill costs a shard at most. Raises `ValueError` for another way of searching,
    `FolderError` where the store cannot be written, `ModelError` for the embedder.
    """
    for each in by:
        if each not in WAYS:
            raise ValueError(f"a search by {each!r} asked{nearest(each, WAYS)} Known are {', '.join(WAYS)}")
    if not by:
        raise ValueError(f"a search by nothing asked; give one of {', '.join(WAYS)}, or both")
    texts = _stored(knowledge, lab, "passages", {}, partial(_save_texts, knowledge))
    made: list[SearchAt] = []
    if "bm25" in by:
        options = {"k1": bm25_building.K1, "b": bm25_building.B}
        found = _stored(knowledge, lab, "bm25 index", options, partial(_save_bm25, knowledge))
        made.append(bm25.Bm25At(found.parent.name, str(found)))
    if "dense" in by:
        spec = (Embedding(embedder) if isinstance(embedder, str) else embedder).resolved()
        found = _stored(knowledge, lab, "dense index", {"embedding": spec}, partial(_save_dense, knowledge, spec, lab))
        made.append(dense.DenseAt(found.parent.name, spec, str(found)))
    return KnowledgeAt(knowledge.fingerprint, made[0] if len(made) == 1 else RanksAt(tuple(made)), str(texts))


def _stored(knowledge: Knowledge, lab: Lab, what: str, options: dict[str, Any], write: Callable[[Path], None]) -> Path:
    """The folder of an index, which is written if it is not there; one process writes, others wait for it."""
    said = {
        "function": f"coretune.knowledge.{what}",
        "version": VERSION,
        "inputs": [words(knowledge)],
        "options": {name: spec_words(each) if isinstance(each, Embedding) else each for name, each in options.items()},
    }
    at = store.place_of(lab.store, store.INDEXES, said)
    with lab.stage(what) as stage:
        found = _whole(at)
        if found is None:
            store.describe(at, said)
            with folders.alone(at):
                found = _whole(at)
                if found is None:
                    found = _written(at, len(knowledge), write)
                    stage.rows, stage.bytes = len(knowledge), folders.size_of(found)
        stage.stored = len(knowledge) - stage.rows
        store.touch(at)
    return found


def _written(at: Path, rows: int, write: Callable[[Path], None]) -> Path:
    folders.sweep(at)
    with folders.new_folder(at, "index", {"rows": rows}) as folder:
        write(folder)
    return at / folder.name.removeprefix(".")


def _whole(at: Path) -> Path | None:
    """The finished folder at an address; damaged ones are taken away."""
    for folder in folders.finished(at):
        try:
            folders.read_done(folder)
            return folder
        except (OSError, ValueError) as error:
            if folder.exists():
                log.warning("stored index %s is damaged and is made again (%s)", folder, error)
                folders.remove(folder)
    return None


def _save_texts(knowledge: Knowledge, folder: Path) -> None:
    ends = np.zeros(len(knowledge) + 1, dtype=np.int64)
    sizes = (len(text) for block in _encoded(knowledge) for text in block)
    np.cumsum(np.fromiter(sizes, dtype=np.int64, count=len(knowledge)), out=ends[1:])
    save_array(folder / ENDS, ends.dtype, ends.shape, [ends])
    joined = (np.frombuffer(b"".join(block), dtype=np.uint8) for block in _encoded(knowledge))
    save_array(folder / LETTERS, np.dtype(np.uint8), (int(ends[-1]),), joined)


def _encoded(knowledge: Knowledge) -> Iterator[list[bytes]]:
    for block in knowledge.blocks():
        yield [text.encode("utf-8") for text in block]


def _save_bm25(knowledge: Knowledge, folder: Path) -> None:
    bm25.save(bm25_building.bm25_index(knowledge.passages), folder)


def _save_dense(knowledge: Knowledge, spec: Embedding, lab: Lab, folder: Path) -> None:
    pool = knowledge.pool
    while True:
        try:
            feature = lab.features(spec, pool)
            break
        except Unmeasurable as error:  # a passage without any token is found by its words alone
            log.warning("%d passages have no vector (%s)", len(error.rows), error.reason)
            pool = pool.exclude(error.rows, error.reason)
    dense.save(feature.blocks(), feature.shape, folder)
