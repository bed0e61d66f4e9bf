"""Draw rows the likelier the fewer rows lie near them, so that the choice spreads (Density).

Paper: Sachdeva et al., "How to Train Data-Efficient LLMs", 2024, arXiv 2402.09668, section 3.2, algorithm 2.
Needs: an encoder.
Costs: one encoder pass over the pool; a kernel sum, exact up to some ten thousand rows, sketched above.

1. Embed every row.
2. Its kernel density: the sum over all rows of the chance that a random hash of width w puts both into one bucket.
   Exact for small pools; a sketch of 1,000 hashes and 20,000 buckets for large ones, less what falls together by
   chance.
3. Draw without replacement, with probabilities in inverse proportion to the density.

Notation: k_lambda -> the collision kernel; R, B -> `hashes`, `buckets`; S -> the sketch; lambda -> `bandwidth`.
Relations: `k_center` spreads as far as it can and takes every outlier; `ask_llm` is the paper's selector for quality.
Differs: the closing line of the paper's algorithm 2 prints probabilities in proportion to the density; its text, title
and theorem A.2 need the inverse, which is drawn here. The paper does not print the bandwidth; by default it is the
median distance of a row to its nearest neighbour. Crowded is measured on unit vectors of `embedder`, not on
Sentence-T5. Outliers are likeliest to be drawn: broken rows too. Filter by quality first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.embedding import Embedding
from coretune.pickers import drawn
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.scores.density import kernel_density, nearest_distance
from coretune.scores.density_sketch import debiased, draw_hashes, sketch, sketched_density
from coretune.scores.draw_weights import inverse_weights
from coretune.selection import Budget

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Density:
    """Options of `density`."""

    embedder: str = "minilm"
    """The encoder: a hub id, a folder, `minilm`, or any causal language model."""
    bandwidth: float | None = None
    """Width of a hash bucket, in units of the embedding; none is the median distance to the nearest neighbour."""
    exact_rows: int = 5000
    """Up to how many rows the density is exact; 0 always sketches it."""
    hashes: int = 1000
    """Hash functions of the sketch."""
    buckets: int = 20_000
    """Buckets of each hash function."""
    remote_code: bool = False
    """Let code that comes with the encoder run."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: a draw that prefers sparse places."""
        near_rng, hash_rng, draw_rng = rng.spawn(3)
        feature = lab.features(Embedding(self.embedder, remote_code=self.remote_code), pool)
        width = self.bandwidth or lab.keep(nearest_distance, feature.array(), near_rng)
        if len(pool) <= self.exact_rows:
            crowd = lab.keep(kernel_density, feature.array(), width)
        else:
            hashes = draw_hashes(feature.shape[1], width, hash_rng, repeats=self.hashes, buckets=self.buckets)
            counts = sketch(feature.blocks(), hashes)
            crowd = debiased(sketched_density(feature.blocks(), hashes, counts), len(pool), self.buckets)
        weights = inverse_weights(crowd)
        chosen = budget.fill(lambda k, rng: drawn(weights, k, rng=rng), draw_rng)
        yield Round(chosen, columns={"density": crowd.astype(np.float32)}, notes={"bandwidth": width})
