"""The loss of every answer token when what a model reads is blurred a little, many times over (T-SHIRT)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

import numpy as np

from coretune.errors import need
from coretune.features import Measure, Measured, Ragged, place
from coretune.features._answer_losses import BATCH_TOKENS, NOT_FINITE, causal_of, reader_of, token_losses
from coretune.features._batches import Batch
from coretune.features._causal import Causal
from coretune.features._conversations import Conversations
from coretune.features._settled import refuse_odd, settled
from coretune.features.lora_gradient import AdapterAt
from coretune.models import best_device
from coretune.pool import Example
from coretune.shapes import Float32


@dataclass(frozen=True)
class NoisyTokenLosses:
    """Losses of an example's answer tokens in nats, float32, for each of `copies` blurred copies, one after the other.

    A row has copies x tokens of them: `row.reshape(copies, -1)`, tokens as in `AnswerTokenLosses`, with the same marks.
    A copy adds noise to the input embeddings, uniform from -1 to 1 times `scale` / sqrt(L C) for L tokens of C numbers
    (NEFTune's, arXiv 2310.05914). It is drawn from the example's content, `seed`, `before` and the copy's number, so a
    row's values depend on itself alone, to the last bit on one kind of hardware.

    Source: T-SHIRT, Fu et al. (2025), arXiv 2506.01317; 30 copies and a scale of 5 are its.
    """

    version: ClassVar[int] = 1

    model: str = field(metadata=place())
    """The language model that reads."""
    before: Literal["conversation", "nothing"] = "conversation"
    """What stands before an answer: all of the conversation, or nothing but the token that begins a text."""
    copies: int = 30
    """How many blurred copies are read."""
    scale: float = 5.0
    """How strong the noise is, NEFTune's alpha; 0 reads the same every time."""
    seed: int = 0
    """Of the noise."""
    adapter: AdapterAt | None = None
    """A checkpoint of an adapter, merged into the model's weights."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the tokenizer's digest."""
    max_tokens: int | None = None
    """Longer conversations are cut, the answer last; none is 2,048 tokens, or the model's window if that is less."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the model computes in; none is bfloat16 where the hardware has it and a sample's losses agree."""
    batch_tokens: int | None = None
    """About how many tokens a batch has; none is what suits the hardware."""
    digest: str | None = None
    """Content hash of the model's weights and configuration; `resolved` finds it."""
    tokenizer: str | None = None
    """Content hash of tokenizer and template; `resolved` finds it."""

    @property
    def detail(self) -> str:
        """What stands before the answers, where that is not the conversation."""
        return "alone" if self.before == "nothing" else ""

    @property
    def shard_rows(self) -> int:
        """Rows between two writes: about as long as some hundred rows that are read once."""
        return max(8, 512 // self.copies)

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing."""
        refuse_odd(self, before=("conversation", "nothing"))
        if self.copies < 1 or not 0 <= self.scale < np.inf:
            raise ValueError(f"{self.copies} copies with noise of {self.scale} asked; give 1 or more, and 0 or more")

    def resolved(self) -> Self:
        """The same with model, tokenizer, window, precision and batches settled. Raises `ModelError`."""
        from coretune.features._loss_precision import agreeing_precision

        if self.digest is not None:
            return self
        known = replace(self, **{**settled(self), "batch_tokens": self.batch_tokens or BATCH_TOKENS[best_device()]})
        if known.adapter is not None:
            known = replace(known, adapter=replace(known.adapter, weight=1.0))
        return known if self.precision else replace(known, precision=agreeing_precision(replace(known, precision=None)))

    def load(self) -> Measure:
        """Load model and adapter. Raises `ModelError` where they are not what was resolved."""
        spec = self.resolved()
        reader, model = reader_of(spec), causal_of(spec)

        def measure(examples: Sequence[Example]) -> Measured:
            found, numbers = reader.read(examples)
            copies = []
            for copy in range(spec.copies):
                losses, _, ends = token_losses(
                    model, found, spec.batch_tokens or 1, blurred(model, spec, found, examples, copy)
                )
                copies.append(losses)
            offsets = found.offsets(ends)
            rows = [np.stack([losses[a:b] for losses in copies]).ravel() for a, b in pairwise(offsets)]
            bad = np.array([not np.isfinite(row).all() for row in rows], dtype=bool)
            marks = {**found.marks, NOT_FINITE: bad, "missing": numbers["tokens"] == 0}
            return Measured(Ragged.of(rows), marks, numbers)

        return measure


def blurred(
    model: Causal, spec: NoisyTokenLosses, found: Conversations, examples: Sequence[Example], copy: int
) -> Callable[[Batch], Any]:
    """From a batch to its states, with noise on every piece's embeddings."""
    torch = need("torch", "models")
    embed = model.body.get_input_embeddings()
    first = np.searchsorted(found.rows, found.rows)  # of the pieces of each piece's row

    def states(batch: Batch) -> Any:
        with torch.inference_mode():
            x = embed(torch.from_numpy(batch.ids).to(model.device))
            noise = np.zeros(x.shape, np.float32)
            for row, piece in enumerate(batch.pieces.tolist()):
                key, length = examples[found.rows[piece]].key, len(found.ids[piece])
                noise[row, :length] = drawn(spec, key, piece - int(first[piece]), copy, (length, x.shape[2]))
            x = (x.float() + torch.from_numpy(noise).to(model.device)).to(x.dtype)
            return model.body(inputs_embeds=x, use_cache=False).last_hidden_state

    return states


def drawn(
    spec: NoisyTokenLosses, key: bytes, piece: int, copy: int, shape: tuple[int, int]
) -> Float32[np.ndarray, "L C"]:
    """The noise of one piece of an example in one copy."""
    said = f"{spec.seed} {spec.before} {piece} {copy}".encode()
    rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(key + said, digest_size=16).digest(), "little"))
    noise = 2 * rng.random(shape, dtype=np.float32) - 1
    return np.asarray(noise * np.float32(spec.scale / np.sqrt(shape[0] * shape[1])))
