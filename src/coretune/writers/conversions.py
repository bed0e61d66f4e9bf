"""Examples as the records that trainers read: OpenAI messages, ShareGPT, Alpaca."""

from __future__ import annotations

import json
from typing import Any

from coretune.pool import Example

SHAREGPT_NAMES = {
    "system": "system", "developer": "developer", "user": "human", "assistant": "gpt", "tool": "observation",
}  # fmt: skip


def to_messages(example: Example) -> dict[str, Any]:
    """`id`, `messages` with all that their turns hold, and `tools` and `source` where there are any."""
    record: dict[str, Any] = {"id": example.id, "messages": [message.as_dict() for message in example.messages]}
    return record | _beside(example)


def to_sharegpt(example: Example) -> dict[str, Any]:
    """`id`, `conversations` with `from` and `value` (other keys of a turn kept), `tools` and `source`."""
    turns = []
    for message in example.messages:
        rest = message.as_dict()
        turns.append({"from": SHAREGPT_NAMES[rest.pop("role")], "value": rest.pop("content"), **rest})
    return {"id": example.id, "conversations": turns} | _beside(example)


def to_alpaca(example: Example, raw: bytes) -> dict[str, Any] | None:
    """`instruction`, `input`, `output`, and `system` where there is one; None where Alpaca's form cannot hold it.

    It holds one user turn and one answer, after a system turn at most, without tools. Instruction and input stand
    apart where the record came so (`raw`); else the whole user turn is the instruction.
    """
    system = [message for message in example.messages[:1] if message.role == "system"]
    turns = example.messages[len(system) :]
    if [turn.role for turn in turns] != ["user", "assistant"] or example.tools:
        return None
    if any(message.extra for message in example.messages):
        return None
    prompt = _own_input(json.loads(raw), turns[0].content) or {"instruction": turns[0].content, "input": ""}
    record = {**prompt, "output": turns[1].content}
    if system:
        record["system"] = system[0].content
    return {"id": example.id, **record} | _beside(example)


def _own_input(record: Any, prompt: str) -> dict[str, str] | None:
    """Instruction and input of a raw record that has them apart and together makes this prompt."""
    if not isinstance(record, dict) or not isinstance(record.get("instruction"), str):
        return None
    for key in ("input", "context"):
        given = record.get(key)
        if isinstance(given, str) and given and f"{record['instruction']}\n\n{given}" == prompt:
            return {"instruction": record["instruction"], "input": given}
    return None


def _beside(example: Example) -> dict[str, Any]:
    """Tools and source, where there are any."""
    found: dict[str, Any] = {"tools": json.loads(example.tools)} if example.tools else {}
    return found | ({"source": example.source} if example.source else {})
