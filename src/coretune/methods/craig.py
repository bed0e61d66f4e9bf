"""Take rows such that every row's gradient has a chosen one near it, each weighted by how many it stands for (CRAIG).

Paper: Mirzasoleiman, Bilmes and Leskovec, "Coresets for Data-efficient Training of Machine Learning Models", ICML 2020,
    arXiv 1906.01827, algorithm 1.
Needs: the model to be tuned, or a smaller one (`--select-model`).
Costs: a LoRA warm-up on 5% of the pool, a forward and backward pass over it, distances between all rows of a group.

1. A short LoRA warm-up on a random share of the pool.
2. Every row's gradient in the LoRA factors, sketched, with its length.
3. In every group of rows, greedy facility location: the sum over rows of (reach - distance to the nearest pick), which
   bounds the error of the group's gradient. Groups share the budget by size.
4. A pick weighs as many rows as it is the nearest pick of.

Notation: s_ij = d_0 - d_ij -> `Closeness`; gamma_j -> the selection's weights.
Relations: `grad_match` matches the mean of gradients, which this bounds; `k_center` minimises the largest distance.
Differs: the paper chooses by class, once a convex model is known or every epoch of a deep one, by gradients of the last
layer; here once, after a warm-up, by those of LoRA factors, and groups are the values of a column, or all rows. Groups
above 10,000 rows are split at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.distances import Closeness, rows_of
from coretune.methods._warm_up import ATTENTION, early_gradients, mean_square_one
from coretune.partitions import by_column, proportional, split, within
from coretune.pickers import facility_location
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget, Selection
from coretune.shapes import Int64

if TYPE_CHECKING:
    from coretune.lab import Lab

MOST_ROWS = 10_000  # in a group


@dataclass(frozen=True)
class Craig:
    """Options of `craig`."""

    model: str
    """The model whose gradients are taken: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    groups: str | None = None
    """A column of the data whose values are covered apart, for example source; none covers all rows at once."""
    width: int = 512
    """Numbers a gradient is sketched to."""
    warmup_share: float = 0.05
    """Share of the pool that the warm-up trains on."""
    rank: int = 8
    """Rank of the warm-up's LoRA factors."""
    targets: tuple[str, ...] = ATTENTION
    """The linear layers that get LoRA factors, by the end of their names, or all-linear alone."""
    max_tokens: int = 2048
    """Tokens of a conversation that are read; context is cut before answers."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: rows that cover the gradients of each group."""
        warm_rng, split_rng, cover_rng = rng.spawn(3)
        feature, tuned = early_gradients(self, pool, lab, warm_rng)
        x = mean_square_one(feature)
        column = pool.column(self.groups) if self.groups else np.zeros(len(pool), np.int64)
        groups = split(by_column(column), MOST_ROWS, split_rng)

        def cover(rows: Int64[np.ndarray, " t"], quota: int, _: np.random.Generator) -> Selection:
            return facility_location(Closeness(rows_of(x[rows])), quota)

        chosen = budget.fill(
            lambda k, rng: within(groups, proportional(groups.sizes, k), cover, rng, mass=groups.sizes), cover_rng
        )
        notes = {"warm_up": tuned.address}
        yield Round(chosen, partition=groups, columns={"gradient_norm": feature.numbers["norm"]}, notes=notes)
