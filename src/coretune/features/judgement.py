"""A score that a judge gives each example: a language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from coretune.features import Measure, Measured
from coretune.features._records import record
from coretune.judge import HELPFULNESS, Expected, Gate, Judge, JudgeError, RatingPrompt, Stated, rate, reading_for
from coretune.pool import Example


@dataclass(frozen=True)
class Judgement:
    """Scores `(n,)` float32 on the prompt's scale; NaN for a miss, which is never given a score.

    Marks: `no_question` and `no_answer` (a text that the prompt shows is blank; nothing is asked), `unparsed`,
    `out_of_scale` or `little_mass` (see the readings), `refused`, `too_long` (the model's window), `tokens_estimated`
    (the server counts none) and `truncated`. Numbers: `input_tokens` and `output_tokens` of the answers, and `mass` or
    `read`. Every answer is stored by the judge as it comes, so a kill costs no more than the requests in flight.
    """

    version: ClassVar[int] = 1
    shard_rows: ClassVar[int] = 256

    judge: Judge
    """Who is asked."""
    prompt: RatingPrompt = HELPFULNESS
    """What is asked, with its scale."""
    reading: Expected | Stated | None = None
    """How answers become numbers; none is by log-probabilities where the server gives them, else as stated."""
    longest_characters: int | None = None
    """Question and answer are cut to their first so many; none shows all."""

    def __post_init__(self) -> None:
        """Refuse a cut that leaves nothing, and a scale that the reading cannot read."""
        if self.longest_characters is not None and self.longest_characters < 1:
            raise ValueError(f"longest_characters {self.longest_characters} asked; give 1 or more, or none")
        if self.reading is not None:
            self.reading.check(self.prompt)

    def resolved(self) -> Self:
        """The same with its reading settled, by one short request. Raises `JudgeError` where nobody answers."""
        return self if self.reading is not None else replace(self, reading=reading_for(self.judge, self.prompt))

    def load(self) -> Measure:
        """See that the server gives what is read. Raises `JudgeError` where it does not."""
        reading = reading_for(self.judge, self.prompt) if self.reading is None else self.reading
        if isinstance(reading, Expected) and isinstance(reading_for(self.judge, self.prompt), Stated):
            raise JudgeError(
                f"{self.judge.model} at {self.judge.url} gives no log-probabilities; read what it states, with Stated()"
            )
        gate = Gate(self.judge)

        def measure(examples: Sequence[Example]) -> Measured:
            records = [record(example, self.longest_characters) for example in examples]
            rated = rate(self.judge, self.prompt, reading, [texts for texts, _ in records], gate)
            cut = np.array([was_cut for _, was_cut in records], dtype=bool)
            return Measured(rated.values, {**rated.marks, "truncated": cut}, rated.numbers)

        return measure
