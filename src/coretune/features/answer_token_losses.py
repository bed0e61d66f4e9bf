"""How well a language model predicts each token of an example's answers, with what stands before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from coretune.features import ContextSpec, Measure, Measured, Ragged, _answer_losses, place
from coretune.features._answer_losses import CONTEXT_TOKENS
from coretune.features.lora_gradient import AdapterAt
from coretune.pool import Example


@dataclass(frozen=True)
class AnswerTokenLosses:
    """Negative log-probabilities of an example's answer tokens, a row of its own length each, float32, in nats.

    The tokens, in their order, whose mean `AnswerLoss` of the same fields is, with the same marks. Behind nothing they
    are the tokens that are scored behind the conversation, so that the two can be compared token by token. A row that
    cannot be read has none, and the mark `missing` beside the one that says why.
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
            marks = {**found.marks, "missing": found.numbers["tokens"] == 0}
            return Measured(Ragged(found.losses, found.offsets), marks, found.numbers)

        return measure
