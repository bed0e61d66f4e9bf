"""Other answers to the prompts of a pool: the same conversations up to their last answer, as it stands or replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from coretune.pool import Example, Message, Pool, content_key
from coretune.shapes import Int64

NO_TURN, NO_TEXT = "no turn of the assistant", "no answer was given"


def to_last_answer(pool: Pool, rows: Int64[np.ndarray, " m"]) -> Pool:
    """A pool of `m` rows: row j is `rows[j]` up to its last turn of the assistant, with its id and source.

    A row that ends on its answer keeps its content key, so that what was measured of it is found again. Rows without a
    turn of the assistant stand as they are, and are excluded.
    """
    return _cut(pool, rows, lambda _, turn: turn)


def with_answers(pool: Pool, rows: Int64[np.ndarray, " m"], texts: Sequence[str | None]) -> Pool:
    """A pool of `m` rows: row j is `rows[j]` with `texts[j]` in place of its last turn of the assistant.

    Turns behind that one are left out; what else the turn held (calls of tools) goes with it. Ids and sources are those
    of the rows it comes from. A row whose text is None keeps its own answer and is excluded, as one without such a turn
    is. Raises `ValueError` for another number of texts.
    """
    if len(texts) != len(rows):
        raise ValueError(f"{len(texts)} texts given for {len(rows)} rows; give one for each, or None")

    def other(place: int, turn: Message) -> Message:
        said = texts[place]
        return turn if said is None else Message("assistant", said)

    missing = np.array([place for place, text in enumerate(texts) if text is None], dtype=np.int64)
    made = _cut(pool, rows, other)
    return made.exclude(missing, NO_TEXT) if len(missing) else made


def _cut(pool: Pool, rows: Int64[np.ndarray, " m"], answer: Callable[[int, Message], Message]) -> Pool:
    """Each row up to its last turn of the assistant, which is `answer(place, turn)`."""
    made: list[Example] = []
    none: list[int] = []
    for place, example in enumerate(pool.examples(rows)):
        last = max((i for i, turn in enumerate(example.messages) if turn.role == "assistant"), default=None)
        if last is None:
            none.append(place)
            made.append(example)
            continue
        turns = (*example.messages[:last], answer(place, example.messages[last]))
        made.append(replace(example, messages=turns, key=content_key(turns, example.tools)))
    found = Pool.of(made, "answers")
    return found.exclude(np.array(none, dtype=np.int64), NO_TURN) if none else found
