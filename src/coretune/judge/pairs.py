"""Pairs: which of two answers is better, asked in both orders, since judges like one place more than the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from coretune.judge.asking import Gate, ask
from coretune.judge.endpoint import Judge
from coretune.judge.prompts import BETTER, PreferencePrompt
from coretune.judge.replies import Reply, stated_choice

Choice = Literal["first", "second", "tie", "miss"]
AS_SHOWN: dict[str | None, Choice] = {"a": "first", "b": "second", "tie": "tie", None: "miss"}
TURNED: dict[str | None, Choice] = {"a": "second", "b": "first", "tie": "tie", None: "miss"}


@dataclass(frozen=True)
class Pair:
    """Two answers to a question."""

    question: str
    first: str
    second: str


@dataclass(frozen=True)
class Verdict:
    """Which of a pair is better, asked in its own order and turned; both speak of the pair's first and second.

    Tokens are those of both requests.
    """

    as_given: Choice
    turned: Choice
    input_tokens: int = field(default=0, compare=False)
    output_tokens: int = field(default=0, compare=False)

    @property
    def winner(self) -> Literal["first", "second", "tie"] | None:
        """What both orders agree on; none where they do not, or one has no answer."""
        return None if self.as_given != self.turned or self.as_given == "miss" else self.as_given


def prefer(
    judge: Judge,
    pairs: Sequence[Pair],
    prompt: PreferencePrompt = BETTER,
    *,
    max_tokens: int = 16,
    gate: Gate | None = None,
) -> list[Verdict]:
    """The verdict on each pair, in both orders, at temperature 0. Raises what `ask` raises."""
    setting = {"max_tokens": max_tokens, "temperature": 0.0}
    shown = [order for pair in pairs for order in ((pair.first, pair.second), (pair.second, pair.first))]
    questions = [pair.question for pair in pairs for _ in range(2)]
    messages = [prompt.messages(question, *order) for question, order in zip(questions, shown, strict=True)]
    replies = ask(judge, [judge.payload(each, setting) for each in messages], gate)
    return [
        Verdict(
            *(AS_SHOWN[_choice(one)], TURNED[_choice(other)]),
            input_tokens=one.input_tokens + other.input_tokens,
            output_tokens=one.output_tokens + other.output_tokens,
        )
        for one, other in zip(replies[::2], replies[1::2], strict=True)
    ]


def _choice(reply: Reply) -> str | None:
    return None if reply.refused or reply.too_long else stated_choice(reply.text)
