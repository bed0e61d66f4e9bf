"""Records rated and tagged: prompts, readings and requests put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coretune.judge.asking import Gate, ask
from coretune.judge.endpoint import Judge
from coretune.judge.prompts import RatingPrompt, TagPrompt
from coretune.judge.readings import Expected, Stated
from coretune.judge.replies import Reply, stated_tags
from coretune.shapes import Bool, Float32

TAG_MARKS = ("unparsed", "refused", "too_long", "tokens_estimated")


@dataclass(frozen=True)
class Rated:
    """Scores `(n,)` float32, NaN for a miss; `marks` say why, `numbers` hold tokens a record and the reading's own."""

    values: Float32[np.ndarray, " n"]
    marks: dict[str, Bool[np.ndarray, " n"]]
    numbers: dict[str, Float32[np.ndarray, " n"]]


def rate(
    judge: Judge,
    prompt: RatingPrompt,
    reading: Expected | Stated,
    records: Sequence[Mapping[str, str]],
    gate: Gate | None = None,
) -> Rated:
    """Rate records, each its texts by name (`question`, `answer`), several at a time.

    A record with a blank text that the prompt shows is not asked about: `no_question`, `no_answer`. Raises what `ask`
    raises, and `JudgeError` where a reading wants log-probabilities and the server gives none.
    """
    reading.check(prompt)
    asked, marks = _askable(records, prompt.reads)
    ending, settings = reading.ending(prompt), reading.settings()
    payloads = [judge.payload(prompt.messages(records[row], ending), setting) for row in asked for setting in settings]
    replies = ask(judge, payloads, gate)
    values = np.full(len(records), np.nan, dtype=np.float32)
    marks |= {name: np.zeros(len(records), dtype=bool) for name in reading.marks}
    numbers = {name: np.zeros(len(records), dtype=np.float32) for name in ("input_tokens", "output_tokens")}
    numbers |= {name: np.zeros(len(records), dtype=np.float32) for name in reading.numbers}
    for place, row in enumerate(asked):
        of_row = replies[place * len(settings) : (place + 1) * len(settings)]
        read = reading.read(of_row, prompt)
        values[row] = read.value
        for name in read.marks:
            marks[name][row] = True
        for name, number in {**read.numbers, **_tokens(of_row)}.items():
            numbers[name][row] = number
    return Rated(values, marks, numbers)


def tag(
    judge: Judge,
    prompt: TagPrompt,
    records: Sequence[Mapping[str, str]],
    *,
    max_tokens: int = 256,
    gate: Gate | None = None,
) -> tuple[list[list[str] | None], dict[str, Bool[np.ndarray, " n"]], dict[str, Float32[np.ndarray, " n"]]]:
    """Tags a record, none for a miss; marks and numbers as in `rate`. Raises what `ask` raises."""
    asked, marks = _askable(records, prompt.reads)
    setting = {"max_tokens": max_tokens, "temperature": 0.0}
    replies = ask(judge, [judge.payload(prompt.messages(records[row]), setting) for row in asked], gate)
    tags: list[list[str] | None] = [None] * len(records)
    marks |= {name: np.zeros(len(records), dtype=bool) for name in TAG_MARKS}
    numbers = {name: np.zeros(len(records), dtype=np.float32) for name in ("input_tokens", "output_tokens")}
    for row, reply in zip(asked, replies, strict=True):
        marks["refused"][row], marks["too_long"][row] = reply.refused, reply.too_long
        marks["tokens_estimated"][row] = reply.estimated
        if not (reply.refused or reply.too_long):
            tags[row] = stated_tags(reply.text)
            marks["unparsed"][row] = tags[row] is None
        for name, number in _tokens([reply]).items():
            numbers[name][row] = number
    return tags, marks, numbers


def _askable(
    records: Sequence[Mapping[str, str]], reads: tuple[str, ...]
) -> tuple[list[int], dict[str, Bool[np.ndarray, " n"]]]:
    """The rows all of whose texts say something, and marks for the others."""
    blank = {name: np.array([not record[name].strip() for record in records], dtype=bool) for name in reads}
    any_blank = np.any([*blank.values(), np.zeros(len(records), dtype=bool)], axis=0)
    return np.flatnonzero(~any_blank).tolist(), {f"no_{name}": flags for name, flags in blank.items()}


def _tokens(replies: Sequence[Reply]) -> dict[str, float]:
    return {
        "input_tokens": float(sum(each.input_tokens for each in replies)),
        "output_tokens": float(sum(each.output_tokens for each in replies)),
    }
