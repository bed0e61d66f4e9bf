"""Records of every known format, and of none, as messages: by hand, case by case."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coretune.formats import FIELDS, Recogniser
from coretune.pool import Message
from coretune.readers.advice import check_columns, suggestion
from coretune.turns import ROLE_OF, SYNONYMS, Unusable

USER, ANSWER = Message("user", "Name a river."), Message("assistant", "The Rhine.")
ASKED, SAID = {"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "The Rhine."}


def read(record: Any, **columns: str) -> list[Message]:
    return Recogniser(columns).parse(record).messages


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"messages": [ASKED, SAID]}, "messages"),
        ({"messages": json.dumps([ASKED, SAID])}, "messages"),
        ({"messages": {"role": ["user", "assistant"], "content": ["Name a river.", "The Rhine."]}}, "messages"),
        (
            {"conversations": [{"from": "human", "value": "Name a river."}, {"from": "gpt", "value": "The Rhine."}]},
            "sharegpt",
        ),
        ({"conversations": [ASKED, SAID]}, "sharegpt"),
        ({"conversation": ["Name a river.", "The Rhine."]}, "sharegpt"),
        ({"instruction": "Name a river.", "input": "", "output": "The Rhine."}, "alpaca"),
        ({"instruction": "Name a river.", "output": "The Rhine."}, "alpaca"),
        ({"instruction": "Name a river.", "context": None, "response": "The Rhine."}, "dolly"),
        ({"prompt": "Name a river.", "completion": "The Rhine."}, "prompt_completion"),
        ({"prompt": "Name a river.", "response": "The Rhine."}, "prompt_completion"),
        ({"prompt": [ASKED], "completion": [SAID]}, "prompt_completion"),
        ({"question": "Name a river.", "answer": "The Rhine."}, "question_answer"),
        ({"query": "Name a river.", "response": "The Rhine."}, "question_answer"),
        ({"inputs": "Name a river.", "targets": "The Rhine."}, "p3"),
        ({"input": "Name a river.", "target": "The Rhine."}, "p3"),
        ({"input": "Name a river.", "output": "The Rhine."}, "p3"),
        (
            {
                "inputs": [5, 7],
                "targets": [1],
                "inputs_pretokenized": "Name a river.",
                "targets_pretokenized": "The Rhine.",
            },
            "p3",
        ),
        ({"messages": None, "prompt": "Name a river.", "completion": "The Rhine."}, "prompt_completion"),
    ],
)
def test_one_question_in_every_format(record: dict[str, Any], name: str) -> None:
    parsed = Recogniser().parse(record)
    assert (parsed.format, parsed.messages) == (name, [USER, ANSWER])


def test_instruction_and_input_are_parted_by_an_empty_line() -> None:
    record = {"instruction": "Translate.", "input": "Fluss", "output": "river"}
    assert read(record) == [Message("user", "Translate.\n\nFluss"), Message("assistant", "river")]
    assert read({"instruction": "Sum up.", "context": "Long.", "response": "Short."})[0].content == "Sum up.\n\nLong."


def test_system_and_history_come_first() -> None:
    record = {
        "system": "Be brief.",
        "history": [["Hi", "Hello"], ["And?", "Yes"]],
        "instruction": "Bye",
        "input": "",
        "output": "Bye!",
    }
    assert [(m.role, m.content) for m in read(record)] == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "And?"),
        ("assistant", "Yes"),
        ("user", "Bye"),
        ("assistant", "Bye!"),
    ]
    twice = {"system": "Be brief.", "messages": [{"role": "system", "content": "Be brief."}, ASKED, SAID]}
    assert [m.role for m in read(twice)] == ["system", "user", "assistant"]


@pytest.mark.parametrize("name", sorted(ROLE_OF))
def test_every_synonym_of_a_role(name: str) -> None:
    turns = [{"from": name.upper(), "value": "x"}, ASKED, SAID]
    assert name in SYNONYMS[read({"conversations": turns})[0].role]


def test_roles_with_spaces_and_hyphens() -> None:
    assert read({"conversations": [{"from": " Tool-Response ", "value": "4"}, SAID]})[0].role == "tool"


def test_tool_calls_and_other_keys_are_kept() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    turns = [
        {**ASKED, "name": "Ann"},
        {"role": "assistant", "content": None, "tool_calls": calls, "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
    ]
    parsed = Recogniser().parse({"messages": turns, "tools": [{"type": "function"}]})
    assert [m.as_dict() for m in parsed.messages] == [
        turns[0],
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ]
    assert parsed.tools == '[{"type":"function"}]'


def test_tools_mean_the_same_as_list_and_as_text() -> None:
    tools = [{"name": "add", "parameters": {"x": "int"}}]
    given = [
        Recogniser().parse({"messages": [ASKED, SAID], "tools": x}).tools for x in (tools, json.dumps(tools, indent=2))
    ]
    assert given[0] == given[1] == '[{"name":"add","parameters":{"x":"int"}}]'
    for none in (None, [], "", "[]"):
        assert Recogniser().parse({"messages": [ASKED, SAID], "tools": none}).tools is None


def test_parts_of_type_text_are_joined_and_others_kept() -> None:
    picture = {"type": "image_url", "image_url": {"url": "river.png"}}
    parts = [{"type": "text", "text": "Which river "}, picture, "is this?"]
    turn = read({"messages": [{"role": "user", "content": parts}, SAID]})[0]
    assert turn.content == "Which river is this?"
    assert turn.as_dict()["parts"] == [picture]


def test_keys_folded_into_extra_are_unfolded() -> None:
    turn = {"role": "user", "content": "Hi", "extra": '{"name":"Ann"}'}
    assert read({"messages": [turn, SAID]})[0].as_dict() == {"role": "user", "content": "Hi", "name": "Ann"}
    for extra in ("{broken", '{"role":"tool"}', "plain"):
        assert read({"messages": [{**turn, "extra": extra}, SAID]})[0].as_dict()["extra"] == extra


def test_conversation_that_ends_on_a_user_turn_keeps_its_answers() -> None:
    assert read({"messages": [ASKED, SAID, ASKED]}) == [USER, ANSWER, USER]


def test_labels_and_scalars() -> None:
    record = {
        "id": 7,
        "dataset": "rivers",
        "language": "en",
        "prompt": "a",
        "completion": "b",
        "score": 0.5,
        "tags": ["x"],
    }
    parsed = Recogniser().parse(record)
    assert (parsed.id, parsed.source, parsed.lang) == ("7", "rivers", "en")
    assert parsed.data == {"dataset": "rivers", "language": "en", "score": 0.5}
    bare = Recogniser().parse({"id": True, "uid": "", "uuid": "u", "source": ["x"], "prompt": "a", "completion": "b"})
    assert (bare.id, bare.source, bare.lang) == ("u", None, None)


def test_named_columns() -> None:
    record = {"Q": "Name a river.", "Hint": "in Europe", "A": "The Rhine.", "key": "k1", "who": "me"}
    columns = {"prompt": "Q", "completion": "A", "context": "Hint", "id": "key", "source": "who"}
    recogniser = Recogniser(columns)
    parsed = recogniser.parse(record)
    assert parsed.messages == [Message("user", "Name a river.\n\nin Europe"), ANSWER]
    assert (parsed.format, parsed.id, parsed.source) == ("named", "k1", "me")
    assert recogniser.met == set(columns.values())
    assert read({"dialog": [ASKED, SAID]}, messages="dialog") == [USER, ANSWER]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([1], "not an object: the record is a list"),
        ("text", "not an object: the record is text"),
        (None, "not an object: the record is null"),
        ({}, "missing field: no known format goes with the keys of the record (no keys)"),
        ({"a": 1}, "missing field: no known format goes with the keys of the record ('a')"),
        ({"instruction": "x"}, "missing field: 'output', which alpaca records need (this one has 'instruction')"),
        ({"prompt": None, "completion": "x"}, "missing field: 'prompt' is null"),
        ({"prompt": 5, "completion": "x"}, "wrong type: field 'prompt' is a number, not text"),
        ({"prompt": "x", "completion": True}, "wrong type: field 'completion' is true or false, not text"),
        ({"prompt": "x", "completion": ["y"]}, "wrong type: field 'completion' is a list, not one text"),
        ({"prompt": "x", "completion": " \n"}, "no answer: field 'completion' is empty"),
        ({"prompt": "x", "completion": None}, "no answer: field 'completion' is null"),
        ({"messages": 3}, "wrong type: field 'messages' is a number, not a list of turns"),
        ({"messages": "hello"}, "wrong type: field 'messages' is text that holds no list of turns as JSON"),
        ({"messages": {"role": "user"}}, "wrong type: field 'messages' is an object, not a list of turns"),
        ({"messages": []}, "no answer: field 'messages' is an empty list"),
        ({"messages": [ASKED]}, "no answer: 'messages' has no assistant turn"),
        ({"messages": [ASKED, {**SAID, "content": ""}]}, "no answer: every assistant turn of 'messages' is empty"),
        (
            {"messages": [ASKED, {**SAID, "content": None, "tool_calls": []}]},
            "no answer: every assistant turn of 'messages' is empty",
        ),
        ({"messages": [ASKED, None]}, "wrong type: messages[1] is null, not an object"),
        ({"messages": [ASKED, {"role": "narrator", "content": "x"}]}, "unknown role: messages[1].role is 'narrator'"),
        ({"messages": [ASKED, {"role": 1, "content": "x"}]}, "wrong type: messages[1].role is a number, not text"),
        ({"messages": [{"content": "x"}]}, "missing field: messages[0] has no role (role or from or speaker)"),
        ({"messages": [{"role": "user"}]}, "missing field: messages[0] has no content (content or value or text)"),
        ({"messages": [{"role": "user", "content": None}]}, "wrong type: messages[0].content is null, not text"),
        ({"messages": [{"role": "user", "content": 4}]}, "wrong type: messages[0].content is a number, not text"),
        (
            {"messages": [{"role": "user", "content": [4]}]},
            "wrong type: messages[0].content[0] is a number, not text or an object",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "wrong type: messages[0].content[0].text is null, not text",
        ),
        ({"conversations": ["a", 1]}, "wrong type: conversations[1] is a number where conversations[0] is text"),
        ({"prompt": "x", "completion": "y", "system": 1}, "wrong type: field 'system' is a number, not text"),
        ({"prompt": "x", "completion": "y", "tools": 1}, "wrong type: field 'tools' is a number, not a list of tools"),
        ({"prompt": "x", "completion": "y", "tools": "add"}, "wrong type: field 'tools' is text that is no JSON"),
        (
            {"prompt": "x", "completion": "y", "history": {}},
            "wrong type: field 'history' is an object, not a list of pairs",
        ),
        (
            {"prompt": "x", "completion": "y", "history": [["a"]]},
            "wrong type: history[0] is a list, not a pair of texts",
        ),
    ],
)
def test_reasons_name_the_field_and_the_type(record: Any, reason: str) -> None:
    with pytest.raises(Unusable) as raised:
        read(record)
    assert str(raised.value) == reason


def test_named_column_that_a_record_lacks() -> None:
    with pytest.raises(Unusable, match="missing field: 'A', which named records need"):
        read({"Q": "x"}, prompt="Q", completion="A")


def test_columns_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="did you mean 'prompt'"):
        Recogniser({"promt": "x", "completion": "y"})
    with pytest.raises(ValueError, match="give prompt=COLUMN too"):
        Recogniser({"completion": "y"})
    assert set(FIELDS) >= {"messages", "prompt", "completion", "context", "system", "id", "source", "lang"}


@pytest.mark.parametrize(
    ("keys", "columns"),
    [
        (
            ["Type", "Question", "Best Answer", "Incorrect Answers"],
            "--columns prompt=Question,completion='Best Answer'",
        ),
        (["task_id", "prompt", "canonical_solution"], "--columns prompt=prompt,completion=canonical_solution"),
        (["n", "dialog_turns"], "--columns messages=dialog_turns"),
        (["a", "b"], "--columns prompt=COLUMN,completion=COLUMN"),
    ],
)
def test_suggested_columns(keys: list[str], columns: str) -> None:
    assert columns in suggestion(keys)


def test_first_row_that_is_no_header() -> None:
    from coretune.errors import PoolError

    with pytest.raises(PoolError, match="put a header line in front"):
        check_columns(Recogniser(), ["Why is the sky blue?", "Scattering.", "A"], "mmlu.csv")
    with pytest.raises(PoolError, match="did you mean 'Question'"):
        check_columns(Recogniser({"prompt": "Questin", "completion": "A"}), ["Question", "A"], "t.csv")
    check_columns(Recogniser({"prompt": "Question", "completion": "A"}), ["Question", "A"], "t.csv")
