"""Represent the pool: cluster it, then draw from each cell in proportion to its size (kM-Random).

Paper: Yu et al., "Diversify and Conquer: Diversity-Centric Data Selection with Iterative Refinement", 2024,
    arXiv 2409.11378, section 2.4.
Needs: an encoder.
Costs: one encoder pass over the pool, k-means (several, where the silhouette chooses the number of cells).

1. k-means over the unit embeddings of prompt and answer.
2. Each cell gets its share of the budget, rounded by largest remainder.
3. Within a cell, draw uniformly without replacement.

Notation: K -> `clusters`; b_j -> quota; D_j -> cell.
Relations: `kmq` draws by quality in step 3, `km_closest` takes the rows nearest the centre, `random` has one cell.
Differs: the authors' code gives every cell the same number, int(b/K), and drops the remainder, so that the amount of
data changes with K; here the budget is met. Its encoders read the prompt alone; the paper says prompt and completion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.embedding import Embedding
from coretune.partitions import choose_k, powers_of_two, proportional, within
from coretune.pickers import uniform
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class KmRandom:
    """Options of `km_random`."""

    embedder: str = "minilm"
    """The encoder: a hub id, a folder, `minilm`, or any causal language model."""
    clusters: int | None = None
    """How many cells; none lets the corrected silhouette choose among powers of two."""
    remote_code: bool = False
    """Let code that comes with the encoder run."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: a draw from every cell."""
        x = lab.features(Embedding(self.embedder, remote_code=self.remote_code), pool).array()
        cluster_rng, draw_rng = rng.spawn(2)
        grid = powers_of_two(len(pool), budget.rows) if self.clusters is None else (self.clusters,)
        cells = lab.keep(choose_k, x, cluster_rng, grid=grid)
        chosen = budget.fill(
            lambda k, rng: within(
                cells, proportional(cells.sizes, k), lambda rows, quota, rng: uniform(len(rows), quota, rng=rng), rng
            ),
            draw_rng,
        )
        yield Round(chosen, partition=cells)
