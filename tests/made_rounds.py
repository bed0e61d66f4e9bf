"""A method that tunes every round and gives its cells weights, small enough for tests: `tests.made_rounds:Turns`.

Needs: a model. Costs: a tiny tuning a round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.errors import Unmeasurable
from coretune.features.answer_loss import AnswerLoss
from coretune.methods._loop import adapter_of, tuned_on
from coretune.partitions import by_column
from coretune.pickers import uniform
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget, Selection, lift, union
from coretune.tuning import Tuning

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Turns:
    """Draw rows, tune on all so far, measure the new ones, and let cells with high losses weigh more."""

    model: str
    """The model that is tuned."""
    template: str | None = None
    """Its template."""
    count: int = 3
    """How many rounds."""
    rows_a_round: int | None = None
    """Rows in each."""
    refused: int = 0
    """So many rows turn out to be unmeasurable after the second round."""
    tuned: bool = True
    """Whether a model is tuned at all."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """Yield a round a part of the budget."""
        seed = int(rng.integers(2**31))
        cells = by_column(pool.column("topic"))
        weights, chosen = np.ones(len(cells)) / len(cells), Selection.of([])
        tuning = Tuning(
            self.model, rank=2, learning_rate=5e-3, epochs=1, batch_rows=8, max_tokens=64, precision="float32"
        )
        for number, part in enumerate(budget.rounds(self.count, self.rows_a_round)):
            chosen = part.fill(_more(chosen, len(pool)), np.random.default_rng([seed, number]))
            if not self.tuned:
                yield Round(chosen, partition=cells)
                continue
            tuned = tuned_on(tuning, pool, chosen.rows, lab, seed=seed)
            spec = AnswerLoss(self.model, adapter=adapter_of(tuned), max_tokens=64, precision="float32")
            loss = np.full(len(pool), np.nan, dtype=np.float32)
            loss[chosen.rows] = lab.features(spec, pool, chosen.rows).array()
            if number == 1 and self.refused and len(pool) == 120:
                raise Unmeasurable(chosen.rows[: self.refused], "refused", pool)
            inside = cells.cell[chosen.rows]
            mean = np.bincount(inside, loss[chosen.rows], len(cells)) / np.maximum(np.bincount(inside), 1)
            weights = weights * np.exp(mean - mean.max())
            weights /= weights.sum()
            said = {"weight": weights.copy(), "score": mean}
            schedule = {"row": np.sort(chosen.rows), "step": np.arange(len(chosen)) // 8, "note": "in pool order"}
            yield Round(chosen, tuned, cells, {"loss": loss}, said, schedule=schedule, notes={"seed": seed})


def _more(before: Selection, n: int):
    """`before`, and then rows drawn of the others."""

    def choose(k: int, rng: np.random.Generator) -> Selection:
        if k <= len(before):
            return before.head(k)
        others = np.setdiff1d(np.arange(n), before.rows)
        return union([before, lift(uniform(len(others), k - len(before), rng=rng), others)])

    return choose
