"""Readings: how replies to a rating prompt become a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from coretune.judge.failures import JudgeError
from coretune.judge.prompts import RatingPrompt
from coretune.judge.replies import Reply, expected_score, stated_number

ENOUGH_MASS = 0.5


@dataclass(frozen=True)
class Read:
    """A score, NaN where there is none, with what happened on the way and further numbers."""

    value: float
    marks: frozenset[str]
    numbers: dict[str, float]


@dataclass(frozen=True)
class Expected:
    """The expected score over the scale's digits, from log-probabilities at the first position of the answer.

    Numbers: `mass`, the probability of all scale digits seen, by which the score is renormalised. Marks: `unparsed`
    where none is seen, `little_mass` below a half.
    """

    marks: ClassVar[tuple[str, ...]] = ("unparsed", "little_mass", "refused", "too_long", "tokens_estimated")
    numbers: ClassVar[tuple[str, ...]] = ("mass",)

    top_logprobs: int = 20
    """How many tokens the server is asked for; most give up to 20."""

    def __post_init__(self) -> None:
        """Refuse numbers that no server gives."""
        if self.top_logprobs < 1:
            raise ValueError(f"top_logprobs {self.top_logprobs} asked; give 1 or more")

    def check(self, prompt: RatingPrompt) -> None:
        """Raises `ValueError` for a scale with numbers of two digits, whose first tokens are ambiguous."""
        if prompt.low < 0 or prompt.high > 9:
            raise ValueError(
                f"log-probabilities are read for single digits, and the scale is {prompt.low} to {prompt.high}: "
                "take a scale within 0 to 9, or Stated()"
            )

    def ending(self, prompt: RatingPrompt) -> str:
        """The form of the reply: the number first."""
        return f"Reply with one whole number from {prompt.low} to {prompt.high} and nothing else."

    def settings(self) -> list[dict[str, Any]]:
        """What each request is sent with."""
        return [{"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": self.top_logprobs}]

    def read(self, replies: Sequence[Reply], prompt: RatingPrompt) -> Read:
        """The score in a reply. Raises `JudgeError` where the server gives no log-probabilities."""
        (reply,) = replies
        marks = _told(replies)
        if reply.refused or reply.too_long:
            return Read(math.nan, marks, {"mass": 0.0})
        if reply.first is None:
            raise JudgeError(
                "log-probabilities were asked for and the judge's server gave none; read what it states instead, "
                "with Stated(), or leave the reading open to have that found out"
            )
        value, mass = expected_score(reply.first, prompt.low, prompt.high)
        if not mass:
            marks |= {"unparsed"}
        elif mass < ENOUGH_MASS:
            marks |= {"little_mass"}
        return Read(value, marks, {"mass": mass})


@dataclass(frozen=True)
class Stated:
    """The number that the reply states in the form asked for, or the mean over several sampled replies.

    A reply that states none, or one outside the scale, is a miss: it enters no mean. NaN where all miss. Numbers:
    `read`, how many replies were read. Marks: `unparsed` and `out_of_scale` where any reply was a miss of that kind.
    """

    marks: ClassVar[tuple[str, ...]] = ("unparsed", "out_of_scale", "refused", "too_long", "tokens_estimated")
    numbers: ClassVar[tuple[str, ...]] = ("read",)

    samples: int = 1
    """How many replies a record is asked for, each with a seed of its own."""
    temperature: float = 0.0
    """0 takes the likeliest words; several samples need more."""
    top_p: float = 1.0
    """Sample among the likeliest words with this much probability together."""
    max_tokens: int = 16
    """The longest reply; a judge that is to reason first needs hundreds."""

    def __post_init__(self) -> None:
        """Refuse what would pay for the same reply twice, and numbers that mean nothing."""
        if self.samples < 1 or self.max_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError("give samples and max_tokens of 1 or more, temperature from 0, and top_p in (0, 1]")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"{self.samples} samples at temperature 0 would all be the same reply; give more, or one")

    def check(self, prompt: RatingPrompt) -> None:
        """Any scale will do."""

    def ending(self, prompt: RatingPrompt) -> str:
        """The form of the reply: a line with the score."""
        return (
            f"Reply with one line and nothing else: Score: N, where N is a number from {prompt.low} to {prompt.high}."
        )

    def settings(self) -> list[dict[str, Any]]:
        """What each request is sent with."""
        common: dict[str, Any] = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        if self.temperature == 0:
            return [common]
        return [{**common, "top_p": self.top_p, "seed": seed} for seed in range(self.samples)]

    def read(self, replies: Sequence[Reply], prompt: RatingPrompt) -> Read:
        """The mean of what replies state."""
        marks, values = set(_told(replies)), []
        for reply in replies:
            if reply.refused or reply.too_long:
                continue
            value = stated_number(reply.text, prompt.high)
            if value is None:
                marks.add("unparsed")
            elif not prompt.low <= value <= prompt.high:
                marks.add("out_of_scale")
            else:
                values.append(value)
        mean = math.fsum(values) / len(values) if values else math.nan
        return Read(mean, frozenset(marks), {"read": float(len(values))})


def _told(replies: Sequence[Reply]) -> frozenset[str]:
    """What the server itself said about the replies."""
    told = {"refused": "refused", "too_long": "too_long", "estimated": "tokens_estimated"}
    return frozenset(mark for name, mark in told.items() if any(getattr(each, name) for each in replies))
