"""Answers of anchors read behind an example, for the features that say how it helps: one demonstration at a time.

A demonstration is read once and kept for all anchors, where the model has a cache of keys and values that can be
repeated; where it has none, it is read anew with every anchor.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from coretune.chat_template import KINDS
from coretune.features import Measure, Measured
from coretune.features._answer_losses import BATCH_TOKENS, NOT_FINITE, causal_of, token_losses
from coretune.features._batches import Batch
from coretune.features._causal import SEES_AHEAD, Causal
from coretune.features._conversations import Conversations, conversations
from coretune.features._demonstrations import Behind, Demonstrations
from coretune.features._settled import refuse_odd, settled
from coretune.models import best_device
from coretune.pool import Example
from coretune.shapes import Float, Float32, Int64

CUT = "demonstration_cut"
KEPT = ("DynamicLayer", "DynamicSlidingWindowLayer")  # layers of caches whose rows can be repeated
SHARED = 2  # tokens of a cache for each token of a batch, at most, but for batches of one row

Spec = TypeVar("Spec", bound=Any)
Reduce = Callable[[Float[np.ndarray, " t"], Int64[np.ndarray, " g1"]], Float[np.ndarray, " g"]]
"""Token losses in nats, anchor by anchor, and where each anchor's begin and the last one's end, to a value each."""


def refuse_nonsense(spec: Any) -> None:
    """Raise `ValueError` for fields that mean nothing."""
    refuse_odd(spec)
    if not len(spec.anchors):
        raise ValueError("anchors' answers are asked without anchors; give one or more")


def shard_rows(spec: Any) -> int:
    """Rows between two writes: some hundred answers on a CPU, some ten thousand on a GPU; under a minute's work."""
    return max(4, 2 * (spec.batch_tokens or 0) // len(spec.anchors))


def resolved(spec: Spec) -> Spec:
    """The same with model, tokenizer, window, precision and batches settled. Raises `ModelError`."""
    from coretune.features._loss_precision import agreeing_precision

    if spec.digest is not None:
        return spec
    known = replace(spec, **{**settled(spec), "batch_tokens": spec.batch_tokens or BATCH_TOKENS[best_device()]})
    if known.adapter is not None:
        known = replace(known, adapter=replace(known.adapter, weight=1.0))
    if spec.precision:
        return known
    return replace(known, precision=agreeing_precision(replace(known, precision=None)))


def load(spec: Any, reduce: Reduce) -> Measure:
    """Load the model of a resolved spec and read its anchors; values are what `reduce` makes of token losses, `(n, m)`.

    Raises `ModelError` where they are not what was resolved.
    """
    from coretune.chat import Refused

    reader = conversations(spec.model, spec.template, spec.digest, spec.tokenizer)
    demonstrations = Demonstrations(reader.tokenizer, spec.anchors.examples(), spec.max_tokens or 1)
    model = causal_of(spec)
    kept = keeps(model)

    def measure(examples: Sequence[Example]) -> Measured:
        values = np.full((len(examples), len(spec.anchors)), np.nan, dtype=np.float32)
        marks = {name: np.zeros(len(examples), dtype=bool) for name in (*KINDS.values(), CUT, NOT_FINITE)}
        for row, example in enumerate(examples):
            try:
                for group in demonstrations.before(example):
                    marks[CUT][row] |= group.cut
                    losses, ends = losses_behind(model, group, spec.batch_tokens or 1, reader.pad, kept)
                    values[row, group.anchors] = reduce(losses.astype(np.float64), ends)
            except Refused as error:
                marks[KINDS[error.kind]][row] = True
                continue
            marks[NOT_FINITE][row] = not np.isfinite(values[row]).all()
        return Measured(values, marks)

    return measure


def losses_behind(
    model: Causal, group: Behind, batch_tokens: int, pad: int, kept: bool
) -> tuple[Float32[np.ndarray, " t"], Int64[np.ndarray, " g1"]]:
    """Losses of the anchors' answer tokens behind a demonstration that is kept or read anew, and where each's begin."""
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
    return losses, ends


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
