"""How well a language model predicts the answers of an example: their mean loss, with what stands before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np

from coretune.features import ContextSpec, Measure, Measured, _answer_losses, place
from coretune.features._answer_losses import CONTEXT_TOKENS
from coretune.features.lora_gradient import AdapterAt
from coretune.pool import Example


@dataclass(frozen=True)
class AnswerLoss:
    """Mean negative log-probability of an example's answer tokens `(n,)` float32, in nats, every assistant turn's.

    Numbers: `sum` over the tokens, `tokens`, and `entropy`, the mean entropy of what the model predicts at each of them
    over its whole vocabulary, in nats. With a context also `passages` put in and `passages_dropped` for want of room,
    and what the context itself tells. An answer token is one as in `chat.encode`, stop tokens included; behind nothing
    the same tokens are scored, each answer behind the beginning-of-sequence token (or the template's first).

    NaN where the chat template refuses the conversation or an answer token has no finite loss; a mark says which.
    Where a conversation is too long, passages go first, the worst ones before others, then the conversation's
    beginning (`truncated`), and the end of answers only where they fill the window alone (`answer_cut`).

    A value depends on its own row alone, to the last bit on one kind of hardware: batches have fixed shapes.
    """

    version: ClassVar[int] = 1

    model: str = field(metadata=place())
    """The language model that reads."""
    before: Literal["conversation", "nothing"] = "conversation"
    """What stands before an answer: all of the conversation, or nothing but the token that begins a text."""
    context: ContextSpec | None = None
    """Where passages from outside come from: they go before the first user turn's text, an empty line after each."""
    context_tokens: int = CONTEXT_TOKENS
    """Tokens that passages may take: as many whole ones as fit, the best first."""
    adapter: AdapterAt | None = None
    """A checkpoint of an adapter, merged into the model's weights."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the tokenizer's digest."""
    max_tokens: int | None = None
    """Longer conversations are cut, the answer last; none is 2,048 tokens, or the model's window if that is less."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the model computes in; none is bfloat16 where the hardware has it and a sample's losses agree. Losses are
    taken of its logits in float32."""
    batch_tokens: int | None = None
    """About how many tokens a batch has; none is what suits the hardware."""
    digest: str | None = None
    """Content hash of the model's weights and configuration; `resolved` finds it."""
    tokenizer: str | None = None
    """Content hash of tokenizer and template; `resolved` finds it."""

    @property
    def detail(self) -> str:
        """What stands before the answers, where that is not the conversation alone."""
        return _answer_losses.detail_of(self)

    @property
    def shard_rows(self) -> int:
        """Rows between two writes: enough that few batches are part-filled, few enough to share among workers."""
        return max(512, (self.batch_tokens or 0) // 2)

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing."""
        _answer_losses.refuse_nonsense(self)

    def resolved(self) -> Self:
        """The same with model, tokenizer, window, precision, batches and context settled. Raises `ModelError`."""
        return _answer_losses.resolved(self)

    def load(self) -> Measure:
        """Load model, adapter and context. Raises `ModelError` where they are not what was resolved."""
        losses_of = _answer_losses.load(self.resolved())

        def measure(examples: Sequence[Example]) -> Measured:
            found = losses_of(examples)
            sums, count = found.sums(found.losses), np.maximum(found.numbers["tokens"], 1)
            numbers = {"sum": sums, "entropy": found.sums(found.entropies) / count}
            said = {name: each.astype(np.float32) for name, each in {**found.numbers, **numbers}.items()}
            return Measured((sums / count).astype(np.float32), found.marks, said)

        return measure
