"""How well a language model predicts the answers of anchors when it has seen an example as a demonstration."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from coretune.chat_template import KINDS
from coretune.features import Measure, Measured, place
from coretune.features._answer_losses import BATCH_TOKENS, NOT_FINITE, causal_of, token_losses
from coretune.features._batches import Batch
from coretune.features._causal import SEES_AHEAD, Causal
from coretune.features._conversations import Conversations, conversations
from coretune.features._demonstrations import Behind, Demonstrations
from coretune.features._settled import refuse_odd, settled
from coretune.features.lora_gradient import AdapterAt
from coretune.features.reference_pool import ReferencePool
from coretune.models import best_device
from coretune.pool import Example

CUT = "demonstration_cut"
KEPT = ("DynamicLayer", "DynamicSlidingWindowLayer")  # layers of caches whose rows can be repeated
SHARED = 2  # tokens of a cache for each token of a batch, at most, but for batches of one row

Read = Callable[[Behind, int], Any]


@dataclass(frozen=True)
class DemonstrationLoss:
    """Mean log-probability of each anchor's answer tokens behind an example, `(n, m)` float32, in nats.

    The example is the single demonstration, as turns before the anchor's (one-shot score of NUGGETS, arXiv 2312.10302;
    utility of DELIFT, arXiv 2411.04425). `AnswerLoss` of the anchors gives the zero-shot values, with the sign turned.
    NaN where the chat template refuses the example, or it has no answer; a mark says which. A demonstration that is too
    long for the longest anchor loses its beginning, marked `demonstration_cut`; an anchor's tokens are never cut.

    The demonstration is read once and kept for all anchors where the model has a cache of keys and values; this changes
    values by rounding alone, `tolerance` in float32.
    """

    version: ClassVar[int] = 1
    tolerance: ClassVar[float] = 1e-4

    model: str = field(metadata=place())
    """The language model that reads."""
    anchors: ReferencePool
    """The examples whose answers are predicted."""
    adapter: AdapterAt | None = None
    """A checkpoint of an adapter, merged into the model's weights."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the tokenizer's digest."""
    max_tokens: int | None = None
    """Tokens of a demonstration and an anchor; none is 2,048, or the model's window if that is less."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the model computes in; none is bfloat16 where the hardware has it and a sample's losses agree."""
    batch_tokens: int | None = None
    """About how many tokens of anchors a batch has; none is what suits the hardware."""
    digest: str | None = None
    """Content hash of the model's weights and configuration; `resolved` finds it."""
    tokenizer: str | None = None
    """Content hash of tokenizer and template; `resolved` finds it."""

    @property
    def shard_rows(self) -> int:
        """Rows between two writes: about as long as some thousand rows of an answer loss."""
        return max(4, 16 * (self.batch_tokens or 0) // len(self.anchors))

    @property
    def row_bytes(self) -> int:
        """Bytes a row takes on the disk: float32 values, key and marks."""
        return 4 * len(self.anchors) + 32

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing."""
        refuse_odd(self)
        if not len(self.anchors):
            raise ValueError("a demonstration loss without anchors asked; give one or more")

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
        """Load the model and read the anchors. Raises `ModelError` where they are not what was resolved."""
        spec = self.resolved()
        reader = conversations(spec.model, spec.template, spec.digest, spec.tokenizer)
        demonstrations = Demonstrations(reader.tokenizer, spec.anchors.examples(), spec.max_tokens or 1)
        model = causal_of(spec)
        kept = keeps(model)

        def measure(examples: Sequence[Example]) -> Measured:
            from coretune.chat import Refused

            values = np.full((len(examples), len(spec.anchors)), np.nan, dtype=np.float32)
            marks = {name: np.zeros(len(examples), dtype=bool) for name in (*KINDS.values(), CUT, NOT_FINITE)}
            for row, example in enumerate(examples):
                try:
                    for group in demonstrations.before(example):
                        marks[CUT][row] |= group.cut
                        values[row, group.anchors] = log_likelihoods(
                            model, group, spec.batch_tokens or 1, reader.pad, kept
                        )
                except Refused as error:
                    marks[KINDS[error.kind]][row] = True
                    continue
                marks[NOT_FINITE][row] = not np.isfinite(values[row]).all()
            return Measured(values, marks)

        return measure


def log_likelihoods(model: Causal, group: Behind, batch_tokens: int, pad: int, kept: bool) -> np.ndarray:
    """Mean log-probability of each anchor's answer tokens, `(g,)`, behind a demonstration that is kept or read anew."""
    prefix = [] if kept else group.prefix
    ids = [[*prefix, *suffix] for suffix in group.suffixes]
    masks = [np.concatenate([np.zeros(len(prefix), dtype=bool), mask]) for mask in group.masks]
    longest, count = max(map(len, ids)), len(ids)
    found = Conversations(np.arange(count), ids, masks, {}, count, longest, pad)
    if kept:
        most = SHARED * batch_tokens * longest // (len(group.prefix) + longest)
        losses, _, ends = token_losses(model, found, max(1, min(batch_tokens, most)), after(model, group.prefix))
    else:
        losses, _, ends = token_losses(model, found, batch_tokens)
    means = np.add.reduceat(losses.astype(np.float64), ends[:-1]) / np.diff(ends)
    return np.asarray(-means, dtype=np.float32)


def after(model: Causal, prefix: Sequence[int]) -> Callable[[Batch], Any]:
    """A function from a batch to its states behind a prefix, which is read once."""
    cache = model.read(np.array([prefix], dtype=np.int64), use_cache=True).past_key_values

    def behind(batch: Batch) -> Any:
        mine = copy.deepcopy(cache)
        mine.batch_repeat_interleave(len(batch.ids))
        return model.read(batch.ids, use_cache=True, past_key_values=mine).last_hidden_state

    return behind


def keeps(model: Causal) -> bool:
    """Whether a model keeps what it has read in a cache that can be repeated, and reads on from it as it would anew."""
    ids = np.arange(24)[None] % 16 + 1
    whole = model.read(ids, use_cache=True)
    layers = getattr(whole.past_key_values, "layers", [])
    if not layers or any(type(layer).__name__ not in KEPT for layer in layers):
        return False
    twice = Batch(np.arange(2), np.repeat(ids[:, 16:], 2, axis=0), np.ones((2, 8), dtype=bool))
    states = after(model, ids[0, :16].tolist())(twice).float()
    want = whole.last_hidden_state[:, 16:].float()
    return bool((states - want).abs().max() <= SEES_AHEAD * want.std())
