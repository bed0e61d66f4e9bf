"""Open tags that a judge gives each example: what it wants, in short phrases (#InsTag)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from coretune.features import Measure, Measured, Texts
from coretune.features._records import record
from coretune.judge import TAGGING, Gate, Judge, TagPrompt, tag
from coretune.pool import Example


@dataclass(frozen=True)
class Tags:
    """A text a row: its tags as a JSON list, in the judge's order, lower case, none twice; none for a miss.

    Tags are not merged across rows (#InsTag normalises by frequency, embedding and association afterwards). Marks:
    `no_question` and `no_answer` (a text that the prompt shows is blank), `unparsed`, `refused`, `too_long`,
    `tokens_estimated`, `truncated`. Numbers: `tags` (how many), `input_tokens`, `output_tokens`.
    """

    version: ClassVar[int] = 1
    shard_rows: ClassVar[int] = 256

    judge: Judge
    """Who is asked."""
    prompt: TagPrompt = TAGGING
    """What is asked."""
    max_tokens: int = 256
    """The longest reply; one that is cut is no JSON list, and so a miss."""
    longest_characters: int | None = None
    """Question and answer are cut to their first so many; none shows all."""

    def __post_init__(self) -> None:
        """Refuse lengths that leave nothing."""
        if self.max_tokens < 1 or (self.longest_characters is not None and self.longest_characters < 1):
            raise ValueError("give max_tokens and longest_characters of 1 or more")

    def resolved(self) -> Self:
        """The same: nothing is open."""
        return self

    def load(self) -> Measure:
        """Nothing is loaded; the server is asked when examples come."""
        gate = Gate(self.judge)

        def measure(examples: Sequence[Example]) -> Measured:
            records = [record(example, self.longest_characters) for example in examples]
            texts = [text for text, _ in records]
            tags, marks, numbers = tag(self.judge, self.prompt, texts, max_tokens=self.max_tokens, gate=gate)
            said = Texts.of([None if each is None else json.dumps(each, ensure_ascii=False) for each in tags])
            counts = np.array([len(each or ()) for each in tags], dtype=np.float32)
            cut = np.array([was_cut for _, was_cut in records], dtype=bool)
            return Measured(said, {**marks, "truncated": cut}, {"tags": counts, **numbers})

        return measure
