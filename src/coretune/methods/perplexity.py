"""Take the rows whose answers the model finds easiest, hardest or middling: the bands of perplexity.

Paper: Ivison et al., "Large-Scale Data Selection for Instruction Tuning", 2025, arXiv 2503.01807, section 3 (top and
    middle perplexity); Marion et al., "When Less is More", 2023, arXiv 2309.04564 (all three bands).
Needs: a language model; a small one will do (`--select-model`).
Costs: one forward pass over the pool.

1. Perplexity of every answer given what stands before it, exp of the mean loss of its tokens.
2. The rows in the band: lowest, highest, or nearest the median.

Notation: PPL -> the exponential of `AnswerLoss`.
Relations: `ifd` divides by the loss without the instruction; `recost` subtracts the loss with outside knowledge.
Differs: both papers read plain text of pre-training or 200,000-row pools; here the model's own chat template, and loss
on answer tokens of all assistant turns alone. The middle band is the k rows nearest the median rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from coretune.features.answer_loss import AnswerLoss
from coretune.pickers import middle, top
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Perplexity:
    """Options of `perplexity`."""

    model: str
    """The model that reads: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    band: Literal["low", "middle", "high"] = "middle"
    """Which rows: those of lowest, of middling or of highest perplexity."""
    max_tokens: int | None = None
    """Tokens of a conversation that are read; context is cut before answers. None is 2,048, or the model's window."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the rows of the band."""
        loss = lab.features(AnswerLoss(self.model, template=self.template, max_tokens=self.max_tokens), pool).array()
        pick = {"low": lambda k: top(-loss, k), "middle": lambda k: middle(loss, k), "high": lambda k: top(loss, k)}
        chosen = budget.fill(lambda k, _: pick[self.band](k), rng)
        yield Round(chosen, columns={"perplexity": np.exp(loss)})
