"""Take the rows with the longest answers: the simple baseline that many selectors fail to beat.

Paper: Zhao et al., "Long Is More for Alignment", 2024, arXiv 2402.04833.
Needs: nothing; lengths are characters, or answer tokens with `--longest.model`.
Costs: one pass over the text.

Rows are ordered by the length of their answers, longest first, ties to the lower row.

Notation: k, the budget; the paper's 1,000 of 52,002 Alpaca rows is `--budget 1000`.
Relations: `random` is the other control; `kmq --kmq.quality length` draws by length within the cells of a clustering.
Differs: the paper counts tokens of its own tokenizer; here characters unless a model is given, whose own template and
tokenizer then count. The paper's refinement of the chosen answers by a language model is not part of selecting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.answer_tokens import AnswerTokens
from coretune.features.length import Length
from coretune.pickers import top
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Longest:
    """Options of `longest`."""

    model: str | None = None
    """The model whose tokens are counted; none counts characters."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the k longest answers."""
        spec = Length("answer") if self.model is None else AnswerTokens(self.model, self.template)
        length = lab.features(spec, pool).array()
        unit = "answer_characters" if self.model is None else "answer_length_tokens"
        yield Round(budget.fill(lambda k, rng: top(length, k), rng), columns={unit: length})
