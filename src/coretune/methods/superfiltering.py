"""Let a small model find the rows whose instruction helps least to predict the answer (Superfiltering).

Paper: Li et al., "Superfiltering: Weak-to-Strong Data Filtering for Fast Instruction-Tuning", ACL 2024, arXiv
    2402.00530.
Needs: a small language model (`--select-model`; the paper's has 124M parameters).
Costs: two forward passes over the pool, one of them over the answers alone.

1. Loss of every answer after its instruction, and of the answer alone.
2. The score is the ratio of the two perplexities; rows of 1 and more, where the instruction misleads, come last.
3. The highest scores.

Notation: IFD -> `ifd_perplexity_ratio`; s(A|Q), s(A) -> `AnswerLoss` after the conversation, after nothing.
Relations: `ifd` divides losses, which orders rows otherwise (losses .1/.3 and 2/3: the second is harder there, the
first here), and tunes its model first; `t_shirt` counts only tokens that the instruction changes.
Differs: the authors' code drops rows of 1 and more; here they come after all others, least misleading first, so that
any budget is met. They count a fixed 10% of 52,002 rows. Their variant with facility location is
`--superfiltering.diverse`: the best tenfold, then the rows that cover them best. The model's chat template stands for
the authors' prompt, and an answer alone follows the beginning-of-sequence token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.distances import Closeness, rows_of
from coretune.features.answer_loss import AnswerLoss
from coretune.features.embedding import Embedding
from coretune.pickers import facility_location, top
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.scores.surprise import ifd_perplexity_ratio, misleading_last
from coretune.selection import Budget, Selection, lift

if TYPE_CHECKING:
    from coretune.lab import Lab

WIDER = 10  # the variant covers the best 20% by 2% of the pool


@dataclass(frozen=True)
class Superfiltering:
    """Options of `superfiltering`."""

    model: str = "smollm2-135m"
    """The model that reads: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    diverse: bool = False
    """Among ten times the budget by score, take the rows that cover these best (the paper's variant .D)."""
    embedder: str = "minilm"
    """The encoder that `diverse` measures distances by."""
    max_tokens: int | None = None
    """Tokens of a conversation that are read; context is cut before answers. None is 2,048, or the model's window."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the highest ratios, or rows that cover them."""
        given, alone = (
            lab.features(AnswerLoss(self.model, before, template=self.template, max_tokens=self.max_tokens), pool)
            for before in ("conversation", "nothing")
        )
        ratio = ifd_perplexity_ratio(given.array(), alone.array())
        score = misleading_last(ratio)

        def covering(k: int) -> Selection:
            best = top(score, min(len(pool), WIDER * k)).rows
            x = lab.features(Embedding(self.embedder), pool, best).array()
            return lift(facility_location(Closeness(rows_of(x)), k), best)

        chosen = budget.fill(lambda k, _: covering(k) if self.diverse else top(score, k), rng)
        yield Round(chosen, columns={"ifd_perplexity": ratio, "loss": given.array()})
