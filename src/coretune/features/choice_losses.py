"""How likely a language model finds each of several answers to one prompt, which it reads once for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from coretune.chat_template import KINDS, PLAIN, Refused
from coretune.errors import ModelError, need
from coretune.features import Measure, Measured, Ragged, place
from coretune.features._answer_losses import BATCH_TOKENS, NOT_FINITE, Waiting, causal_of
from coretune.features._answers import answers_of
from coretune.features._batches import Batch
from coretune.features._causal import Causal
from coretune.features._choices import Behind, InChat, InText, TooLong, choices_of, together, with_choices
from coretune.features._conversations import conversations
from coretune.features._one_shot import after, keeps
from coretune.features._settled import refuse_odd, settled
from coretune.features.lora_gradient import AdapterAt
from coretune.models import best_device
from coretune.pool import Example

__all__ = ["ChoiceLosses", "choices_of", "halves", "with_choices"]

NONE, TOO_LONG, CUT = "no choices", "choice_too_long", "truncated"
UNUSED = "{# prompts are running text #}" + PLAIN  # for tokenizers that have no template, and need none here
ROOM = 8  # tokens, with what is kept, that choices take at a time, for each token of a batch


@dataclass(frozen=True)
class ChoiceLosses:
    """Log-probability in nats of each choice that an example's last turn carries, given what stands before that turn.

    A row holds two numbers a choice, float32: first the sums over the tokens of each choice, then how many tokens each
    has; `halves` takes them apart. Choices are what `with_choices` puts into a turn's `extra`, hence part of the
    content key. The prompt's tokens are read once for all choices where the model has a cache of keys and values.

    A prompt that is too long loses its beginning, for all choices alike (mark `truncated`), a choice nothing. A row is
    empty, with the mark `missing` and one that says why, where it has no choices, where the chat template refuses it,
    where a choice alone is longer than the window, or where a sum is not finite.

    A value depends on its own row alone: rows are read one by one.
    """

    version: ClassVar[int] = 1

    model: str = field(metadata=place())
    """The language model that reads."""
    chat: bool = True
    """The prompt in the chat template, the choice as the assistant's answer; or else both as plain running text."""
    adapter: AdapterAt | None = None
    """A checkpoint of an adapter, merged into the model's weights."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the tokenizer's digest."""
    max_tokens: int | None = None
    """Tokens of a prompt and a choice; none is 2,048, or the model's window if that is less."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the model computes in; none is bfloat16 where the hardware has it and a sample's losses agree. Losses are
    taken of its logits in float32."""
    batch_tokens: int | None = None
    """About how many tokens of choices are read at once; none is what suits the hardware."""
    digest: str | None = None
    """Content hash of the model's weights and configuration; `resolved` finds it."""
    tokenizer: str | None = None
    """Content hash of tokenizer and template; `resolved` finds it."""

    @property
    def detail(self) -> str:
        """How the prompt is put, where it is not as a chat."""
        return "" if self.chat else "plain text"

    @property
    def shard_rows(self) -> int:
        """Rows between two writes."""
        return max(64, (self.batch_tokens or 0) // 8)

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing."""
        refuse_odd(self)
        if self.max_tokens == 1:
            raise ValueError("max_tokens 1 asked of choice losses; a token and one that predicts it take 2")

    def resolved(self) -> Self:
        """The same with model, tokenizer, window, precision and batches settled. Raises `ModelError`."""
        from coretune.features._loss_precision import agreeing_precision

        if self.digest is not None:
            return self
        asked = self if self.chat else replace(self, template=UNUSED)
        tokens = asked.batch_tokens or BATCH_TOKENS[best_device()]
        adapter = None if asked.adapter is None else replace(asked.adapter, weight=1.0)
        known = replace(asked, **{**settled(asked), "batch_tokens": tokens, "adapter": adapter})
        if self.precision:
            return known
        sampled = known
        with contextlib.suppress(ModelError):  # what the model's own template shows is known to other features too
            sampled = (
                known if self.chat else replace(known, template=self.template, tokenizer=settled(self)["tokenizer"])
            )
        return replace(known, precision=agreeing_precision(sampled))

    def load(self) -> Measure:
        """Load the model. Raises `ModelError` where model or tokenizer are not what was resolved."""
        from coretune.features._answer_pieces import first_token

        spec = self.resolved()
        reader = conversations(spec.model, spec.template, spec.digest, spec.tokenizer)
        model = causal_of(spec)
        put = InChat(reader.tokenizer) if spec.chat else InText(reader.tokenizer, first_token(reader.tokenizer, ""))
        keep, longest = keeps(model), spec.max_tokens or 1

        def measure(examples: Sequence[Example]) -> Measured:
            names = (*KINDS.values(), NONE, TOO_LONG, CUT, NOT_FINITE, "missing")
            marks = {name: np.zeros(len(examples), dtype=bool) for name in names}
            rows: list[tuple[int, Behind]] = []
            for row, example in enumerate(examples):
                if not (choices := choices_of(example)):
                    marks[NONE][row] = True
                    continue
                try:
                    behind = together(put.pieces(example, choices), longest, keeps=keep)
                except Refused as error:
                    marks[KINDS[error.kind]][row] = True
                except TooLong:
                    marks[TOO_LONG][row] = True
                else:
                    marks[CUT][row] = behind.cut > 0
                    rows.append((row, behind))
            values = [np.empty(0, dtype=np.float32)] * len(examples)
            sums = sums_of(model, [behind for _, behind in rows], spec.batch_tokens or 1, reader.pad)
            for (row, behind), each in zip(rows, sums, strict=True):
                marks[NOT_FINITE][row] = not np.isfinite(each).all()
                if not marks[NOT_FINITE][row]:
                    values[row] = np.concatenate([each, behind.scored]).astype(np.float32)
            marks["missing"] = np.array([not len(each) for each in values], dtype=bool)
            return Measured(Ragged.of(values), marks)

        return measure


def halves(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums and the numbers of tokens `(c,)` of a row's choices, float64."""
    sums, tokens = row.astype(np.float64).reshape(2, -1)
    return sums, tokens


def sums_of(model: Causal, rows: Sequence[Behind], batch_tokens: int, pad: int) -> list[np.ndarray]:
    """The log-probability of each choice of each row, `(c,)` float64.

    The output layer takes states of several rows together, always as many, so that a row's values stay its own.
    """
    torch = need("torch", "models")
    counts = np.array([count for row in rows for count in row.scored], dtype=np.int64)
    ends = np.concatenate([[0], np.cumsum(counts)])
    out = torch.empty(2, int(ends[-1]) + 1, device=model.device)  # the last one takes what fills up
    waiting: Waiting | None = None
    first = 0
    for row in rows:
        masks = [np.arange(len(ids)) >= len(ids) - count for ids, count in zip(row.suffixes, row.scored, strict=True)]
        read = after(model, row.prefix) if row.prefix else _alone(model)
        for batch in _batches(row, max(1, ROOM * batch_tokens), pad):
            states = read(batch)
            answers = answers_of(batch, masks, 1)
            into = np.concatenate([np.arange(ends[first + each], ends[first + each + 1]) for each in batch.pieces])
            places, labels, where = (
                torch.from_numpy(each).to(model.device) for each in (answers.places, answers.labels, into)
            )
            asked = Waiting(states.flatten(0, 1).index_select(0, places), labels, where)
            waiting = asked.after(waiting).read(model, out)
        first += len(row.suffixes)
    if waiting is not None and len(waiting.labels):
        waiting.filled(model.positions, int(ends[-1])).read(model, out)
    losses = out[0, :-1].cpu().numpy().astype(np.float64)
    sums = -np.add.reduceat(losses, ends[:-1]) if len(counts) else np.empty(0)
    return np.split(sums, np.cumsum([len(row.suffixes) for row in rows])[:-1]) if rows else []


def _alone(model: Causal) -> Any:
    """A function from a batch to its states behind nothing."""
    return lambda batch: model.read(batch.ids).last_hidden_state


def _batches(row: Behind, room: int, pad: int) -> Iterator[Batch]:
    """A row's choices, as many at a time as go into `room` tokens with the prefix that each repeats.

    Shapes depend on the row alone, so values do.
    """
    width = max(map(len, row.suffixes))
    step = max(1, room // (len(row.prefix) + width))
    for start in range(0, len(row.suffixes), step):
        members = np.arange(start, min(start + step, len(row.suffixes)))
        ids = np.full((len(members), width), pad, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=bool)
        for line, member in enumerate(members.tolist()):
            ids[line, : len(row.suffixes[member])] = row.suffixes[member]
            mask[line, : len(row.suffixes[member])] = True
        yield Batch(members, ids, mask)
