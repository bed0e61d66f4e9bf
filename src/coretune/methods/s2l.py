"""Cluster rows by how a small model's loss on them falls while it learns, and serve small clusters first (S2L).

Paper: Yang et al., "SmallToLarge (S2L): Scalable Data Selection for Fine-tuning Large Language Models by Summarizing
    Training Trajectories of Small Models", NeurIPS 2024, arXiv 2403.07384.
Needs: a small model of any family (`--select-model`; the paper's has 70M parameters).
Costs: a tuning of the small model on the whole pool, and a forward pass over the pool a checkpoint.

1. Tune the small model on all rows; checkpoints evenly over the run.
2. The loss of every answer at every checkpoint is the row's trajectory.
3. In every source, k-means of its trajectories into 100 clusters.
4. Sources share the budget, and clusters the source's, smallest first: each gets an equal part of what is left, or all
   its rows; random rows of a cluster.

Notation: L_i -> a row of `x`; K -> `clusters`; B -> the budget.
Relations: `tagcos` clusters gradients of a few checkpoints; `perplexity` reads one model once.
Differs: the authors tune all weights for 3 epochs with a checkpoint every 500 steps; here LoRA factors, for as long,
with `checkpoints` over the run, which small pools need. Their code serves clusters of up to two rows last, which is
kept; it turns losses that are not numbers into 0, where such rows are left out here. Clusters: min(100, rows of the
source // 10).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.answer_loss import AnswerLoss
from coretune.features.lora_gradient import AdapterAt
from coretune.partitions import Partition, by_column, kmeans, smallest_first, within
from coretune.pickers import uniform
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget
from coretune.shapes import Float32, Int64
from coretune.tuning import Tuning

if TYPE_CHECKING:
    from coretune.lab import Lab

SMALL = 2  # rows of a cluster that is served last


@dataclass(frozen=True)
class S2l:
    """Options of `s2l`."""

    model: str = "smollm2-135m"
    """The small model: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    checkpoints: int = 12
    """How many times over the run the losses are taken."""
    clusters: int = 100
    """How many clusters in a source; fewer where that would leave fewer than 10 rows a cluster."""
    sources: str = "source"
    """The column of the data that names a row's source."""
    epochs: float = 3.0
    """How often the small model sees every row."""
    rank: int = 64
    """Rank of the LoRA factors that it learns."""
    batch_rows: int = 128
    """Rows between two steps; at most a tenth of the pool."""
    max_tokens: int | None = None
    """Tokens of a conversation that are read; context is cut before answers. None is 2,048, or the model's window."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: rows of all clusters, the small ones whole."""
        tune_rng, cluster_rng, draw_rng = rng.spawn(3)
        tuning = Tuning(
            self.model,
            template=self.template,
            rank=self.rank,
            alpha=2 * self.rank,
            batch_rows=min(self.batch_rows, max(1, len(pool) // 10)),
            epochs=self.epochs,
            checkpoints=tuple((step + 1) / self.checkpoints for step in range(self.checkpoints)),
            max_tokens=self.max_tokens,
            seed=int(tune_rng.integers(2**31)),
        )
        tuned = lab.tune(tuning, pool)
        x = np.stack([self._losses(AdapterAt(at.digest, str(at.path)), pool, lab) for at in tuned.checkpoints], axis=1)
        sources = by_column(pool.column(self.sources))
        cells = self._clusters(x, sources, lab, cluster_rng)
        owner = np.array([sources.cell[cells.members(cell)[0]] for cell in range(len(cells))])
        chosen = budget.fill(
            lambda k, rng: within(
                cells, quotas(cells.sizes, owner, k), lambda rows, quota, rng: uniform(len(rows), quota, rng=rng), rng
            ),
            draw_rng,
        )
        columns = {"first_loss": x[:, 0], "last_loss": x[:, -1]}
        yield Round(chosen, partition=cells, columns=columns, notes={"tuning": tuned.address})

    def _losses(self, adapter: AdapterAt, pool: Pool, lab: Lab) -> Float32[np.ndarray, " n"]:
        spec = AnswerLoss(self.model, adapter=adapter, template=self.template, max_tokens=self.max_tokens)
        return lab.features(spec, pool).array()

    def _clusters(
        self, x: Float32[np.ndarray, "n c"], sources: Partition, lab: Lab, rng: np.random.Generator
    ) -> Partition:
        """Clusters of trajectories in every source."""
        cell = np.zeros(len(x), np.int32)
        used = 0
        for source in range(len(sources)):
            rows = sources.members(source)
            found = lab.keep(kmeans, x[rows], min(self.clusters, max(1, len(rows) // 10)), rng)
            cell[rows] = used + found.cell
            used += len(found)
        return Partition(cell)


def quotas(sizes: Int64[np.ndarray, " c"], owner: Int64[np.ndarray, " c"], k: int) -> Int64[np.ndarray, " c"]:
    """Rows to give by every cluster of `sizes`, where `owner` is its source; clusters of one or two rows come last."""
    shares = smallest_first(np.bincount(owner, weights=sizes).astype(np.int64), k)
    quota = np.zeros(len(sizes), np.int64)
    for source, share in enumerate(shares.tolist()):
        mine = np.flatnonzero(owner == source)
        quota[mine] = smallest_first(sizes[mine], share, above=SMALL)
    return quota
