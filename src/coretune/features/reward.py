"""How good a reward model finds an example's last answer to what stands before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from coretune.chat_template import KINDS, Refused
from coretune.errors import ModelError, need
from coretune.features import Measure, Measured, place
from coretune.features._batches import batches
from coretune.features._encoders import around
from coretune.features._prompts import prompt_tokenizer
from coretune.features._settled import BATCH_TOKENS, LONGEST, refuse_odd
from coretune.models import best_device, best_precision, find_model, longest_input
from coretune.pool import Example
from coretune.shapes import Float32, Int64

NO_ANSWER, NOT_FINITE = "no answer", "reward not finite"
AGREE = 0.25  # largest difference of two ways to the same rewards, against their spread
PLACES = ("{prompt}", "{answer}")


@dataclass(frozen=True)
class Reward:
    """The one output of a sequence-classification model, `(n,)` float32, for a conversation up to its last answer.

    A reward has no unit and no zero: only differences under one model mean something. NaN where the chat template
    refuses the conversation, or the assistant has no turn in it (mark `no answer`). Where a conversation is too long,
    its beginning goes first (`truncated`), and the end of the answer only where it fills the window alone
    (`answer_cut`).

    A value depends on its own row alone, to the last bit on one kind of hardware: causal models are read in batches of
    fixed shapes, at each row's last token that is not the model's padding token; all others one row at a time.
    """

    version: ClassVar[int] = 1

    model: str = field(metadata=place())
    """The reward model: a hub id or a folder with sequence classification of one output."""
    layout: str | None = None
    """Text with the places {prompt} and {answer}, for a model that was not tuned on its tokenizer's chat template;
    none is the template."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the tokenizer's digest."""
    max_tokens: int | None = None
    """Longer conversations are cut; none is 2,048 tokens, or the model's window if that is less."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the model computes in; none is float32 on a CPU, elsewhere bfloat16 where the hardware has it."""
    batch_tokens: int | None = None
    """About how many tokens a batch has; none is what suits the hardware."""
    digest: str | None = None
    """Content hash of the model's weights and configuration; `resolved` finds it."""
    tokenizer: str | None = None
    """Content hash of tokenizer and template; `resolved` finds it."""

    @property
    def shard_rows(self) -> int:
        """Rows between two writes: enough that few batches are part-filled, few enough to share among workers."""
        return max(256, (self.batch_tokens or 0) // 2)

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing."""
        refuse_odd(self)
        if self.layout is not None and not all(each in self.layout for each in PLACES):
            raise ValueError(f"layout {self.layout!r} asked of a reward; it must have {' and '.join(PLACES)}")

    def resolved(self) -> Self:
        """The same with model, tokenizer, window, precision and batches settled. Raises `ModelError`."""
        from coretune.chat import tokenizer_digest

        if self.digest is not None:
            return self
        found, device = find_model(self.model), best_device()
        tokenizer = prompt_tokenizer(self.model, self.template, self.layout is not None)
        return replace(
            self,
            digest=found.digest,
            tokenizer=tokenizer_digest(tokenizer),
            max_tokens=self.max_tokens or min(longest_input(found), LONGEST),
            precision=self.precision or ("float32" if device == "cpu" else best_precision(device)),
            batch_tokens=self.batch_tokens or BATCH_TOKENS[device],
        )

    def load(self) -> Measure:
        """Load the model. Raises `ModelError` where it has not one output, or is not the one that was resolved."""
        from coretune.chat import tokenizer_digest
        from coretune.models.classifying import load_reward_model

        spec = self.resolved()
        tokenizer = prompt_tokenizer(spec.model, spec.template, spec.layout is not None)
        if (spec.digest, spec.tokenizer) != (find_model(spec.model).digest, tokenizer_digest(tokenizer)):
            raise ModelError(f"the model {spec.model} or its tokenizer has changed since the run began; run again")
        model = load_reward_model(spec.model, dtype=spec.precision or "float32", device=best_device())
        rewards = rewards_of(model, spec.max_tokens or 1, spec.batch_tokens or 1)

        def measure(examples: Sequence[Example]) -> Measured:
            pieces, marks = _pieces(spec, tokenizer, examples)
            values = np.full(len(examples), np.nan, np.float32)
            values[list(pieces)] = rewards([np.array(ids, dtype=np.int64) for ids in pieces.values()])
            marks[NOT_FINITE][[row for row in pieces if not np.isfinite(values[row])]] = True
            return Measured(values, marks)

        return measure


def _pieces(
    spec: Reward, tokenizer: Any, examples: Sequence[Example]
) -> tuple[dict[int, list[int]], dict[str, np.ndarray]]:
    """Token ids by row, of those rows that have any; and the marks of all."""
    names = (*KINDS.values(), NO_ANSWER, NOT_FINITE, "truncated", "answer_cut")
    marks = {name: np.zeros(len(examples), dtype=bool) for name in names}
    pieces: dict[int, list[int]] = {}
    for row, example in enumerate(examples):
        turns = example.messages
        last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=None)
        if last is None:
            marks[NO_ANSWER][row] = True
            continue
        try:
            if spec.layout is None:
                ids, cut, answer_cut = _chat(tokenizer, replace(example, messages=turns[: last + 1]), spec.max_tokens)
            else:
                ids, cut, answer_cut = _laid_out(tokenizer, spec.layout, example, spec.max_tokens or 1)
        except Refused as error:
            marks[KINDS[error.kind]][row] = True
            continue
        marks["truncated"][row], marks["answer_cut"][row] = cut, answer_cut
        if ids:
            pieces[row] = ids
        else:
            marks[NO_ANSWER][row] = True
    return pieces, marks


def _chat(tokenizer: Any, example: Example, most: int | None) -> tuple[list[int], bool, bool]:
    """A conversation in the chat template: ids, whether any was cut, and whether an answer was. Raises `Refused`."""
    from coretune.chat import encode

    found = encode(tokenizer, example.messages, tools=example.tools, max_tokens=most)
    return found.ids.tolist(), found.cut_context + found.cut_answer > 0, found.cut_answer > 0


def _laid_out(tokenizer: Any, layout: str, example: Example, most: int) -> tuple[list[int], bool, bool]:
    """Prompt and answer in running text, between the tokens that the tokenizer puts around any."""
    head, tail = around(tokenizer)
    before, _, behind = layout.partition(PLACES[1])
    said = [before.replace(PLACES[0], example.prompt), example.answer + behind.replace(PLACES[0], example.prompt)]
    ids = list(tokenizer("".join(said), add_special_tokens=False, verbose=False)["input_ids"])
    room = max(1, most - len(head) - len(tail))
    if len(ids) <= room:
        return ([*head, *ids, *tail] if ids else []), False, False
    answer = len(tokenizer(said[1], add_special_tokens=False, verbose=False)["input_ids"])
    kept = ids[-room:] if answer <= room else ids[len(ids) - answer :][:room]
    return [*head, *kept, *tail], True, answer > room


def rewards_of(
    model: Any, longest: int, batch_tokens: int
) -> Callable[[Sequence[Int64[np.ndarray, " t"]]], Float32[np.ndarray, " p"]]:
    """What gives the rewards of pieces (token ids, at least one and at most `longest` each)."""
    torch = need("torch", "models")
    device, padding = model.device, model.config.get_text_config().pad_token_id

    def alone(pieces: Sequence[np.ndarray]) -> np.ndarray:
        found = np.empty(len(pieces), np.float32)
        with torch.inference_mode():
            for number, piece in enumerate(pieces):
                ids = torch.from_numpy(piece)[None].to(device)
                found[number] = float(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0])
        return found

    head = getattr(model, "score", None)
    if not isinstance(head, torch.nn.Linear):
        return alone
    weight = head.weight.detach().float()  # bfloat16 rewards would come in steps
    bias = None if head.bias is None else head.bias.detach().float()

    def together(pieces: Sequence[np.ndarray]) -> np.ndarray:
        found = np.empty(len(pieces), np.float32)
        ended = [ids[: _last(ids, padding) + 1].tolist() for ids in pieces]
        with torch.inference_mode():
            for batch in batches(ended, longest, batch_tokens, pad=0):
                ids = torch.from_numpy(batch.ids).to(device)
                states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state.float()
                for row, piece in enumerate(batch.pieces.tolist()):  # one at a time: few at once take other kernels
                    last = states[row, len(ended[piece]) - 1][None]
                    found[piece] = float(torch.nn.functional.linear(last, weight, bias)[0, 0])
        return found

    return together if _agree(alone, together, longest) else alone


def _last(ids: Int64[np.ndarray, " t"], padding: int | None) -> int:
    """The last place that does not hold the padding token, as models of transformers find the end of a text."""
    others = np.flatnonzero(ids != padding) if padding is not None else np.arange(len(ids))
    return int(others[-1]) if len(others) else 0


def _agree(alone: Callable[..., np.ndarray], together: Callable[..., np.ndarray], longest: int) -> bool:
    """Whether states of padded batches give the rewards that the model gives row by row: a causal model's do."""
    rows = [np.arange(1, 4 + 5 * number, dtype=np.int64)[:longest] for number in range(4)]
    one, other = alone(rows), together(rows)
    return bool(np.abs(one - other).max() <= AGREE * one.std())
