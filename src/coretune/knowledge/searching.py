"""Searching: what an index is to whoever asks it, and two or more of them as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np

from coretune.shapes import Float32, Int64

NEARBY = 60  # what is added to every rank before ranks are compared, as in the paper
LEAST_DEPTH = 100  # of the lists that are joined


class Found(NamedTuple):
    """For each query its best passages, the best first: `rows (q, k)`, -1 where no more were found, and `scores`."""

    rows: Int64[np.ndarray, "q k"]
    scores: Float32[np.ndarray, "q k"]


@runtime_checkable
class Search(Protocol):
    """An index, open. It may be asked by several threads at once."""

    def search(self, queries: Sequence[str], k: int) -> Found:
        """The `k` best passages for each query, exactly; equal ones in order, those that have nothing of it left out.

        The result of a query does not depend on the others, and is the beginning of what a larger `k` gives.
        """
        ...


@runtime_checkable
class SearchAt(Protocol):
    """An index in the store, as data: a field of a context's spec, so part of its address."""

    version: ClassVar[int]

    def open(self) -> Search:
        """The index, mapped; with the model that turns queries into vectors, where it needs one."""
        ...


@dataclass(frozen=True)
class RanksAt:
    """Several indexes of one corpus as one, by reciprocal ranks."""

    version: ClassVar[int] = 1

    searches: tuple[SearchAt, ...]
    """The indexes."""

    def open(self) -> Search:
        """All of them, open."""
        return Ranks(tuple(each.open() for each in self.searches))


@dataclass(frozen=True)
class Ranks:
    """Several searches as one: a passage has the sum of 1 / (60 + its rank) over those that found it.

    Each is asked for its best `max(k, 100)`, so a passage far down in both may be missed, and what is found for two `k`
    above 100 may differ in order. Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet
    and individual Rank Learning Methods", SIGIR 2009.
    """

    searches: Sequence[Search]

    def search(self, queries: Sequence[str], k: int) -> Found:
        """The `k` best for each query."""
        depth = max(k, LEAST_DEPTH)
        lists = np.concatenate([each.search(queries, depth).rows for each in self.searches], axis=1)
        ranks = np.concatenate([np.arange(1, 1 + lists.shape[1] // len(self.searches))] * len(self.searches))
        out = nothing_found(len(queries), k)
        for query, rows in enumerate(lists):
            found, place = np.unique(rows[rows >= 0], return_inverse=True)
            total = np.bincount(place, 1 / (NEARBY + ranks[rows >= 0]), len(found))
            put_best(out, query, found, total)
        return out


def nothing_found(queries: int, k: int) -> Found:
    """A result to be filled. Raises `ValueError` where fewer than one passage is asked for."""
    if k < 1:
        raise ValueError(f"the best {k} passages asked; ask for 1 or more")
    return Found(np.full((queries, k), -1, dtype=np.int64), np.zeros((queries, k), dtype=np.float32))


def put_best(out: Found, query: int, rows: Int64[np.ndarray, " c"], scores: np.ndarray) -> None:
    """Put the best of these passages into the result of a query; equal scores go to the lower passage."""
    k = out.rows.shape[1]
    if len(rows) > 4 * k:
        kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    out.rows[query, : len(order)] = rows[order]
    out.scores[query, : len(order)] = scores[order]
