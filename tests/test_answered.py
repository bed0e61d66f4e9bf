"""Pools of the same prompts with other answers."""

from __future__ import annotations

import numpy as np
import pytest

from coretune.answered import NO_TEXT, NO_TURN, to_last_answer, with_answers
from coretune.pool import Example, Message, Pool, content_key

TALKS = (
    (("user", "One?"), ("assistant", "1")),
    (("system", "Be brief."), ("user", "One?"), ("assistant", "1"), ("user", "Two?"), ("assistant", "2")),
    (("user", "One?"), ("assistant", "1"), ("user", "And then?")),
    (("user", "Nobody answers."),),
)


@pytest.fixture
def pool() -> Pool:
    made = []
    for row, talk in enumerate(TALKS):
        turns = tuple(Message(*each) for each in talk)
        made.append(Example(f"row {row}", turns, content_key(turns, "[]"), f"source {row}", "[]"))
    return Pool.of(made, "made")


def said(pool: Pool) -> list[list[str]]:
    return [[turn.content for turn in example.messages] for example in pool]


def test_the_last_answer_is_replaced_and_what_stands_behind_it_left_out(pool: Pool) -> None:
    made = with_answers(pool, np.array([1, 2, 0]), ["two", "", "one"])
    assert said(made) == [["Be brief.", "One?", "1", "Two?", "two"], ["One?", ""], ["One?", "one"]]
    assert made.column("id").tolist() == ["row 1", "row 2", "row 0"]
    assert made.column("source").tolist() == ["source 1", "source 2", "source 0"]
    assert made.candidates.all()
    for example in made:
        assert example.key == content_key(example.messages, "[]") and example.tools == "[]"


def test_rows_without_a_text_are_told_apart(pool: Pool) -> None:
    made = with_answers(pool, np.array([0, 1, 3]), ["one", None, "nobody"])
    assert made.excluded_by == [None, NO_TEXT, NO_TURN]
    assert said(made)[1] == said(pool)[1]
    with pytest.raises(ValueError, match="1 texts given for 2 rows"):
        with_answers(pool, np.array([0, 1]), ["one"])


def test_as_it_stands_a_row_that_ends_on_its_answer_is_the_same_row(pool: Pool) -> None:
    made = to_last_answer(pool, np.arange(4))
    assert np.array_equal(made.keys[[0, 1, 3]], pool.keys[[0, 1, 3]])
    assert said(made)[2] == ["One?", "1"]
    assert made.excluded_by == [None, None, None, NO_TURN]
    own = [example.answer for example in pool]
    again = with_answers(pool, np.arange(3), own[:3])
    assert np.array_equal(again.keys, made.keys[:3])


def test_calls_of_tools_go_with_the_answer_that_is_replaced() -> None:
    turns = (Message("user", "Rain?"), Message("assistant", "", '{"tool_calls":[{"name":"weather"}]}'))
    pool = Pool.of([Example("a", turns, content_key(turns))], "made")
    (example,) = with_answers(pool, np.array([0]), ["No."])
    assert example.messages == (Message("user", "Rain?"), Message("assistant", "No."))
    assert next(iter(to_last_answer(pool, np.array([0])))).messages == turns
