"""Turns and tools of one conversation as a chat template can show them, with nothing left out unsaid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from coretune.chat_template import CLOSE, HOLE, OPEN, Refused, Template, draw, template_of
from coretune.pool import Message
from coretune.turns import is_answer

SYSTEM = ("system", "developer")


@dataclass(frozen=True)
class Chat:
    """Turns and tools as the template takes them, with the tokenizer that renders them.

    `folded` is the system text that stands at the head of the first user turn, where the template has no such turn.
    """

    tokenizer: Any
    template: Template
    turns: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] | None
    folded: str

    @cached_property
    def marked_text(self) -> str:
        """The whole chat, with `OPEN` and `CLOSE` where the template marks generation."""
        return draw(self.tokenizer, self.template.text, self.turns, self.tools)

    def prompt(self, count: int) -> str:
        """The first `count` turns and the cue for an answer."""
        return unmarked(draw(self.tokenizer, self.template.text, self.turns[:count], self.tools, prompt=True))

    def hole(self, place: int) -> str:
        """The whole chat with `HOLE` in place of one turn's text."""
        turns = [dict(turn, content=HOLE) if i == place else turn for i, turn in enumerate(self.turns)]
        return unmarked(draw(self.tokenizer, self.template.text, turns, self.tools))


def prepared(tokenizer: Any, messages: Sequence[Message], tools: str | None) -> Chat:
    """The turns as the template can show them. Raises `Refused` where it cannot, before anything is rendered."""
    if not any(is_answer(message) for message in messages):
        raise Refused("no_answer", "no turn of the assistant says anything, so there is nothing to learn from")
    defined = _definitions(tools)
    template = template_of(tokenizer, defined)
    if defined and not template.definitions:
        raise Refused("tools", f"the chat template does not show the {len(defined)} tool definitions of the record")
    turns = [_fitted(message.as_dict(), template) for message in messages]
    folded = f"{turns[0]['content']}\n\n" if turns[0]["role"] in SYSTEM and not template.system else ""
    if folded:
        turns = _folded(turns, folded)
    return Chat(tokenizer, template, tuple(turns), defined, folded)


def _fitted(turn: dict[str, Any], template: Template) -> dict[str, Any]:
    """One turn with a role and tool calls that this template knows. Raises `Refused` where it has nothing for them."""
    if turn.get("parts"):
        raise Refused("turn_dropped", f"a {turn['role']} turn holds images or other parts that are no text")
    if turn["role"] == "tool" and not template.results:
        raise Refused("tools", "the chat template does not show what tools return")
    if turn["role"] == "developer" and not template.developer:
        turn["role"] = "system"
    legacy = turn.pop("function_call", None)  # the one call of a turn, as OpenAI wrote it before tool_calls
    calls = turn.get("tool_calls") or ([legacy] if legacy else [])
    if calls:
        if not isinstance(calls, list) or template.call is None or (len(calls) > 1 and not template.parallel):
            count = len(calls) if isinstance(calls, list) else 0
            raise Refused("tools", f"the chat template cannot show the tool calls of a turn ({count} of them)")
        turn["tool_calls"] = [_call(call, template.call_text) for call in calls]
    return turn


def _folded(turns: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The system text at the head of the first user turn, after an empty line, as model cards without that role say."""
    if len(turns) < 2 or turns[1]["role"] != "user":
        raise Refused("turn_dropped", "the chat template has no system turn, and no user turn follows to hold its text")
    return [{**turns[1], "content": text + turns[1]["content"]}, *turns[2:]]


def _definitions(tools: str | None) -> tuple[Mapping[str, Any], ...] | None:
    """Tool definitions from their JSON, each as `{"type": "function", "function": ...}`, as templates expect it."""
    if not tools:
        return None
    try:
        read = json.loads(tools)
    except json.JSONDecodeError as error:
        raise Refused("tools", f"the record's tool definitions are not JSON: {error}") from error
    given = read if isinstance(read, list) else [read]
    if not all(isinstance(tool, dict) for tool in given):
        raise Refused("tools", "the record's tool definitions are not JSON objects")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in given) or None


def _call(call: Any, as_text: bool) -> dict[str, Any]:
    """A tool call with its arguments as this template takes them: an object, or (DeepSeek-V3) JSON text."""
    if not isinstance(call, dict):
        raise Refused("tools", f"a tool call of the record is {call!r}, not a JSON object")
    outer, inner = (call, call["function"]) if isinstance(call.get("function"), dict) else ({}, call)
    given = {} if inner.get("arguments") is None else inner["arguments"]
    if as_text and not isinstance(given, str):
        given = json.dumps(given, ensure_ascii=False)
    elif not as_text and isinstance(given, str):
        try:
            read = json.loads(given)
        except json.JSONDecodeError:
            read = given
        given = read if isinstance(read, dict) else given
    return {"type": "function", **outer, "function": {**inner, "arguments": given}}


def unmarked(raw: str) -> str:
    """The rendered text without the characters that stand for generation marks."""
    return raw.replace(OPEN, "").replace(CLOSE, "")
