"""Examples as answer losses read them: the tokens that a model is given, and which of them are answer.

An answer token always has a token before it that predicts it: where nothing else stands there, the first token does
(the beginning of sequence, else the template's first). So the same answer tokens are scored, in the same order, behind
a conversation and behind nothing. Where a window is too short for the answers of an example, as many of their first
tokens are scored as it holds after the first token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coretune.chat_template import KINDS
from coretune.errors import ModelError
from coretune.features import Contexts
from coretune.features._conversations import UNSEEN, Conversations, Reader
from coretune.pool import Example, Message
from coretune.shapes import Bool

DROPPED = "passages_dropped"  # for room; the mark says which rows, the number how many

Piece = tuple[list[int], Bool[np.ndarray, " t"]]
FindContexts = Callable[[Sequence[Example]], Contexts]


@dataclass(frozen=True)
class Read:
    """What a row became: its pieces, how many tokens of context and of answers did not fit, and its passages."""

    pieces: Sequence[Piece]
    cut_context: int
    cut_answer: int
    passages: int = 0


@dataclass(frozen=True)
class WholeConversations:
    """A piece a row: all that is said, each answer behind what stands before it, perhaps with passages from outside.

    Passages stand before the first user turn's own text, the best first, an empty line after each: as many whole ones
    as fit into `room` tokens, and then into the window, for which the worst go first.
    """

    tokenizer: Any
    first: int
    longest: int
    find: FindContexts | None = None
    room: int = 0

    def read(self, examples: Sequence[Example]) -> tuple[Conversations, dict[str, np.ndarray]]:
        """The pieces of examples, and numbers a row."""
        if self.find is None:
            made, numbers = gathered(examples, lambda row: self.row(examples[row], []), self.longest, self.tokenizer)
            return made, {"tokens": numbers["tokens"]}
        found = self.find(examples)
        made, numbers = gathered(
            examples, lambda row: self.row(examples[row], found.passages[row]), self.longest, self.tokenizer
        )
        given = np.array([len(each) for each in found.passages], dtype=np.float32)
        dropped = np.where(numbers["tokens"] > 0, given - numbers["passages"], 0).astype(np.float32)
        marks = {**found.marks, **made.marks, DROPPED: dropped > 0}
        return replace(made, marks=marks), {**found.numbers, **numbers, DROPPED: dropped}

    def row(self, example: Example, passages: Sequence[str]) -> Read:
        """One example. Raises `Refused`."""
        from coretune.chat import encode

        used = self._fitting(passages)
        while used:
            told = with_passages(example, used)
            if told is None:
                used = []
                break
            if len(encode(self.tokenizer, told.messages, tools=told.tools).ids) <= self.longest:
                example = told
                break
            used = used[:-1]
        one = encode(self.tokenizer, example.messages, tools=example.tools, max_tokens=self.longest)
        ids, mask = one.ids.tolist(), one.answer_mask
        if mask[0]:  # nothing predicts the first answer token
            one = encode(self.tokenizer, example.messages, tools=example.tools, max_tokens=self.longest - 1)
            ids, mask = [self.first, *one.ids.tolist()], np.concatenate([[False], one.answer_mask])
        return Read([(ids, mask)], one.cut_context, one.cut_answer, len(used))

    def _fitting(self, passages: Sequence[str]) -> list[str]:
        """The passages that go into the room, each with its empty line; one that is too long lets later ones in."""
        left, used = self.room, []
        texts = [f"{passage}\n\n" for passage in passages]
        for passage, ids in zip(passages, token_ids(self.tokenizer, texts), strict=True):
            if len(ids) <= left:
                used.append(passage)
                left -= len(ids)
        return used


@dataclass(frozen=True)
class AnswersAlone:
    """A piece an answer: the first token and the answer, in the tokens that it has in the conversation.

    Answers between which the template writes nothing are one.
    """

    tokenizer: Any
    first: int
    longest: int

    def read(self, examples: Sequence[Example]) -> tuple[Conversations, dict[str, np.ndarray]]:
        """The pieces of examples, and numbers a row."""
        made, numbers = gathered(examples, lambda row: self.row(examples[row]), self.longest, self.tokenizer)
        return made, {"tokens": numbers["tokens"]}

    def row(self, example: Example) -> Read:
        """One example. Raises `Refused`."""
        from coretune.chat import encode

        one = encode(self.tokenizer, example.messages, tools=example.tools)
        scored = np.flatnonzero(one.answer_mask)
        kept = scored[: self.longest - 1]
        answers = np.split(kept, np.flatnonzero(np.diff(kept) > 1) + 1)
        pieces = [([self.first, *one.ids[each].tolist()], np.arange(len(each) + 1) > 0) for each in answers]
        return Read(pieces, 0, len(scored) - len(kept))


def gathered(
    examples: Sequence[Example], read: Callable[[int], Read], longest: int, tokenizer: Any
) -> tuple[Conversations, dict[str, np.ndarray]]:
    """The pieces of all rows, in their order, with marks; `tokens` that are scored and `passages` put in, a row."""
    from coretune.chat import Refused

    count = len(examples)
    marks = {name: np.zeros(count, dtype=bool) for name in (*KINDS.values(), UNSEEN, "answer_cut", "truncated")}
    numbers = {name: np.zeros(count, dtype=np.float32) for name in ("tokens", "passages")}
    rows, pieces = [], []
    for row in range(count):
        try:
            one = read(row)
        except Refused as error:
            marks[KINDS[error.kind]][row] = True
            continue
        marks["truncated"][row] = one.cut_context + one.cut_answer > 0
        marks["answer_cut"][row] = one.cut_answer > 0
        seen = [(ids, mask) for ids, mask in one.pieces if mask[1:].any()]
        marks[UNSEEN][row] = not seen
        numbers["tokens"][row] = sum(int(mask[1:].sum()) for _, mask in seen)
        numbers["passages"][row] = one.passages
        rows += [row] * len(seen)
        pieces += seen
    found = Conversations(
        rows=np.array(rows, dtype=np.int64),
        ids=[ids for ids, _ in pieces],
        masks=[mask for _, mask in pieces],
        marks=marks,
        count=count,
        longest=longest,
        pad=Reader(tokenizer).pad,
    )
    return found, numbers


def with_passages(example: Example, passages: Sequence[str]) -> Example | None:
    """The example with passages before its first user turn's text; None where it has no such turn."""
    for place, turn in enumerate(example.messages):
        if turn.role == "user":
            told = replace(turn, content="".join(f"{passage}\n\n" for passage in passages) + turn.content)
            return replace(example, messages=(*example.messages[:place], told, *example.messages[place + 1 :]))
    return None


def first_token(tokenizer: Any, model: str) -> int:
    """What stands before an answer that stands alone: the beginning-of-sequence token, else the template's first.

    A template that begins with the prompt's own words has none; the end-of-sequence token separates texts there.
    Raises `ModelError` where there is neither.
    """
    from coretune.chat import encode

    if tokenizer.bos_token_id is not None:
        return int(tokenizer.bos_token_id)
    one, other = (
        encode(tokenizer, [Message("user", words), Message("assistant", "7")]).ids for words in ("Why?", "8 9")
    )
    if one[0] == other[0]:
        return int(one[0])
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {model} has no token that begins a text, so no answer can stand alone")
    return int(tokenizer.eos_token_id)


def token_ids(tokenizer: Any, texts: Sequence[str]) -> Iterator[list[int]]:
    """Token ids of texts, without special tokens around them."""
    if texts:
        yield from tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
