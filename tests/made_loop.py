"""Methods that tune, small enough for tests: one selects, tunes, looks and selects again, one tunes first, on all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.answer_loss import AnswerLoss
from coretune.methods._loop import adapter_of, tuned_on
from coretune.pickers import top
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget, Selection, union
from coretune.tuning import Tuning

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Worst:
    """Options of the method."""

    model: str
    """The model that is tuned."""
    template: str | None = None
    """Its template."""
    parts: int = 2
    """How many rounds."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """In every round, the rows with the highest loss under the model of the round before."""
        chosen, adapter = Selection.of([]), None
        tuning = small_tuning(self.model)
        for part in budget.rounds(self.parts):
            loss = lab.features(AnswerLoss(self.model, adapter=adapter, precision="float32"), pool).array()
            left = np.where(np.isin(np.arange(len(pool)), chosen.rows), -np.inf, loss)

            def longer(
                k: int, _: np.random.Generator, before: Selection = chosen, left: np.ndarray = left
            ) -> Selection:
                return before.head(k) if k <= len(before) else union([before, top(left, k - len(before))])

            chosen = part.fill(longer, rng)
            tuned = tuned_on(tuning, pool, chosen.rows, lab, seed=7)
            adapter = adapter_of(tuned)
            yield Round(chosen, model=tuned, columns={"loss": loss})


@dataclass(frozen=True)
class First:
    """Options of the method."""

    model: str
    """The model that is tuned."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the rows with the highest loss under a model that was tuned on all of them."""
        adapter = adapter_of(tuned_on(small_tuning(self.model), pool, np.arange(len(pool)), lab, seed=7))
        loss = lab.features(AnswerLoss(self.model, adapter=adapter, precision="float32"), pool).array()
        yield Round(budget.fill(lambda k, _: top(loss, k), rng))


def small_tuning(model: str) -> Tuning:
    return Tuning(model, rank=2, learning_rate=5e-3, epochs=1, batch_rows=32, max_tokens=64, precision="float32")
