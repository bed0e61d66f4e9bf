"""One vector an example: the last hidden states of the model to be tuned over its chat, later tokens counting more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import numpy as np

from coretune.features import Measure, Measured, place
from coretune.features._encoders import causal_encoder
from coretune.features._pooled_states import pooled_states
from coretune.features._settled import refuse_odd, settled
from coretune.models import best_device
from coretune.pool import Example


@dataclass(frozen=True)
class WeightedStates:
    """Unit rows `(n, d)` float16: sum_i w_i h_i with w_i = i / (1 + ... + t) over the t tokens of a conversation.

    h_i are the last layer's states of the model over prompt and response in its chat template, padding left out. NaN
    where the template refuses the conversation, or there is no answer; a mark says which. Longer conversations are cut,
    the answers last (marks `truncated`, `answer_cut`).

    `Embedding(pooling="weighted")` pools in the same way over the words alone, without template and in chunks. A value
    depends on its own row alone, to the last bit on one kind of hardware.

    Source: Ivison et al., "Large-Scale Data Selection for Instruction Tuning", 2025, arXiv 2503.01807 (RDS+).
    """

    version: ClassVar[int] = 1

    model: str = field(metadata=place())
    """The model to be tuned, or another causal language model: a hub id, a folder, a GGUF file, `smollm2-135m`."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the tokenizer's digest."""
    max_tokens: int | None = None
    """Longer conversations are cut, the answer last; none is 2,048 tokens, or the model's window if that is less."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the model computes in; none is bfloat16 where the hardware has it. States are added up in float32."""
    batch_tokens: int | None = None
    """About how many tokens a batch has; none is what suits the hardware."""
    digest: str | None = None
    """Content hash of the model's weights and configuration; `resolved` finds it."""
    tokenizer: str | None = None
    """Content hash of tokenizer and template; `resolved` finds it."""

    @property
    def shard_rows(self) -> int:
        """Rows between two writes: enough that few batches are part-filled, few enough to share among workers."""
        return max(128, (self.batch_tokens or 0) // 2)

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing."""
        refuse_odd(self)

    def resolved(self) -> Self:
        """The same with model, tokenizer, window, precision and batches settled. Raises `ModelError`."""
        return self if self.digest is not None else replace(self, **settled(self))

    def load(self) -> Measure:
        """Load the model. Raises `ModelError` where it is not the one that was resolved, or cannot be loaded."""
        spec = self.resolved()
        dtype, device = spec.precision or "float32", best_device()
        encoder = causal_encoder(spec.model, "weighted", prefix="", dtype=dtype, device=device, remote_code=False)
        read = pooled_states(spec, encoder.encode, encoder.width)

        def measure(examples: Sequence[Example]) -> Measured:
            found = read(examples)
            return Measured(found.units.astype(np.float16), found.marks)

        return measure
