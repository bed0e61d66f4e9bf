"""The loss of every answer token of examples, for the features that read it: one forward pass, no gradients, no cache.

Batches have fixed shapes, and states whose next token is an answer's wait until there are as many as the output layer
takes at a time: a token's loss does not depend on its neighbours, and logits are never there for a whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from coretune.errors import ModelError, need
from coretune.features._answer_pieces import AnswersAlone, WholeConversations, first_token
from coretune.features._answers import answers_of
from coretune.features._batches import Batch, batches
from coretune.features._causal import Causal, losses_of
from coretune.features._conversations import Conversations, conversations
from coretune.features._settled import refuse_odd, settled
from coretune.models import best_device, load_causal_lm
from coretune.pool import Example
from coretune.shapes import Bool, Float32, Int64

BATCH_TOKENS = {"cpu": 128, "mps": 2048, "cuda": 8192}  # on CPUs as fast as more, and fewer dummies fill batches
SMALL = 1024  # tokens of batches of which few are part-filled, so that widths may grow in fine steps
NOT_FINITE = "loss not finite"
CONTEXT_TOKENS = 1024

Spec = TypeVar("Spec", bound=Any)


@dataclass(frozen=True)
class TokenLosses:
    """Of n examples, in nats: row i's answer tokens have `losses` and `entropies` `offsets[i]:offsets[i + 1]`."""

    losses: Float32[np.ndarray, " t"]
    entropies: Float32[np.ndarray, " t"]
    offsets: Int64[np.ndarray, " n1"]
    marks: dict[str, Bool[np.ndarray, " n"]]
    numbers: dict[str, Float32[np.ndarray, " n"]]

    def sums(self, values: Float32[np.ndarray, " t"]) -> np.ndarray:
        """The sum of a row's values, `(n,)` float64; NaN for rows without an answer token."""
        sums = np.full(len(self.offsets) - 1, np.nan)
        some = np.flatnonzero(np.diff(self.offsets))
        if len(some):
            sums[some] = np.add.reduceat(values.astype(np.float64), self.offsets[some])
        return sums


def refuse_nonsense(spec: Any) -> None:
    """Raise `ValueError` for fields that mean nothing."""
    refuse_odd(spec, before=("conversation", "nothing"))
    if spec.max_tokens == 1:
        raise ValueError("max_tokens 1 asked of an answer loss; a token and one that predicts it take 2")
    if spec.context_tokens < 1:
        raise ValueError(f"context_tokens {spec.context_tokens} asked of an answer loss; give 1 or more")
    if spec.context is not None and spec.before == "nothing":
        raise ValueError("a context is asked of an answer loss before nothing; ask for it before the conversation")


def detail_of(spec: Any) -> str:
    """What tells a loss from others of its model, in words: `alone`, `behind retrieved`."""
    if spec.before == "nothing":
        return "alone"
    return "" if spec.context is None else f"behind {type(spec.context).__name__.removesuffix('Context').lower()}"


def resolved(spec: Spec) -> Spec:
    """The same spec with nothing left open. Raises `ModelError`."""
    from coretune.features._loss_precision import agreeing_precision

    if spec.digest is not None:
        return spec
    found = {
        **settled(spec),
        "batch_tokens": spec.batch_tokens or BATCH_TOKENS[best_device()],
        "context": None if spec.context is None else spec.context.resolved(),
        "context_tokens": CONTEXT_TOKENS if spec.context is None else spec.context_tokens,
        "adapter": None if spec.adapter is None else replace(spec.adapter, weight=1.0),
    }
    known = replace(spec, **found)
    return known if spec.precision else replace(known, precision=agreeing_precision(known))


def load(spec: Any) -> Callable[[Sequence[Example]], TokenLosses]:
    """Load what a resolved spec names. Raises `ModelError` where it is not what was resolved."""
    reader, model = reader_of(spec), causal_of(spec)

    def measure(examples: Sequence[Example]) -> TokenLosses:
        found, numbers = reader.read(examples)
        losses, entropies, ends = token_losses(model, found, spec.batch_tokens)
        offsets = found.offsets(ends)
        marks = {**found.marks, NOT_FINITE: np.zeros(found.count, dtype=bool)}
        bad = np.flatnonzero(~np.isfinite(losses))
        marks[NOT_FINITE][np.searchsorted(offsets, bad, side="right") - 1] = True
        return TokenLosses(losses, entropies, offsets, marks, numbers)

    return measure


def reader_of(spec: Any) -> AnswersAlone | WholeConversations:
    """What makes pieces of examples for a resolved spec, with its context where it has one."""
    tokenizer = conversations(spec.model, spec.template, spec.digest, spec.tokenizer).tokenizer
    first, context = first_token(tokenizer, spec.model), getattr(spec, "context", None)
    if spec.before == "nothing":
        return AnswersAlone(tokenizer, first, spec.max_tokens)
    if context is None:
        return WholeConversations(tokenizer, first, spec.max_tokens)
    return WholeConversations(tokenizer, first, spec.max_tokens, context.load(), spec.context_tokens)


def causal_of(spec: Any) -> Causal:
    """The model of a resolved spec, with its adapter merged into the weights."""
    device, precision = best_device(), spec.precision or "float32"
    if spec.adapter is None:
        return Causal(load_causal_lm(spec.model, dtype=precision, device=device), spec.model, device)
    plain = load_causal_lm(spec.model, dtype="float32", device="cpu")
    tuned = in_precision(merged(plain, Path(spec.adapter.path)), precision)
    return Causal(tuned.to(device), spec.model, device)


def in_precision(model: Any, precision: str) -> Any:
    """The model with its weights in this precision, as one that is loaded so has them.

    What is no weight, such as the frequencies of rotary embeddings, stays float32 there, and so it does here.
    """
    dtype, saved = getattr(need("torch", "models"), precision), model.state_dict().keys()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in saved and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    return model


def merged(model: Any, folder: Path) -> Any:
    """A model with a PEFT adapter added into its weights, in float32. Raises `ModelError` where it does not fit."""
    import warnings

    peft = need("peft", "models")
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder} holds no adapter in PEFT's format (adapter_config.json)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some of what it was tuned with is not here
        tuned = peft.PeftModel(model, peft.PeftConfig.from_pretrained(str(folder)))
        found = tuned.load_adapter(str(folder), "default", torch_device="cpu")
        wrong = [*found.missing_keys, *found.unexpected_keys]
        if wrong:
            raise ModelError(
                f"the adapter in {folder} does not fit the model {type(model).__name__}: "
                f"{wrong[0]} is missing or has no place"
            )
        return tuned.merge_and_unload().eval()


def token_losses(
    model: Causal, found: Conversations, batch_tokens: int, behind: Callable[[Batch], Any] | None = None
) -> tuple[Float32[np.ndarray, " t"], Float32[np.ndarray, " t"], Int64[np.ndarray, " p1"]]:
    """Loss and entropy of every answer token, piece by piece, and where each piece's begin and the last one's end.

    `behind(batch)` gives the states `(b, w, d)` of batches that stand behind something else, all of them together.
    """
    torch = need("torch", "models")
    ends = np.concatenate([[0], np.cumsum([int(mask[1:].sum()) for mask in found.masks])]).astype(np.int64)
    out = torch.empty(2, int(ends[-1]) + 1, device=model.device)  # the last one takes what fills up
    waiting: Waiting | None = None
    for batch in batches(found.ids, found.longest, batch_tokens, found.pad, **fineness(batch_tokens)):
        states = model.read(batch.ids).last_hidden_state if behind is None else behind(batch)
        answers = answers_of(batch, found.masks, 1)
        into = np.concatenate([np.arange(ends[piece], ends[piece + 1]) for piece in batch.pieces.tolist()])
        places, labels, rows = (
            torch.from_numpy(each).to(model.device) for each in (answers.places, answers.labels, into)
        )
        asked = Waiting(states.flatten(0, 1).index_select(0, places), labels, rows)
        waiting = asked.after(waiting).read(model, out)
    if waiting is not None and len(waiting.labels):
        waiting.filled(model.positions, int(ends[-1])).read(model, out)
    losses, entropies = out[:, :-1].cpu().numpy()
    return losses, entropies, ends


def fineness(batch_tokens: int) -> dict[str, int]:
    """How widths of batches grow: in fine steps where batches are small, so that few of them are part-filled."""
    return {"finest": 4, "parts": 16} if batch_tokens <= SMALL else {}


@dataclass(frozen=True)
class Waiting:
    """States `(a, d)` with the labels that are to follow them, and where their losses go, tensors `(a,)`."""

    states: Any
    labels: Any
    into: Any

    def after(self, before: Waiting | None) -> Waiting:
        """Those that waited, and then these."""
        torch = need("torch", "models")
        if before is None:
            return self
        pairs = ((before.states, self.states), (before.labels, self.labels), (before.into, self.into))
        return Waiting(*(torch.cat(pair) for pair in pairs))

    def filled(self, count: int, nowhere: int) -> Waiting:
        """Up to `count`, with copies of the first state whose losses go `nowhere`."""
        lack = count - len(self.labels)
        first = Waiting(self.states[:1].expand(lack, -1), self.labels[:1].expand(lack), self.into[:1].expand(lack))
        return Waiting(first.states, first.labels, first.into.clone().fill_(nowhere)).after(self)

    def read(self, model: Causal, out: Any) -> Waiting:
        """Write the losses and entropies of as many as the output layer takes; what is left waits."""
        step = model.positions
        done = len(self.labels) // step * step
        for start in range(0, done, step):
            part = slice(start, start + step)
            losses = losses_of(model.logits(self.states[part]), self.labels[part])
            for line, each in zip(out, losses, strict=True):
                line.index_copy_(0, self.into[part], each)
        return Waiting(self.states[done:], self.labels[done:], self.into[done:])
