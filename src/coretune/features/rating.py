"""How a language model would rate a record on a scale: the probabilities of the scale's numbers as its first word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import numpy as np

from coretune.features import Measure, Measured, place
from coretune.features._first_token import answer_tokens, listener, log_probability, settled
from coretune.features._questions import refuse_questions
from coretune.features._settled import refuse_odd
from coretune.pool import Example

_EXCHANGE = "{fence}\nInstruction:\n{prompt}\n\nResponse:\n{answer}\n{fence}\n\n"
_INSTRUCTION = "{fence}\n{prompt}\n{fence}\n\n"

SELECT_IT = tuple(
    _EXCHANGE + asked
    for asked in (
        "How well does the response above answer the instruction? Rate it from 1 (not at all) to 5 (perfectly). "
        "Reply with the number alone.",
        "Judge the exchange above as an example to learn from. Give a whole number from 1 to 5, where 1 is useless and "
        "5 is excellent, and nothing else.",
        "On a scale of 1 to 5, how correct, complete and clear is the response? 1 is the lowest mark, 5 the highest. "
        "Write one number only.",
        "You are checking data that a model will be trained on. What mark between 1 (reject) and 5 (keep without "
        "doubt) does this pair of instruction and response deserve? Answer with a single digit.",
        "Consider whether the response is accurate, follows the instruction and is well written, then score the pair: "
        "1 for very poor up to 5 for very good. Only the score, please.",
    )
)
"""Five differently worded requests for a mark from 1 to 5, as SelectIT asks (arXiv 2402.16705)."""

DEITA_COMPLEXITY = (
    _INSTRUCTION
    + "How complex is the request above: how much knowledge, how many steps and conditions does it take to "
    "answer it? Rate it from 1 (trivial) to 6 (very complex). Reply with the number alone.",
)
"""A mark from 1 to 6 for the instruction's complexity, in place of DEITA's first scorer (arXiv 2312.15685)."""

DEITA_QUALITY = (
    _EXCHANGE
    + "How good is the response above: helpful, relevant, accurate, deep, creative and detailed? Rate it from "
    "1 (bad) to 6 (outstanding). Reply with the number alone.",
)
"""A mark from 1 to 6 for the response's quality, in place of DEITA's second scorer."""


@dataclass(frozen=True)
class Rating:
    """Probabilities `(n, p, k)` float32 of each of the scale's k numbers as first token, under each of p prompts.

    They are of the softmax over the whole vocabulary, summed over spellings with and without a space, and do not add up
    to 1: number `mass` is their sum, on average over the prompts. NaN where a record says nothing in a prompt's places
    (mark `empty`). Further marks, if so under any prompt: `truncated`, `special_token_spelled` (a record spells a token
    of the model's, into which a space was put), `answered_otherwise` (the likeliest token is no number of the scale).

    A model that was trained to rate (DEITA's scorers) is asked in its own words: give them as `prompts`, without
    fences, and `cue=""`. Each prompt is a pass of its own. A value depends on its own row alone, to the last bit on one
    kind of hardware.
    """

    version: ClassVar[int] = 1

    model: str = field(metadata=place())
    """The language model that is asked: causal, or with an encoder and a decoder."""
    prompts: tuple[str, ...] = SELECT_IT
    """What is asked, with places: {prompt}, {answer} or {text}, and {fence} for the lines that keep a record apart."""
    low: int = 1
    """The scale's lowest number."""
    high: int = 5
    """The scale's highest number; each from low to high must be one token."""
    cue: str = "\n\nRating:"
    """What follows the prompt for causal models without a chat template."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the tokenizer's digest."""
    max_tokens: int | None = None
    """The window; longer records are cut. None is 2,048 tokens, or the model's window if that is less."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the model computes in; none is bfloat16 where the hardware has it. Logits are added up in float64."""
    batch_tokens: int | None = None
    """About how many tokens a batch has; none is what suits the hardware."""
    digest: str | None = None
    """Content hash of the model's weights and configuration; `resolved` finds it."""
    tokenizer: str | None = None
    """Content hash of tokenizer and template; `resolved` finds it."""

    @property
    def shard_rows(self) -> int:
        """Rows between two writes: enough that few batches are part-filled, few enough to share among workers."""
        return max(128, (self.batch_tokens or 0) // 2)

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing."""
        refuse_odd(self)
        if isinstance(self.prompts, str):
            raise ValueError("prompts is one text; give a tuple of them, as (text,)")
        refuse_questions(self.prompts)
        if not 0 <= self.low < self.high:
            raise ValueError(f"a scale from {self.low} to {self.high} asked; give two numbers that ascend from 0")

    def resolved(self) -> Self:
        """The same with model, tokenizer, window, precision and batches settled. Raises `ModelError`."""
        if self.digest is not None:
            return self
        self._numbers()
        return replace(self, **settled(self))

    def load(self) -> Measure:
        """Load the model. Raises `ModelError` where it is not the one that was resolved, or cannot be asked."""
        spec = self.resolved()
        listens, groups = listener(spec), spec._numbers()
        scale = range(len(groups[0]))

        def measure(examples: Sequence[Example]) -> Measured:
            values = np.empty((len(examples), len(spec.prompts), len(scale)))
            marks: dict[str, np.ndarray] = {}
            for number, prompt in enumerate(spec.prompts):
                heard = listens.hear(prompt, examples, groups[number])
                values[:, number] = np.exp(np.stack([log_probability(heard.masses, each) for each in scale], axis=1))
                marks = {name: flags | marks.get(name, flags) for name, flags in heard.marks.items()}
            mass = values.sum(axis=2).mean(axis=1)
            return Measured(values.astype(np.float32), marks, {"mass": mass.astype(np.float32)})

        return measure

    def _numbers(self) -> list[list[tuple[int, ...]]]:
        """For each prompt the tokens of each number. Raises `ModelError` where one is not one token."""
        written = [(str(each), f" {each}") for each in range(self.low, self.high + 1)]
        return [answer_tokens(self, [prompt], written) for prompt in self.prompts]
