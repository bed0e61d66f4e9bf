"""Cover the pool: each pick is the row farthest from everything picked so far.

Paper: Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", 2018,
    arXiv 1708.00489; a baseline of Diversify and Conquer, arXiv 2409.11378.
Needs: an encoder.
Costs: one encoder pass over the pool; n distances a pick at most, with pruning far fewer.

Start from the row nearest the mean of the pool, then repeatedly take the row whose distance to its nearest pick is
largest. The radius, that largest distance, never grows, and k picks cover the pool within twice the best possible
radius.

Notation: x, unit vectors; gain of a pick, the radius before it.
Relations: `ltd` is this within one task; the picker follows the pool's outliers, which `km_random` does not.
Differs: the papers start from labelled rows or leave the start open; here it is the row nearest the mean, which needs
no seed. Distances are between unit vectors (Diversify and Conquer leaves the normalisation open).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.embedding import Embedding
from coretune.pickers import k_center
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class KCenter:
    """Options of `k_center`."""

    embedder: str = "minilm"
    """The encoder: a hub id, a folder, `minilm`, or any causal language model."""
    remote_code: bool = False
    """Let code that comes with the encoder run."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: k centres of the whole pool."""
        x = lab.features(Embedding(self.embedder, remote_code=self.remote_code), pool).array()
        yield Round(budget.fill(lambda k, rng: k_center(x, k), rng))
