"""How many answer tokens each example has under a model's own chat template: what token budgets are counted in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from coretune.chat_template import KINDS
from coretune.errors import ModelError
from coretune.features import Measure, Measured, place
from coretune.pool import Example

NONE = "no_answer"  # the one kind of refusal that is a count: there is nothing to count


@dataclass(frozen=True)
class AnswerTokens:
    """Answer tokens of every assistant turn, stop tokens included, `(n,)` float32; no weights are loaded.

    0 where no turn of the assistant says anything. NaN where the chat template refuses the conversation or an answer's
    place in it is not certain: a mark in the words of `chat.KINDS` says which of the reasons it was. Further marks are
    those of `chat.NOTES`, and `answer_not_stopped` where the template closes an answer with no special token.
    """

    version: ClassVar[int] = 1
    shard_rows: ClassVar[int] = 4096

    model: str = field(metadata=place())
    """The model whose tokenizer and chat template count; the address holds their digest, so a copy elsewhere agrees."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the digest."""
    tokenizer: str | None = None
    """Content hash of tokenizer and template; `resolved` finds it."""

    def resolved(self) -> Self:
        """The same with the tokenizer's digest. Raises `ModelError` where there is none, or it has no chat template."""
        from coretune.chat import chat_tokenizer, tokenizer_digest

        if self.tokenizer is not None:
            return self
        return replace(self, tokenizer=tokenizer_digest(chat_tokenizer(self.model, self.template)))

    def load(self) -> Measure:
        """Load the tokenizer. Raises `ModelError` where it is not the one that was resolved."""
        from coretune.chat import chat_tokenizer, count_tokens, tokenizer_digest

        tokenizer = chat_tokenizer(self.model, self.template)
        found = tokenizer_digest(tokenizer)
        if self.tokenizer not in (None, found):
            raise ModelError(
                f"the tokenizer of {self.model} was {self.tokenizer} when the run began and is {found} now; "
                "run again to count with the new one"
            )

        def measure(examples: Sequence[Example]) -> Measured:
            counts = count_tokens(tokenizer, examples)
            values = counts.answer.astype(np.float32)
            marks = {words: np.zeros(len(examples), dtype=bool) for words in KINDS.values()}
            for row, error in counts.refused.items():
                marks[KINDS[error.kind]][row] = True
                values[row] = 0 if error.kind == NONE else np.nan
            return Measured(values, {**marks, **counts.notes, "answer_not_stopped": counts.unstopped})

        return measure
