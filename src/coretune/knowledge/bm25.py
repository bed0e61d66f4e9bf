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

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

import numpy as np

from coretune.features import place
from coretune.knowledge.searching import Found, nothing_found, put_best
from coretune.knowledge.words import words
from coretune.shapes import Float32, Int32, Int64
from coretune.store.npy import open_array, save_array

K1, B = 1.5, 0.75  # bm25s's; Lucene's own k1 is 1.2
SLACK = 1e-9  # relative, between sums of the same numbers in different orders
BLOCK_TEXTS = 4096


@dataclass(frozen=True)
class Bm25:
    """The index. Word i, in order of its UTF-8 bytes, has the postings from `starts[i]` to `starts[i + 1]`."""

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
        sums = np.zeros(int(self.count))
        for query, text in enumerate(queries):
            terms, times = self._terms(text)
            rows = self._candidates(terms, times, k, sums)
            put_best(out, query, rows, self._scores(terms, times, rows))
        return out

    def scores(self, query: str) -> Float32[np.ndarray, " n"]:
        """The score of every passage for one query; 0 for those without any of its words."""
        return self._sums(*self._terms(query)).astype(np.float32)

    def _terms(self, query: str) -> tuple[Int64[np.ndarray, " t"], Int64[np.ndarray, " t"]]:
        """The known words of a query, ascending, and how often each stands in it."""
        counts = Counter(words(query))
        found = sorted((term, times) for word, times in counts.items() if (term := self._find(word)) >= 0)
        both = np.array(found, dtype=np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]

    def _find(self, word: str) -> int:
        """The number of a word, -1 for one that stands in no passage."""
        said, known = _encoded(word), _Words(self.letters, self.ends)
        term = bisect_left(known, said)
        return term if term < len(known) and known[term] == said else -1

    def _postings(self, term: int) -> tuple[np.ndarray, np.ndarray]:
        start, end = self.starts[term], self.starts[term + 1]
        return self.rows[start:end], self.adds[start:end]

    def _candidates(
        self, terms: Int64[np.ndarray, " t"], times: Int64[np.ndarray, " t"], k: int, sums: np.ndarray
    ) -> Int64[np.ndarray, " c"]:
        """Passages among which the `k` best are, and all that equal the last of them; `sums` is room to work in."""
        sums[:] = 0
        bounds = times * self.most[terms].astype(np.float64)
        order = np.argsort(-bounds, kind="stable")
        rest = np.append(np.cumsum(bounds[order][::-1])[::-1], 0.0)  # what the words still to come may add
        for turn, which in enumerate(order):
            rows, adds = self._postings(terms[which])
            if 8 * len(rows) >= len(sums) and (least := _least_of_best(sums, k)) > rest[turn] * (1 + SLACK):
                return np.flatnonzero((sums > 0) & (sums >= least * (1 - SLACK) - rest[turn]))
            sums[rows] += times[which] * adds.astype(np.float64)
        least = _least_of_best(sums, k)
        return np.flatnonzero((sums > 0) & (sums >= least * (1 - SLACK)))

    def _scores(
        self, terms: Int64[np.ndarray, " t"], times: Int64[np.ndarray, " t"], rows: Int64[np.ndarray, " c"]
    ) -> np.ndarray:
        """The scores `(c,)` float64 of some passages, ascending: the same to the last bit as those of `_sums`."""
        if len(rows) * len(terms) > int((self.starts[terms + 1] - self.starts[terms]).sum()):
            return self._sums(terms, times)[rows]
        total, wanted = np.zeros(len(rows)), rows.astype(np.int32)
        for term, often in zip(terms, times, strict=True):
            held, adds = self._postings(term)
            at = np.searchsorted(held, wanted)
            at[at == len(held)] = 0
            here = held[at] == wanted
            total[here] += often * adds[at[here]].astype(np.float64)
        return total

    def _sums(self, terms: Int64[np.ndarray, " t"], times: Int64[np.ndarray, " t"]) -> np.ndarray:
        """The scores `(n,)` float64 of all passages."""
        total = np.zeros(int(self.count))
        for term, often in zip(terms, times, strict=True):
            rows, adds = self._postings(term)
            total[rows] += often * adds.astype(np.float64)
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


def bm25_index(texts: Iterable[str], *, k1: float = K1, b: float = B) -> Bm25:
    """The index of texts, read once, in memory. Raises `ValueError` where there is none."""
    number: defaultdict[str, int] = defaultdict()
    number.default_factory = number.__len__
    counted, lengths = _count(texts, number.__getitem__)
    if not len(lengths):
        raise ValueError("no text was given to be searched; give one at least")
    said = sorted((_encoded(word), which) for word, which in number.items())
    number.clear()
    rank = np.empty(len(said), dtype=np.int32)
    rank[[which for _, which in said]] = np.arange(len(said), dtype=np.int32)
    letters = np.frombuffer(b"".join(word for word, _ in said), dtype=np.uint8)
    ends = np.concatenate([[0], np.cumsum([len(word) for word, _ in said])]).astype(np.int64)
    del said
    frequency = np.zeros(len(rank), dtype=np.int64)
    for terms, _, _ in counted:
        frequency += np.bincount(rank[terms], minlength=len(rank))
    n = len(lengths)
    rarity = np.log1p((n - frequency + 0.5) / (frequency + 0.5))
    spread = k1 * (1 - b + b * lengths / max(lengths.mean(), 1e-300))
    starts = np.concatenate([[0], np.cumsum(frequency)]).astype(np.int64)
    rows, adds = _by_word(counted, rank, starts, rarity, spread)
    most = np.maximum.reduceat(adds, starts[:-1]) if len(adds) else np.empty(0, dtype=np.float32)
    return Bm25(letters, ends, starts, rows, adds, most, np.array(n, dtype=np.int64))


def bm25_scores(documents: Iterable[str], queries: Iterable[str]) -> Iterator[Float32[np.ndarray, " n"]]:
    """For each query, in order, the scores of all documents; one query's are in memory at a time."""
    index = bm25_index(documents)
    for query in queries:
        yield index.scores(query)


def bm25_ranking(documents: Iterable[str], queries: Sequence[str], depth: int) -> Found:
    """For each query its `depth` best documents, the best first; documents that share no word with it are not found."""
    return bm25_index(documents).search(queries, depth)


def _count(
    texts: Iterable[str], number: Callable[[str], int]
) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], Int64[np.ndarray, " n"]]:
    """For blocks of texts, by text: words, how often each stands in it, and how many different ones a text has."""
    counted: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    lengths: list[np.ndarray] = []
    held: list[np.ndarray] = []

    def settle() -> None:
        size = np.array([len(each) for each in held], dtype=np.int64)
        joined = np.concatenate([np.empty(0, dtype=np.int64), *held])
        pairs: np.ndarray = (np.repeat(np.arange(len(held)), size) << 32) | joined
        pairs, times = np.unique(pairs, return_counts=True)
        different = np.bincount(pairs >> 32, minlength=len(held)).astype(np.int32)
        counted.append(((pairs & 0xFFFFFFFF).astype(np.int32), times.astype(np.int32), different))
        lengths.append(size)
        held.clear()

    for text in texts:
        said = words(text)
        held.append(np.fromiter(map(number, said), dtype=np.int64, count=len(said)))
        if len(held) == BLOCK_TEXTS:
            settle()
    if held:
        settle()
    return counted, np.concatenate([np.empty(0, dtype=np.int64), *lengths])


def _by_word(
    counted: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    rank: Int32[np.ndarray, " w"],
    starts: Int64[np.ndarray, " w1"],
    rarity: np.ndarray,
    spread: np.ndarray,
) -> tuple[Int32[np.ndarray, " p"], Float32[np.ndarray, " p"]]:
    """Postings by word, what each adds beside it; `counted` is used up, so that little is in memory twice."""
    rows, adds = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1], dtype=np.float32)
    heads, first = starts[:-1].copy(), 0
    counted.reverse()
    while counted:
        numbers, times, different = counted.pop()
        terms = rank[numbers]
        order = np.argsort(terms, kind="stable")
        terms, times = terms[order], times[order]
        texts = first + np.repeat(np.arange(len(different)), different)[order]
        new = np.flatnonzero(np.concatenate([[True], terms[1:] != terms[:-1]])) if len(terms) else np.empty(0, int)
        size = np.diff(np.append(new, len(terms)))
        at = heads[terms] + np.arange(len(terms)) - np.repeat(new, size)
        rows[at] = texts
        adds[at] = rarity[terms] * (times / (times + spread[texts]))
        heads[terms[new]] += size
        first += len(different)
    return rows, adds


def _least_of_best(sums: np.ndarray, k: int) -> float:
    """The `k`-th largest sum; 0 where there are not so many above 0."""
    above = sums[sums > 0]
    return float(np.partition(above, len(above) - k)[len(above) - k]) if len(above) >= k else 0.0


def _encoded(word: str) -> bytes:
    return word.encode("utf-8", "surrogatepass")


class _Words(Sequence[bytes]):
    """Words in order, to be bisected."""

    def __init__(self, letters: np.ndarray, ends: Int64[np.ndarray, " w1"]) -> None:
        self._letters, self._ends = letters, ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, term: int) -> bytes:  # type: ignore[override]
        return self._letters[self._ends[term] : self._ends[term + 1]].tobytes()
