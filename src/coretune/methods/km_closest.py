"""Represent the pool by its most typical rows: cluster it, then take the rows nearest each centre (kM-Closest).

Paper: Yu et al., "Diversify and Conquer: Diversity-Centric Data Selection with Iterative Refinement", 2024,
    arXiv 2409.11378, section 2.4.
Needs: an encoder.
Costs: one encoder pass over the pool, k-means (several, where the silhouette chooses the number of cells).

1. k-means over the unit embeddings of prompt and answer.
2. Each cell gets its share of the budget, rounded by largest remainder.
3. Within a cell, take the rows with the smallest distance to the centre.

Notation: K -> `clusters`; b_j -> quota; D_j -> cell; gain, minus the distance to the centre.
Relations: `km_random` draws in step 3, `kmq` draws by quality, `ltd` spreads its picks away from the centre.
Differs: quotas as in `km_random`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.embedding import Embedding
from coretune.partitions import choose_k, powers_of_two, proportional, within
from coretune.pickers import closest
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class KmClosest:
    """Options of `km_closest`."""

    embedder: str = "minilm"
    """The encoder: a hub id, a folder, `minilm`, or any causal language model."""
    clusters: int | None = None
    """How many cells; none lets the corrected silhouette choose among powers of two."""
    remote_code: bool = False
    """Let code that comes with the encoder run."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the rows nearest every centre."""
        x = lab.features(Embedding(self.embedder, remote_code=self.remote_code), pool).array()
        grid = powers_of_two(len(pool), budget.rows) if self.clusters is None else (self.clusters,)
        cells = lab.keep(choose_k, x, rng, grid=grid)
        centers = cells.centers
        assert centers is not None
        chosen = budget.fill(
            lambda k, rng: within(
                cells,
                proportional(cells.sizes, k),
                lambda rows, quota, _: closest(x[rows], centers[cells.cell[rows[0]]], quota),
                rng,
            ),
            rng,
        )
        yield Round(chosen, partition=cells)
