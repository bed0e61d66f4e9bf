"""Conversations as one vector each: a model's states over the tokens of a conversation, pooled batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.features._batches import Batch, batches
from coretune.features._conversations import conversations
from coretune.pool import Example
from coretune.shapes import Bool, Float32

NOT_FINITE = "states not finite, or zero"


@dataclass(frozen=True)
class Pooled:
    """Vectors of n examples and their lengths; both are NaN for rows that `marks` says something is wrong with."""

    values: Float32[np.ndarray, "n d"]
    norms: Float32[np.ndarray, " n"]
    marks: dict[str, Bool[np.ndarray, " n"]]

    @property
    def units(self) -> Float32[np.ndarray, "n d"]:
        """The vectors at length 1."""
        return np.asarray(self.values / self.norms[:, None])


def pooled_states(
    spec: Any, encode: Callable[[Batch], Float32[np.ndarray, "b d"]], width: int, **fineness: int
) -> Callable[[Sequence[Example]], Pooled]:
    """What reads examples for a resolved spec, in batches of its size: `encode` gives the pooled states of each.

    `fineness` is that of `batches`. Raises `ModelError` where model or tokenizer are others than were resolved.
    """
    reader = conversations(spec.model, spec.template, spec.digest, spec.tokenizer)

    def read(examples: Sequence[Example]) -> Pooled:
        found = reader.read(examples, spec.max_tokens)
        values = np.full((found.count, width), np.nan, dtype=np.float32)
        for batch in batches(found.ids, spec.max_tokens, spec.batch_tokens, found.pad, **fineness):
            values[found.rows[batch.pieces]] = encode(batch)[: len(batch.pieces)]
        with np.errstate(over="ignore"):
            norms = np.linalg.norm(values, axis=1)
        bad = ~(np.isfinite(norms) & (norms > 0))
        values[bad] = norms[bad] = np.nan
        marks = {**found.marks, NOT_FINITE: np.zeros(found.count, dtype=bool)}
        marks[NOT_FINITE][found.rows] = bad[found.rows]
        return Pooled(values, norms, marks)

    return read
