"""Record formats: from a raw record, whatever its keys, to the messages of an example.

A format is recognised from a record's keys, in the order of `KNOWN`; the first whose needed keys all hold something
wins. `columns` names the keys instead, where a data set spells them its own way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from coretune.errors import nearest
from coretune.pool import Message
from coretune.turns import Unusable, is_answer, kind_of, read_turns

Scalar = bool | int | float | str
SCALARS = frozenset((bool, int, float, str))


@dataclass(frozen=True, slots=True)
class Layout:
    """Which keys of a record hold its conversation: a list of turns, or a prompt (with contexts) and a completion."""

    name: str
    turns: str = ""
    prompt: str = ""
    completion: str = ""
    contexts: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys without which a record is not of this format."""
        return (self.turns,) if self.turns else (self.prompt, self.completion)


def _pair(name: str, prompt: str, completion: str, *contexts: str) -> Layout:
    return Layout(name, prompt=prompt, completion=completion, contexts=contexts)


KNOWN = (
    Layout("messages", turns="messages"),
    Layout("sharegpt", turns="conversations"),
    Layout("sharegpt", turns="conversation"),
    _pair("alpaca", "instruction", "output", "input", "context"),
    _pair("dolly", "instruction", "response", "context", "input"),
    _pair("prompt_completion", "prompt", "completion", "context"),
    _pair("prompt_completion", "prompt", "response", "context"),
    _pair("question_answer", "question", "answer", "context"),
    _pair("question_answer", "question", "response", "context"),
    _pair("question_answer", "query", "response", "context"),
    _pair("p3", "inputs_pretokenized", "targets_pretokenized"),
    _pair("p3", "inputs", "targets"),
    _pair("p3", "input", "target"),
    _pair("p3", "input", "targets"),
    _pair("p3", "input", "output"),
)
NAMED = "named"  # the format of records whose keys `columns` names
BESIDE = {  # what a record may say beside its conversation, and the keys for it
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "tools": ("tools",),
    "id": ("id", "uid", "uuid"),
    "source": ("source", "dataset", "data_source", "dataset_name"),
    "lang": ("lang", "language"),
}
FIELDS = ("messages", "prompt", "completion", "context", *BESIDE)
LABELS = ("id", "source", "lang")

_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Parsed(NamedTuple):
    """What an example is made of. `data` holds the record's top-level scalars that stand in no other field."""

    format: str
    messages: list[Message]
    tools: str | None
    id: str | None
    source: str | None
    lang: str | None
    data: dict[str, Scalar]


class Recogniser:
    """Reads records of any known format, or of the keys that `columns` (our field -> the record's key) names.

    `met` holds those of the named keys that some record had. Raises `ValueError` where `columns` names an unknown
    field, or a prompt without a completion.
    """

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        self.columns = dict(columns or {})
        self.met: set[str] = set()
        self.layouts = _layouts(self.columns)
        self._beside = {field: (self.columns[field],) if field in self.columns else BESIDE[field] for field in BESIDE}
        self._consumed = {key for field in BESIDE if field not in LABELS for key in self._beside[field]}
        self._fitting: dict[tuple[str, ...], tuple[Layout, ...]] = {}

    def fitting(self, keys: Iterable[str]) -> tuple[Layout, ...]:
        """The formats whose needed keys are all among `keys`."""
        shape = tuple(keys)
        found = self._fitting.get(shape)
        if found is None:
            if len(self._fitting) >= 1024:  # records without two alike must not fill the memory
                self._fitting.clear()
            self.met.update(key for key in self.columns.values() if key in shape)
            found = tuple(layout for layout in self.layouts if set(layout.needs) <= set(shape))
            self._fitting[shape] = found
        return found

    def parse(self, record: Any) -> Parsed:
        """The example in a record. Raises `Unusable` with the reason where there is none."""
        if not isinstance(record, dict):
            raise Unusable(f"not an object: the record is {kind_of(record)}")
        fitting = self.fitting(record)
        if not fitting:
            raise Unusable(self._misfit(record))
        layout = next((x for x in fitting if all(record[key] is not None for key in x.needs)), fitting[0])
        messages = self._turns(record, layout) if layout.turns else self._pair(record, layout)
        if not any(map(is_answer, messages)):
            raise Unusable(f"no answer: {_why_no_answer(record, layout, messages)}")
        labels = {field: self._label(record, field) for field in LABELS}
        used = {layout.turns, layout.prompt, layout.completion, *layout.contexts, *self._consumed}
        used.update(field for field, value in labels.items() if value is not None)
        data = {key: value for key, value in record.items() if type(value) in SCALARS and key not in used}
        return Parsed(layout.name, messages, self._tools(record), **labels, data=data)

    def _misfit(self, record: dict[str, Any]) -> str:
        """Which key a record lacks to be of the format it comes nearest to."""
        has = ", ".join(repr(key[:40]) for key in list(record)[:12]) or "no keys"
        for layout in self.layouts:
            lacking = [key for key in layout.needs if key not in record]
            if len(lacking) < len(layout.needs) or layout.name == NAMED:
                return f"missing field: {lacking[0]!r}, which {layout.name} records need (this one has {has})"
        return f"missing field: no known format goes with the keys of the record ({has})"

    def _turns(self, record: dict[str, Any], layout: Layout) -> list[Message]:
        return self._with_system(record, read_turns(record[layout.turns], layout.turns))

    def _pair(self, record: dict[str, Any], layout: Layout) -> list[Message]:
        prompt, completion = record[layout.prompt], record[layout.completion]
        messages = self._history(record)
        if isinstance(prompt, list):  # conversational: turns on both sides
            messages += read_turns(prompt, layout.prompt)
        else:
            texts = [_text(record, key) for key in (layout.prompt, *layout.contexts)]
            if prompt is None and not any(texts):
                raise Unusable(f"missing field: {layout.prompt!r} is null")
            messages.append(Message("user", "\n\n".join(text for text in texts if text)))
        if not isinstance(completion, list):
            messages.append(Message("assistant", _text(record, layout.completion)))
        elif any(isinstance(turn, str) for turn in completion):
            raise Unusable(f"wrong type: field {layout.completion!r} is a list, not one text")
        else:
            messages += read_turns(completion, layout.completion)
        return self._with_system(record, messages)

    def _history(self, record: dict[str, Any]) -> list[Message]:
        """Earlier turns of Alpaca records: a list of pairs of texts."""
        key = self._key(record, "history")
        pairs = [] if key is None else record[key]
        if not isinstance(pairs, list):
            raise Unusable(f"wrong type: field {key!r} is {kind_of(pairs)}, not a list of pairs")
        messages: list[Message] = []
        for i, pair in enumerate(pairs):
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
                raise Unusable(f"wrong type: {key}[{i}] is {kind_of(pair)}, not a pair of texts")
            messages += [Message("user", pair[0]), Message("assistant", pair[1])]
        return messages

    def _with_system(self, record: dict[str, Any], messages: list[Message]) -> list[Message]:
        """The messages with the record's own system text in front, unless they begin with it."""
        key = self._key(record, "system")
        text = "" if key is None else _text(record, key)
        if not text.strip() or messages[:1] == [Message("system", text)]:
            return messages
        return [Message("system", text), *messages]

    def _tools(self, record: dict[str, Any]) -> str | None:
        """The tools of a record as compact JSON; None where there are none."""
        key = self._key(record, "tools")
        tools = None if key is None else record[key]
        if isinstance(tools, str) and tools.strip():
            try:
                tools = json.loads(tools)
            except ValueError as error:
                raise Unusable(f"wrong type: field {key!r} is text that is no JSON") from error
        if not isinstance(tools, (list, dict, str, type(None))):
            raise Unusable(f"wrong type: field {key!r} is {kind_of(tools)}, not a list of tools")
        return _dump(tools) if tools and not isinstance(tools, str) else None

    def _label(self, record: dict[str, Any], field: str) -> str | None:
        """The record's id, source or language, where it is a text or a whole number."""
        for key in self._beside[field]:
            value = record.get(key)
            if (isinstance(value, str) and value) or (isinstance(value, int) and not isinstance(value, bool)):
                return str(value)
        return None

    def _key(self, record: dict[str, Any], field: str) -> str | None:
        return next((key for key in self._beside[field] if record.get(key) is not None), None)


def _layouts(columns: Mapping[str, str]) -> tuple[Layout, ...]:
    """The layouts that these named columns leave."""
    for field in columns:
        if field not in FIELDS:
            raise ValueError(f"--columns names {field!r}; the fields are {', '.join(FIELDS)}{nearest(field, FIELDS)}")
    contexts = (columns["context"],) if "context" in columns else ()
    prompt, completion = columns.get("prompt"), columns.get("completion")
    if (prompt is None) != (completion is None):
        given, absent = ("completion", "prompt") if prompt is None else ("prompt", "completion")
        raise ValueError(f"--columns names {given}={columns[given]} alone; give {absent}=COLUMN too")
    if "messages" in columns:
        return (Layout(NAMED, turns=columns["messages"]),)
    if prompt and completion:
        return (Layout(NAMED, prompt=prompt, completion=completion, contexts=contexts),)
    return tuple(replace(layout, contexts=contexts) if contexts and layout.prompt else layout for layout in KNOWN)


def _text(record: dict[str, Any], key: str) -> str:
    """The text under a key; empty where the key is absent or null."""
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise Unusable(f"wrong type: field {key!r} is {kind_of(value)}, not text")
    return value or ""


def _why_no_answer(record: dict[str, Any], layout: Layout, messages: list[Message]) -> str:
    if layout.completion:
        return f"field {layout.completion!r} is {'null' if record[layout.completion] is None else 'empty'}"
    if any(message.role == "assistant" for message in messages):
        return f"every assistant turn of {layout.turns!r} is empty"
    return f"{layout.turns!r} has no assistant turn"
