"""Take few rows whose weighted gradients add up to that of the whole pool (GRAD-MATCH).

Paper: Killamsetty et al., "GRAD-MATCH: Gradient Matching based Data Subset Selection for Efficient Deep Model
    Training", ICML 2021, arXiv 2103.00123, algorithms 1 and 2.
Needs: the model to be tuned, or a smaller one (`--select-model`).
Costs: a LoRA warm-up on 5% of the pool, a forward and backward pass over it, matching pursuit.

1. A short LoRA warm-up on a random share of the pool.
2. Every row's gradient in the LoRA factors, sketched, with its length.
3. In every group of rows, orthogonal matching pursuit for the group's mean gradient; groups share the budget by size.
   Weights say how many rows each pick stands for.

Notation: g_i -> a row of `x`; the target -> the group's mean; lambda -> `ridge`; w_i -> the selection's weights.
Relations: `tagcos` is this in clusters of gradients scaled to length 1; `craig` covers gradients instead of their mean.
Differs: the paper (and CORDS, its code) repeats the choice every few epochs of training and groups by class; here it is
made once, and groups are the values of a column, or all rows. Groups above 40,000 rows are split at random, so that
matching stays within memory. The ridge is relative to the mean squared length, so that it means the same for any model;
0.5 is CORDS' for CIFAR-10. Picks never repeat, and weights are never negative. The shortfall that CORDS fills with
random rows of weight 1 does not arise: matching goes on with the next best rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.methods._warm_up import ATTENTION, early_gradients, mean_square_one
from coretune.partitions import by_column, proportional, split, within
from coretune.pickers import omp
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget, Selection
from coretune.shapes import Int64

if TYPE_CHECKING:
    from coretune.lab import Lab

MOST_ROWS = 40_000  # in a group


@dataclass(frozen=True)
class GradMatch:
    """Options of `grad_match`."""

    model: str
    """The model whose gradients are taken: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    groups: str | None = None
    """A column of the data whose values are matched apart, for example source; none matches all rows at once."""
    ridge: float = 0.5
    """The ridge of matching pursuit, in mean squared lengths of a gradient."""
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
        """One round: rows that match the mean gradient of each group."""
        warm_rng, split_rng, match_rng = rng.spawn(3)
        feature, tuned = early_gradients(self, pool, lab, warm_rng)
        x = mean_square_one(feature)
        column = pool.column(self.groups) if self.groups else np.zeros(len(pool), np.int64)
        groups = split(by_column(column), MOST_ROWS, split_rng)
        target = np.stack([x[groups.members(c)].mean(axis=0, dtype=np.float64) for c in range(len(groups))])

        def matching(rows: Int64[np.ndarray, " t"], quota: int, _: np.random.Generator) -> Selection:
            return omp(x[rows], target[groups.cell[rows[0]]], quota, ridge=self.ridge)

        chosen = budget.fill(
            lambda k, rng: within(groups, proportional(groups.sizes, k), matching, rng, mass=groups.sizes), match_rng
        )
        notes = {"warm_up": tuned.address}
        yield Round(chosen, partition=groups, columns={"gradient_norm": feature.numbers["norm"]}, notes=notes)
