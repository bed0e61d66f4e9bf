"""Draw rows uniformly: the baseline that every other method has to beat.

Paper: none; the control of every study of data selection (for example arXiv 2410.09335).
Needs: nothing.
Costs: nothing.

Every row that may be chosen is equally likely. Noise is drawn for all rows at once, so a smaller budget with the same
seed is a prefix of a larger one.

Notation: k, the budget.
Relations: `km_random` is this within each cell of a clustering.
Differs: nothing to differ from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.pickers import uniform
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Random:
    """Options of `random`: none."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: k rows, uniformly without replacement."""
        yield Round(budget.fill(lambda k, rng: uniform(len(pool), k, rng=rng), rng))
