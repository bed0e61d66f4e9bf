"""The turns of a conversation, in any of the usual spellings, as messages."""

from __future__ import annotations

import json
from typing import Any

from coretune.pool import Message

SYNONYMS = {
    "system": ("system",),
    "developer": ("developer",),
    "user": ("user", "human", "prompter", "usr"),
    "assistant": (
        "assistant", "gpt", "bot", "model", "chatgpt", "chatbot", "ai", "bing", "bard", "claude", "agent",
        "function_call", "tool_call",
    ),
    "tool": (
        "tool", "observation", "function", "ipython", "environment", "function_response", "function_result",
        "tool_response", "tool_result",
    ),
}  # fmt: skip
ROLE_OF = {name: role for role, names in SYNONYMS.items() for name in names}
ROLE_KEYS = ("role", "from", "speaker")
CONTENT_KEYS = ("content", "value", "text")
TEXT_PARTS = ("text", "input_text", "output_text")
CALLS = ("tool_calls", "function_call")  # keys of a turn that make it an answer without any content

_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Unusable(Exception):
    """Why a record cannot become an example. The text is `kind: detail`; the kind is one of a fixed few."""


def kind_of(value: object) -> str:
    """The JSON type of a value, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def read_turns(value: Any, field: str) -> list[Message]:
    """The messages of a list of turns: objects with a role and a content, or bare texts that alternate from user.

    `field` names the list in reasons. A text that holds such a list as JSON is read too (csv has no lists). Raises
    `Unusable`.
    """
    if isinstance(value, str):
        value = _from_json(value, field)
    if isinstance(value, dict):
        value = _rows_of(value)
    if not isinstance(value, list):
        raise Unusable(f"wrong type: field {field!r} is {kind_of(value)}, not a list of turns")
    if not value:
        raise Unusable(f"no answer: field {field!r} is an empty list")
    if isinstance(value[0], str):
        return [_bare_turn(turn, i, field) for i, turn in enumerate(value)]
    return [_read_turn(turn, f"{field}[{i}]") for i, turn in enumerate(value)]


def is_answer(message: Message) -> bool:
    """Whether a turn is the assistant's and says something: a text, or a call of a tool."""
    if message.role != "assistant":
        return False
    if message.content.strip() or message.extra is None:
        return bool(message.content.strip())
    extra = json.loads(message.extra)
    return any(extra.get(key) for key in CALLS)


def _from_json(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"wrong type: field {field!r} is text that holds no list of turns as JSON") from error


def _rows_of(columns: dict[str, Any]) -> Any:
    """Turns that were stored as an object of lists of one length, one list a key, as objects; else what was given."""
    lists = list(columns.values())
    if not lists or not all(isinstance(each, list) and len(each) == len(lists[0]) for each in lists):
        return columns
    return [dict(zip(columns, turn, strict=True)) for turn in zip(*lists, strict=True)]


def _bare_turn(turn: Any, place: int, field: str) -> Message:
    if not isinstance(turn, str):
        raise Unusable(f"wrong type: {field}[{place}] is {kind_of(turn)} where {field}[0] is text")
    return Message("assistant" if place % 2 else "user", turn)


def _read_turn(turn: Any, place: str) -> Message:
    """One turn; `place` says where it stands. Every key beside role and content goes to `extra`, nulls excepted."""
    if not isinstance(turn, dict):
        raise Unusable(f"wrong type: {place} is {kind_of(turn)}, not an object")
    role_key = _first_key(turn, ROLE_KEYS, place, "role")
    name = turn[role_key]
    if not isinstance(name, str):
        raise Unusable(f"wrong type: {place}.{role_key} is {kind_of(name)}, not text")
    role = ROLE_OF.get(name) or ROLE_OF.get(name.strip().lower().replace("-", "_").replace(" ", "_"))
    if role is None:
        raise Unusable(f"unknown role: {place}.{role_key} is {name[:40]!r}")
    rest = {key: value for key, value in turn.items() if value is not None and key != role_key}
    content_key = next((key for key in CONTENT_KEYS if key in rest), None)
    if content_key is None:
        content = _no_content(turn, rest, role, place)
    else:
        content, parts = _read_content(rest.pop(content_key), f"{place}.{content_key}")
        if parts:
            rest["parts"] = parts
    _unfold(rest)
    return Message(role, content, _dump(rest) if rest else None)


def _first_key(turn: dict[str, Any], keys: tuple[str, ...], place: str, what: str) -> str:
    present = [key for key in keys if key in turn]
    if not present:
        raise Unusable(f"missing field: {place} has no {what} ({' or '.join(keys)})")
    return next((key for key in present if turn[key] is not None), present[0])


def _no_content(turn: dict[str, Any], rest: dict[str, Any], role: str, place: str) -> str:
    """An empty text, where the assistant's turn holds something else than content, such as a call of a tool."""
    if role == "assistant" and rest:
        return ""
    key = next((key for key in CONTENT_KEYS if key in turn), None)
    if key is None:
        raise Unusable(f"missing field: {place} has no content ({' or '.join(CONTENT_KEYS)})")
    raise Unusable(f"wrong type: {place}.{key} is null, not text")


def _read_content(value: Any, place: str) -> tuple[str, list[Any]]:
    """The text of a turn, and those of its parts that are no text."""
    if isinstance(value, str):
        return value, []
    if not isinstance(value, list):
        raise Unusable(f"wrong type: {place} is {kind_of(value)}, not text")
    texts, others = [], []
    for i, part in enumerate(value):
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, dict):
            raise Unusable(f"wrong type: {place}[{i}] is {kind_of(part)}, not text or an object")
        elif part.get("type", "text") not in TEXT_PARTS:
            others.append(part)
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise Unusable(f"wrong type: {place}[{i}].text is {kind_of(part.get('text'))}, not text")
    return "".join(texts), others


def _unfold(rest: dict[str, Any]) -> None:
    """Put back the keys that a pool written as parquet holds as one JSON object under `extra`."""
    folded = rest.get("extra")
    if isinstance(folded, str) and folded.startswith("{"):
        try:
            keys = json.loads(folded)
        except (ValueError, RecursionError):
            return
        if isinstance(keys, dict) and "role" not in keys and "content" not in keys:
            del rest["extra"]
            rest.update({key: value for key, value in keys.items() if key not in rest})
