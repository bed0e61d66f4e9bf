"""Cover the pool and collect good rows at once: greedy on a mix of facility location and quality (QDIT).

Paper: Bukharin and Zhao, "Data Diversity Matters for Robust Instruction Tuning", Findings of EMNLP 2024, arXiv
    2311.14736.
Needs: an encoder, and a quality by name (`--qdit.quality`).
Costs: one encoder pass over the pool, what the quality costs, similarities between all rows.

1. Unit embeddings of all rows; their quality.
2. Greedily add the row that raises (1 - alpha) times coverage plus alpha times summed quality most. Coverage is
   facility location: the sum over all rows of the similarity to the nearest chosen one.

Notation: d(A), q(A), alpha -> coverage, quality, `alpha`.
Relations: alpha 0 is facility location, 1 the highest quality; `kmq` draws by quality within clusters.
Differs: direction and scaling of the paper's alpha are unconfirmed. Here qualities are scaled so that the best k add up
to what k rows cover at most, and alpha 1 is quality alone; so a larger budget need not contain a smaller one's rows.
Qualities must not be negative in sum. Pools above 20,000 rows are compared with their nearest neighbours only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.distances import Neighbours, neighbours, rows_of
from coretune.features.embedding import Embedding
from coretune.pickers import facility_location, in_gains_of, quality_and_coverage
from coretune.pool import Pool
from coretune.quality import named_score
from coretune.rounds import Round
from coretune.selection import Budget, Selection
from coretune.shapes import Float32

if TYPE_CHECKING:
    from coretune.lab import Lab


MOST_ROWS = 20_000  # that are compared with all others
NEAREST = 256


@dataclass(frozen=True)
class Qdit:
    """Options of `qdit`."""

    quality: str
    """What makes a row good: length, ifd, low_loss, yes_probability, a column of the data, ...; higher is better."""
    alpha: float = 0.7
    """What quality counts against coverage, from 0 to 1."""
    embedder: str = "minilm"
    """The encoder: a hub id, a folder, `minilm`, or any causal language model."""
    model: str | None = None
    """The model behind the quality, where it needs one."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: good rows that cover the pool."""
        quality = named_score(self.quality, pool, lab, model=self.model, template=self.template)
        x = lab.features(Embedding(self.embedder), pool).array()
        compared = x if len(pool) <= MOST_ROWS else lab.keep(nearest, x)

        def pick(k: int) -> Selection:
            scale = in_gains_of(facility_location(compared, k), quality) if self.alpha < 1 else quality
            return quality_and_coverage(compared, scale, k, alpha=self.alpha)

        chosen = budget.fill(lambda k, _: pick(k), rng)
        yield Round(chosen, columns={self.quality: quality})


def nearest(x: Float32[np.ndarray, "n d"]) -> Neighbours:
    """Each row's nearest rows."""
    return neighbours(rows_of(x), NEAREST)
