"""Texts into a BM25 index, read once; and rankings of texts that need no store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from coretune.knowledge.bm25 import Bm25, encoded, hash_of
from coretune.knowledge.searching import Found
from coretune.knowledge.words import words
from coretune.shapes import Float32, Int32, Int64

K1, B = 1.5, 0.75  # bm25s's; Lucene's own k1 is 1.2
BLOCK_TEXTS = 4096


def bm25_index(texts: Iterable[str], *, k1: float = K1, b: float = B) -> Bm25:
    """The index of texts, read once, in memory. Raises `ValueError` where there is none."""
    number: defaultdict[str, int] = defaultdict()
    number.default_factory = number.__len__
    counted, lengths = _count(texts, number.__getitem__)
    if not len(lengths):
        raise ValueError("no text was given to be searched; give one at least")
    said = sorted((hash_of(letters), letters, which) for word, which in number.items() for letters in (encoded(word),))
    number.clear()
    rank = np.empty(len(said), dtype=np.int32)
    rank[[which for _, _, which in said]] = np.arange(len(said), dtype=np.int32)
    hashes = np.array([hashed for hashed, _, _ in said], dtype=np.uint64)
    letters = np.frombuffer(b"".join(word for _, word, _ in said), dtype=np.uint8)
    ends = np.concatenate([[0], np.cumsum([len(word) for _, word, _ in said])]).astype(np.int64)
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
    return Bm25(hashes, letters, ends, starts, rows, adds, most, np.array(n, dtype=np.int64))


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
