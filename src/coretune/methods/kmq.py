"""Represent the pool and prefer good rows: cluster it, then draw from each cell by quality (kMQ).

Paper: Yu et al., "Diversify and Conquer: Diversity-Centric Data Selection with Iterative Refinement", 2024,
    arXiv 2409.11378, section 2.4 and eq. 3.
Needs: an encoder, and a quality (`--kmq.quality`): `length`, a column of the data with a number a row, or what a model
    says (`ifd`, `low_loss`, ...).
Costs: one encoder pass over the pool, k-means (several, where the silhouette chooses the number of cells).

1. k-means over the unit embeddings of prompt and answer; K by the silhouette, as the paper recommends.
2. Each cell gets its share of the budget, rounded by largest remainder.
3. Within a cell, draw without replacement, better rows with a higher probability.

Notation: K -> `clusters`; b_j -> quota; q -> quality; p(x|q) -> exp of the log-weights, normalised in the cell.
Relations: constant quality makes this `km_random`; one cell makes it a draw by quality alone.
Differs: the paper draws with replacement (eq. 3) and leaves the map from q to p open; its code takes the softmax of the
score without replacement, which we do (`draw=softmax`, temperature 1; `draw=linear` weighs by the score itself). On a
wide score the softmax is nearly a top-k: the notes give the number of rows a cell's draw really chooses among. The
code's equal quotas, int(b/K) with the remainder dropped, are `quotas=equal`, here with the remainder given out. The
paper's silhouette is squared and uncorrected, and rises with K whatever the data; ours subtracts its value on data
without structure. DEITA's scores, the paper's quality, come in as a column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from coretune.features.embedding import Embedding
from coretune.partitions import Partition, choose_k, equal, powers_of_two, proportional, within
from coretune.pickers import drawn
from coretune.pool import Pool
from coretune.quality import named_score
from coretune.rounds import Round
from coretune.scores.draw_weights import linear_weights, softmax_weights
from coretune.selection import Budget
from coretune.shapes import Float

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Kmq:
    """Options of `kmq`."""

    quality: str
    """What a row is drawn by: length, a column of the data that holds a number, or what a model says of it
    (answer_tokens, low_loss, high_loss, ifd, ifd_perplexity, yes_probability); higher is better."""
    embedder: str = "minilm"
    """The encoder: a hub id, a folder, `minilm`, or any causal language model."""
    clusters: int | None = None
    """How many cells; none lets the corrected silhouette choose among powers of two."""
    draw: Literal["softmax", "linear"] = "softmax"
    """How a score becomes a probability: exp(score / temperature), or the score itself."""
    temperature: float = 1.0
    """The softmax's temperature, in units of the score."""
    quotas: Literal["proportional", "equal"] = "proportional"
    """What a cell gets: its share of the pool, or the same as every other cell."""
    remote_code: bool = False
    """Let code that comes with the encoder run."""
    model: str | None = None
    """The model behind the quality, where it needs one."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: a draw by quality from every cell."""
        quality = named_score(self.quality, pool, lab, model=self.model, template=self.template)
        x = lab.features(Embedding(self.embedder, remote_code=self.remote_code), pool).array()
        cluster_rng, draw_rng = rng.spawn(2)
        grid = powers_of_two(len(pool), budget.rows) if self.clusters is None else (self.clusters,)
        cells = lab.keep(choose_k, x, cluster_rng, grid=grid)
        quotas = proportional if self.quotas == "proportional" else equal
        log_weights = (
            softmax_weights(quality, temperature=self.temperature)
            if self.draw == "softmax"
            else linear_weights(quality)
        )
        chosen = budget.fill(
            lambda k, rng: within(
                cells,
                quotas(cells.sizes, k),
                lambda rows, quota, rng: drawn(log_weights[rows], quota, rng=rng),  # Eq. 3
                rng,
            ),
            draw_rng,
        )
        notes = {"quality": self.quality, "rows_really_drawn_among": _effective_rows(log_weights, cells)}
        yield Round(chosen, partition=cells, columns={self.quality: quality}, notes=notes)


def _effective_rows(log_weights: Float[np.ndarray, " n"], cells: Partition) -> float:
    """Mean over cells of exp(entropy) of the draw: how many rows of a cell have a real chance of the next pick."""
    counts = []
    for cell in range(len(cells.sizes)):
        mine = log_weights[cells.members(cell)]
        p = np.exp(mine - mine.max()) if np.isfinite(mine.max()) else np.ones(len(mine))
        p /= p.sum()
        counts.append(float(np.exp(-(p * np.log(np.where(p > 0, p, 1.0))).sum())))
    return float(np.mean(counts))
