"""One vector an example: the mean of the last hidden states of a model, or of a model on the way, over the chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

from coretune.errors import need
from coretune.features import Measure, Measured, place
from coretune.features._answer_losses import causal_of, fineness
from coretune.features._batches import Batch
from coretune.features._encoders import POOLINGS
from coretune.features._pooled_states import pooled_states
from coretune.features._settled import refuse_odd, settled
from coretune.features.lora_gradient import AdapterAt
from coretune.pool import Example

LONGEST = 512  # tokens of a conversation, as the authors of DiverseEvol cut


@dataclass(frozen=True)
class MeanStates:
    """The mean of the last layer's states over all tokens of a conversation in its chat template `(n, d)` float32.

    Tokens of the prompt count as those of answers do; padding never does. Rows are as the model gives them, of any
    length, unless `normalize` is on: a few dimensions are much larger than the others, so float16 would not do. NaN
    where the template refuses the conversation, where there is no answer, or where a state is not finite; a mark says
    which. Longer conversations are cut as a tuning cuts them, the answers last (marks `truncated`, `answer_cut`).

    A value depends on its own row alone, to the last bit on one kind of hardware: batches have fixed shapes.

    Source: Wu et al., "Self-Evolved Diverse Data Sampling for Efficient Instruction Tuning", 2023, arXiv 2311.08182.
    """

    version: ClassVar[int] = 1

    model: str = field(metadata=place())
    """The language model that reads: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    adapter: AdapterAt | None = None
    """A checkpoint of an adapter, merged into the model's weights."""
    normalize: bool = False
    """Scale rows to length 1."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the tokenizer's digest."""
    max_tokens: int | None = LONGEST
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
    def detail(self) -> str:
        """Whether the model is one on the way."""
        return "" if self.adapter is None else "tuned"

    @property
    def shard_rows(self) -> int:
        """Rows between two writes: enough that few batches are part-filled, few enough to share among workers."""
        return max(512, (self.batch_tokens or 0) // 2)

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing."""
        refuse_odd(self)

    def resolved(self) -> Self:
        """The same with model, tokenizer, window, precision and batches settled. Raises `ModelError`."""
        if self.digest is not None:
            return self
        adapter = None if self.adapter is None else replace(self.adapter, weight=1.0)
        return replace(self, **settled(self), adapter=adapter)

    def load(self) -> Measure:
        """Load model and adapter. Raises `ModelError` where they are not what was resolved, or cannot be loaded."""
        torch = need("torch", "models")
        spec = self.resolved()
        model, mean = causal_of(spec), POOLINGS["mean"]

        def encode(batch: Batch) -> Any:
            with torch.inference_mode():
                states = model.read(batch.ids).last_hidden_state.float()
                return mean(states, torch.from_numpy(batch.mask).to(model.device)).cpu().numpy()

        width = model.model.config.get_text_config().hidden_size
        read = pooled_states(spec, encode, width, **fineness(spec.batch_tokens or 1))

        def measure(examples: Sequence[Example]) -> Measured:
            found = read(examples)
            return Measured(found.units if spec.normalize else found.values, found.marks)

        return measure
