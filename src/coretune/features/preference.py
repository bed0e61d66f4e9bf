"""Whether a judge finds another answer better than an example's own, asked in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from coretune.features import Measure, Measured
from coretune.features._choices import choices_of, with_choices
from coretune.features._records import record
from coretune.judge import BETTER, Gate, Judge, Pair, PreferencePrompt, Verdict, prefer
from coretune.pool import Example, content_key

__all__ = ["Preference", "beside", "holds"]

NOTHING = ("no_question", "no_answer", "no_other_answer")  # marks of rows that cannot be asked about
MARKS = (*NOTHING, "miss", "inconsistent", "tie", "same_answer", "blank_answer", "truncated")


@dataclass(frozen=True)
class Preference:
    """Whether an example's own answer holds against another, `(n,)` float32; NaN for a miss, which is never guessed.

    The other answer is the first choice that the last turn carries (`beside` puts it there), so both answers are part
    of the row's content key, and a label is stored and paid for once whoever wrote them. Each pair is asked about in
    both orders. In an order the own answer holds where the judge finds it better, or neither:

        1    it holds in both orders: the other answer is not better
        0    it holds in neither: the other answer is better
        0.5  it holds in one: the judge goes by the place (mark `inconsistent`)

    So a value does not depend on which answer is shown first. Two answers that are the same letter by letter are a tie
    (1, mark `same_answer`), and a blank answer is not better than one that says something (1, mark `blank_answer`);
    nobody is asked. NaN, by its mark: `no_question`, `no_answer`, `no_other_answer` (nothing is asked), `miss` (no
    verdict in one order or both). Further marks: `tie` (in both orders) and `truncated`. Numbers: `requests` (2 or 0)
    and the `input_tokens` and `output_tokens` of both.
    """

    version: ClassVar[int] = 1
    shard_rows: ClassVar[int] = 128

    judge: Judge
    """Who is asked."""
    prompt: PreferencePrompt = BETTER
    """What is asked."""
    longest_characters: int | None = None
    """Question and answers are cut to their first so many; none shows all."""

    def __post_init__(self) -> None:
        """Refuse a cut that leaves nothing."""
        if self.longest_characters is not None and self.longest_characters < 1:
            raise ValueError(f"longest_characters {self.longest_characters} asked; give 1 or more, or none")

    def resolved(self) -> Self:
        """The same: nothing is open."""
        return self

    def load(self) -> Measure:
        """Nothing is loaded; requests of all threads share the judge's pace."""
        gate = Gate(self.judge)

        def measure(examples: Sequence[Example]) -> Measured:
            return self._measured(examples, gate)

        return measure

    def _measured(self, examples: Sequence[Example], gate: Gate) -> Measured:
        count = len(examples)
        marks = {name: np.zeros(count, dtype=bool) for name in MARKS}
        numbers = {name: np.zeros(count, np.float32) for name in ("requests", "input_tokens", "output_tokens")}
        values = np.full(count, np.nan, np.float32)
        asked: dict[int, Pair] = {}
        for row, example in enumerate(examples):
            pair, marks["truncated"][row] = _pair(example, self.longest_characters)
            missing = [not pair.question.strip(), not pair.first.strip(), not choices_of(example)]
            for name, lacks in zip(NOTHING, missing, strict=True):
                marks[name][row] = lacks
            marks["same_answer"][row] = same = not any(missing) and pair.first == pair.second
            marks["blank_answer"][row] = blank = not any(missing) and not pair.second.strip()
            if same or blank:
                values[row] = 1
            elif not any(missing):
                asked[row] = pair
        verdicts = prefer(self.judge, list(asked.values()), self.prompt, gate=gate)
        for row, verdict in zip(asked, verdicts, strict=True):
            values[row] = held = holds(verdict)
            marks["miss"][row], marks["inconsistent"][row] = np.isnan(held), held == 0.5
            marks["tie"][row] = verdict.winner == "tie"
            numbers["requests"][row] = 2
            numbers["input_tokens"][row] = verdict.input_tokens
            numbers["output_tokens"][row] = verdict.output_tokens
        return Measured(values, marks, numbers)


def holds(verdict: Verdict) -> float:
    """1 where the second is better in neither order, 0 where it is in both, 0.5 where in one; NaN where one is a miss.

    The same for both orders exchanged.
    """
    told = (verdict.as_given, verdict.turned)
    return float("nan") if "miss" in told else 1 - told.count("second") / 2


def beside(example: Example, other: str) -> Example:
    """The example up to its last answer, with another answer beside that; raises `ValueError` where it has none."""
    turns = [place for place, turn in enumerate(example.messages) if turn.role == "assistant"]
    if not turns:
        raise ValueError(f"example {example.id} has no answer that another could stand beside")
    own = example.messages[turns[-1]].content
    messages = (*example.messages[: turns[-1]], with_choices(own, [other]))
    return replace(example, messages=messages, key=content_key(messages, example.tools))


def _pair(example: Example, longest: int | None) -> tuple[Pair, bool]:
    """Question, own and other answer, each cut; and whether one was."""
    texts, cut = record(example, longest)
    other = next(iter(choices_of(example)), "")
    return Pair(texts["question"], texts["answer"], other[:longest]), cut or other[:longest] != other
