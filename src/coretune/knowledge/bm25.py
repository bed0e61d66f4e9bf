"""BM25: passages by the words that they share with a query, rare words counting more.

The variant is Lucene's without rounded lengths (Kamphuis et al., "Which BM25 Do You Mean?", ECIR 2020, "Lucene
(accurate)"): a word that stands tf times in a passage of l words, mean length L, and in df of n passages, adds

    ln(1 + (n - df + 0.5) / (df + 0.5)) * tf / (tf + k1 * (1 - b + b * l / L))

as often as it stands in the query. What every word adds to every passage is computed once (as bm25s does, Lù 2024,
arXiv 2407.03618), in float32; sums are in float64, in one order, whatever else is asked. A posting takes 8 bytes, 16
while the index is built, and no Python object, so a million passages fit where lists of words would not. A search adds
those words first that may add most, and stops reading whole lists where no passage without them can come in any more
(MaxScore: Turtle and Flood, "Query evaluation: strategies and optimizations", 1995): exact, and quicker.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

import numpy as np

from coretune.features import place
from coretune.knowledge.searching import Found, nothing_found, put_best
from coretune.knowledge.words import words
from coretune.shapes import Float32, Int32, Int64
from coretune.store.npy import open_array, save_array

PRUNING = 40_000  # postings that are added in the time that pruning costs a word of a query
LOOK_UP = 32  # postings of a word that are added in the time that it takes to look one of them up
WORTH_TRYING = 0.7  # how far what is still to come must have shrunk before passages are weeded out again
ROUNDING = 2.0**-23  # twice the unit roundoff of float32: what a sum may be off, relative to it, for each number


@dataclass(frozen=True)
class Bm25:
    """The index. Word i, in order of hashes, has the postings from `starts[i]` to `starts[i + 1]`."""

    hashes: np.ndarray
    """A 64-bit hash of each word, ascending, `(w,)` uint64; those alike are in order of their bytes."""
    letters: np.ndarray
    """All words one after the other, UTF-8, `(t,)` uint8."""
    ends: Int64[np.ndarray, " w1"]
    """Where each word begins in `letters`, and the end of the last."""
    starts: Int64[np.ndarray, " w1"]
    """Where each word's postings begin, and the end of the last."""
    rows: Int32[np.ndarray, " p"]
    """For each posting its passage; ascending within a word."""
    adds: Float32[np.ndarray, " p"]
    """What the word adds to the score of that passage."""
    most: Float32[np.ndarray, " w"]
    """The most that each word adds to any passage."""
    count: Int64[np.ndarray, ""]
    """How many passages there are."""

    def search(self, queries: Sequence[str], k: int) -> Found:
        """The `k` best passages for each query; those without any of its words are not found."""
        out = nothing_found(len(queries), k)
        sums = np.zeros(int(self.count), dtype=np.float32)
        for query, text in enumerate(queries):
            terms, times = self._terms(text)
            postings = int((self.starts[terms + 1] - self.starts[terms]).sum())
            if postings + 3 * len(sums) < PRUNING * len(terms):
                whole = self._sums(terms, times)
                rows = np.flatnonzero(whole > 0)
                put_best(out, query, rows, whole[rows])
            else:
                rows = self._candidates(terms, times, k, sums)
                put_best(out, query, rows, self._scores(terms, times, rows))
        return out

    def scores(self, query: str) -> Float32[np.ndarray, " n"]:
        """The score of every passage for one query; 0 for those without any of its words."""
        return self._sums(*self._terms(query)).astype(np.float32)

    def _terms(self, query: str) -> tuple[Int64[np.ndarray, " t"], Int64[np.ndarray, " t"]]:
        """The known words of a query, ascending, and how often each stands in it."""
        counts = Counter(words(query))
        terms = self._find([encoded(word) for word in counts])
        found = sorted((term, times) for term, times in zip(terms, counts.values(), strict=True) if term >= 0)
        both = np.array(found, dtype=np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]

    def _find(self, said: Sequence[bytes]) -> list[int]:
        """The number of each word, -1 for one that stands in no passage."""
        hashes = np.array([hash_of(word) for word in said], dtype=np.uint64)
        found: list[int] = []
        for word, hashed, start in zip(said, hashes, np.searchsorted(self.hashes, hashes).tolist(), strict=True):
            term = start
            while term < len(self.hashes) and self.hashes[term] == hashed and self._word(term) != word:
                term += 1  # past a collision
            found.append(term if term < len(self.hashes) and self.hashes[term] == hashed else -1)
        return found

    def _word(self, term: int) -> bytes:
        return self.letters[self.ends[term] : self.ends[term + 1]].tobytes()

    def _postings(self, term: int) -> tuple[np.ndarray, np.ndarray]:
        start, end = self.starts[term], self.starts[term + 1]
        return self.rows[start:end], self.adds[start:end]

    def _candidates(
        self, terms: Int64[np.ndarray, " t"], times: Int64[np.ndarray, " t"], k: int, sums: np.ndarray
    ) -> Int64[np.ndarray, " c"]:
        """Passages among which the `k` best are, and all that equal the last of them; `sums` is room to work in."""
        sums[:] = 0
        bounds = times * self.most[terms]
        order = np.argsort(-bounds, kind="stable")
        rest = np.append(np.cumsum(bounds[order][::-1])[::-1], 0.0)  # what the words still to come may add
        slack = (len(terms) + 2) * ROUNDING
        alive: np.ndarray | None = None  # those that can still be among the best, once all others cannot
        tried = np.inf
        for turn, which in enumerate(order.tolist()):
            rows, adds = self._postings(int(terms[which]))
            worth = 8 * len(rows) >= len(sums) if alive is None else len(alive) > 4 * k
            if worth and rest[turn] <= WORTH_TRYING * tried:
                tried = float(rest[turn])
                alive = _still_in(np.flatnonzero(sums > 0) if alive is None else alive, sums, k, tried, slack)
            if alive is not None and LOOK_UP * len(alive) < len(rows):
                sums[alive] += np.float32(times[which]) * _looked_up(rows, adds, alive)
            else:
                np.add.at(sums, rows, adds if times[which] == 1 else np.float32(times[which]) * adds)
        found = np.flatnonzero(sums > 0) if alive is None else alive
        kept = _still_in(found, sums, k, 0.0, slack)
        return (found if kept is None else kept).astype(np.int64)

    def _scores(
        self, terms: Int64[np.ndarray, " t"], times: Int64[np.ndarray, " t"], rows: Int64[np.ndarray, " c"]
    ) -> np.ndarray:
        """The scores `(c,)` float64 of some passages, ascending: the same to the last bit as those of `_sums`."""
        if len(rows) * len(terms) > int((self.starts[terms + 1] - self.starts[terms]).sum()):
            return np.asarray(self._sums(terms, times)[rows])
        total = np.zeros(len(rows))
        for term, often in zip(terms.tolist(), times.tolist(), strict=True):
            total += often * _looked_up(*self._postings(term), rows).astype(np.float64)
        return total

    def _sums(self, terms: Int64[np.ndarray, " t"], times: Int64[np.ndarray, " t"]) -> np.ndarray:
        """The scores `(n,)` float64 of all passages."""
        total = np.zeros(int(self.count))
        for term, often in zip(terms.tolist(), times.tolist(), strict=True):
            rows, adds = self._postings(term)
            np.add.at(total, rows, often * adds.astype(np.float64))
        return total


@dataclass(frozen=True)
class Bm25At:
    """A BM25 index in the store."""

    version: ClassVar[int] = 1

    digest: str
    """Of the corpus and the options of the index."""
    path: str = field(metadata=place())
    """Where it lies."""

    def open(self) -> Bm25:
        """The index, mapped."""
        return Bm25(*(open_array(Path(self.path) / f"{each.name}.npy") for each in fields(Bm25)))


def save(index: Bm25, folder: Path) -> None:
    """Write an index as plain arrays."""
    for each in fields(Bm25):
        array: np.ndarray = getattr(index, each.name)
        save_array(folder / f"{each.name}.npy", array.dtype, array.shape, [array])


def _still_in(rows: np.ndarray, sums: np.ndarray, k: int, rest: float, slack: float) -> np.ndarray | None:
    """Those of some passages that can be among the `k` best when at most `rest` is still added to any.

    None where others than these passages may be too.
    """
    held = sums[rows]
    if len(held) < k:
        return None
    least = float(np.partition(held, len(held) - k)[len(held) - k]) * (1 - slack)
    return rows[held >= least - rest * (1 + slack)] if least > rest * (1 + slack) else None


def _looked_up(rows: np.ndarray, adds: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """What a word adds to some passages, ascending: 0 where it does not stand in them."""
    wanted = wanted.astype(rows.dtype)
    at = np.searchsorted(rows, wanted)
    at[at == len(rows)] = 0
    return np.where(rows[at] == wanted, adds[at], np.float32(0))


def encoded(word: str) -> bytes:
    """A word as it is stored."""
    return word.encode("utf-8", "surrogatepass")


def hash_of(word: bytes) -> int:
    """The 64-bit hash by which a word is found."""
    return int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")
