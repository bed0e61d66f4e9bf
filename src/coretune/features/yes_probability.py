"""How likely a language model says yes when it is asked whether a record is worth learning from (Ask-LLM)."""

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

USEFUL_DEMONSTRATION = """\
{fence}
Instruction:
{prompt}

Response:
{answer}
{fence}

Would the exchange between the two lines above be a useful demonstration for training an assistant that follows \
instructions? A useful one is written cleanly, its response does what the instruction asks and holds at least a little \
knowledge or reasoning worth learning, and nothing in it is toxic or discriminatory.

Options:
- yes
- no"""
"""The paper's criteria, asked of an instruction and its response."""

PRETRAINING_TEXT = """\
{fence}
{text}
{fence}

Would the text between the two lines above be worth learning from for a language model in pre-training? Such a text is \
cleanly formatted, holds at least some knowledge of the world, and nothing in it is harmful, toxic or discriminatory.

Options:
- yes
- no"""
"""The paper's own use: a document of pre-training data."""


@dataclass(frozen=True)
class YesProbability:
    """log P(yes) `(n,)` float32: the softmax over the whole vocabulary where the answer begins, summed over spellings.

    The logarithm keeps apart what a probability near 0 or 1 would round together. Number `log_odds_two_way`:
    log P(yes) - log P(no), which does not fall where a model would rather say something else. NaN where a record says
    nothing (mark `empty`). Further marks: `truncated`, `special_token_spelled` (a record spells a token of the model's,
    into which a space was put), and `answered_otherwise` where the likeliest token is none of the answers.

    A value depends on its own row alone, to the last bit on one kind of hardware.

    Source: Sachdeva et al., "How to Train Data-Efficient LLMs", 2024, arXiv 2402.09668, section 3.1.
    """

    version: ClassVar[int] = 1

    model: str = field(metadata=place())
    """The language model that is asked: causal, or with an encoder and a decoder (Flan-T5, as in the paper)."""
    question: str = USEFUL_DEMONSTRATION
    """What is asked, with places: {prompt}, {answer} or {text}, and {fence} for the lines that keep a record apart."""
    yes: tuple[str, ...] = ("yes",)
    """Words that say yes: each in lower and upper case, with and without a space before it, must be one token."""
    no: tuple[str, ...] = ("no",)
    """Words that say no."""
    cue: str = "\n\nAnswer:"
    """What follows the question for causal models without a chat template."""
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
        refuse_questions([self.question])
        for name in ("yes", "no"):
            words = getattr(self, name)
            if isinstance(words, str) or not words or not all(word.strip() for word in words):
                raise ValueError(f"{name} {words!r} asked; give one or more words, as ({name!r},)")

    def resolved(self) -> Self:
        """The same with model, tokenizer, window, precision and batches settled. Raises `ModelError`."""
        if self.digest is not None:
            return self
        self._answers()
        return replace(self, **settled(self))

    def load(self) -> Measure:
        """Load the model. Raises `ModelError` where it is not the one that was resolved, or cannot be asked."""
        spec = self.resolved()
        listens, groups = listener(spec), spec._answers()

        def measure(examples: Sequence[Example]) -> Measured:
            heard = listens.hear(spec.question, examples, groups)
            odds = heard.masses[:, 0] - heard.masses[:, 1]
            values = log_probability(heard.masses, 0).astype(np.float32)
            return Measured(values, heard.marks, {"log_odds_two_way": odds.astype(np.float32)})

        return measure

    def _answers(self) -> list[tuple[int, ...]]:
        """The tokens of yes, and those of no. Raises `ModelError` where a word is not one token."""
        tokens = answer_tokens(self, [self.question], [spellings(word) for word in (*self.yes, *self.no)])
        cut = len(self.yes)
        return [tuple(sorted(sum(part, ()))) for part in (tokens[:cut], tokens[cut:])]


def spellings(word: str) -> tuple[str, ...]:
    """How a word may be written as an answer: in lower, upper and both cases, with and without a space before it."""
    written = dict.fromkeys((word, word.lower(), word.capitalize(), word.upper()))
    return tuple(space + each for space in ("", " ") for each in written)
