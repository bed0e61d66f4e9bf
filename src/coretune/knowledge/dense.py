"""Dense search: passages by the cosine of their vectors with the query's, exactly, over a plain float16 matrix.

Products are in float32, block by block; those that rounding could bring in are computed again in float64, in an order
of their own, so that a result depends neither on the other queries nor on the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from coretune.errors import ModelError
from coretune.features import place
from coretune.features.embedding import Embedding
from coretune.knowledge.searching import Found, nothing_found, put_best
from coretune.shapes import Float32, Int64
from coretune.store.npy import open_array, save_array

VECTORS = "vectors.npy"
BLOCK_ROWS = 8192  # passages
BLOCK_QUERIES = 256
ROUNDING = 2.0**-23  # twice the unit roundoff of float32: what a product of unit vectors may be off, for each number


@dataclass(frozen=True)
class Dense:
    """The index: `vectors (n, d)` float16 of unit length, 0 for passages without a token, and how to make a query's."""

    vectors: np.ndarray
    embed: Callable[[Sequence[str]], Float32[np.ndarray, "q d"]]

    def search(self, queries: Sequence[str], k: int) -> Found:
        """The `k` nearest passages for each query; none for one without any token."""
        out = nothing_found(len(queries), k)
        if not len(queries):
            return out
        wanted = self.embed(queries)
        known = np.flatnonzero(np.isfinite(wanted).all(axis=1))
        for start in range(0, len(known), BLOCK_QUERIES):
            mine = known[start : start + BLOCK_QUERIES]
            for query, rows in zip(mine.tolist(), nearest_candidates(self.vectors, wanted[mine], k), strict=True):
                found = self.vectors[rows].astype(np.float64)
                there = found.any(axis=1)
                cosines = (found[there] * wanted[query].astype(np.float64)).sum(axis=1)
                put_best(out, query, rows[there], cosines)
        return out


@dataclass(frozen=True)
class DenseAt:
    """A dense index in the store."""

    version: ClassVar[int] = 1

    digest: str
    """Of the corpus and the embedding."""
    embedding: Embedding
    """What made the vectors, resolved; it makes those of queries too."""
    path: str = field(metadata=place())
    """Where it lies."""

    def open(self) -> Dense:
        """The matrix, mapped, and the encoder, loaded. Raises `ModelError` where it is not the one of the index."""
        return Dense(open_array(Path(self.path) / VECTORS), text_encoder(self.embedding))


def text_encoder(spec: Embedding) -> Callable[[Sequence[str]], Float32[np.ndarray, "q d"]]:
    """A function from texts to unit vectors, NaN where a text has no token, for a resolved embedding."""
    from coretune.features.embedding import embed, load_into, room_for
    from coretune.models import best_device

    if spec.digest is None or not spec.normalize:
        raise ModelError("dense search needs a resolved embedding of unit length; resolve it, with normalize on")
    encoder = load_into(spec, best_device())
    room = room_for(spec, encoder)
    return lambda texts: np.asarray(embed(spec, encoder, room, texts).values, dtype=np.float32)


def save(blocks: Iterable[np.ndarray], shape: tuple[int, ...], folder: Path) -> None:
    """Write vectors `shape` as they come, rounded to float16; those that are not finite as 0."""
    rounded = (np.where(np.isfinite(block), block, 0).astype(np.float16) for block in blocks)
    save_array(folder / VECTORS, np.dtype(np.float16), shape, rounded)


def nearest_candidates(
    vectors: np.ndarray, wanted: Float32[np.ndarray, "q d"], k: int
) -> list[Int64[np.ndarray, " c"]]:
    """For each query passages, ascending, among which its `k` nearest are, and all that may equal the last of them."""
    slack = 2 * vectors.shape[1] * ROUNDING
    least = np.full(len(wanted), -np.inf, dtype=np.float32)
    held: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS].astype(np.float32)
        cosines = wanted @ block.T
        cosines[:, ~block.any(axis=1)] = -np.inf
        if len(block) > k and start == 0:
            least = np.partition(cosines, len(block) - k, axis=1)[:, len(block) - k] - slack
        query, row = np.nonzero(cosines >= least[:, None])
        held.append((query, row + start, cosines[query, row]))
        if sum(len(each[0]) for each in held) > 8 * len(wanted) * max(k, 64):
            held = [_kept(held, k, least, slack)]
    query, row, _ = _kept(held, k, least, slack)
    ends = np.searchsorted(query, np.arange(len(wanted) + 1))
    return [np.sort(row[ends[i] : ends[i + 1]]) for i in range(len(wanted))]


def _kept(
    held: list[tuple[np.ndarray, np.ndarray, np.ndarray]], k: int, least: Float32[np.ndarray, " q"], slack: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What may still be among the `k` nearest, by query; `least` rises to what is needed for that."""
    query, row, cosine = (np.concatenate([each[i] for each in held]) for i in range(3))
    order = np.lexsort((-cosine, query))
    query, row, cosine = query[order], row[order], cosine[order]
    ends = np.searchsorted(query, np.arange(len(least) + 1))
    full = np.flatnonzero(np.diff(ends) >= k)
    least[full] = np.maximum(least[full], cosine[ends[full] + k - 1] - slack)
    keep = cosine >= least[query]
    return query[keep], row[keep], cosine[keep]
