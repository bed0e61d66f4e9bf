"""One conversation as its chat template writes it, and exactly where in that text its answers stand."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from coretune.chat_template import CLOSE, HOLE, OPEN, Refused
from coretune.chat_turns import SYSTEM, Chat, prepared, unmarked
from coretune.pool import Message

FOLDED = "system_folded"  # the system text stands at the head of the first user turn, as the template has no such turn
SHORTENED = "answer_shortened"  # the template leaves out part of an earlier answer (Qwen3: its thinking), by design
NOTES = (FOLDED, SHORTENED)


@dataclass(frozen=True)
class Rendered:
    """A conversation as text; `answers` are `(start, end)` in characters, in order, each with its stop token if any.

    `stopped` says of each answer whether a stop token ends it; `kept` is where the opening that truncation keeps ends
    (BOS, system turn, the first user turn's header), `cue` the text that opens each answer; `notes` are of `NOTES`.
    """

    text: str
    answers: tuple[tuple[int, int], ...]
    stopped: tuple[bool, ...]
    cue: str
    notes: tuple[str, ...]
    chat: Chat

    @property
    def kept(self) -> int:
        """Characters of the text before the first user turn's own words; 0 where that is not certain."""
        turns = self.chat.turns
        first = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), None)
        if first is None:
            return 0
        before, _, _ = self.chat.hole(first).partition(HOLE)
        opening = before + self.chat.folded.lstrip()
        return next((len(start) for start in (opening, before) if self.text.startswith(start)), 0)


def render(tokenizer: Any, messages: Sequence[Message], tools: str | None = None) -> Rendered:
    """Write a conversation in the tokenizer's chat template and find every answer in it.

    An answer is what the model writes after the cue (`add_generation_prompt`) up to and with its stop token; white
    space and tokens that the template puts behind that are no part of it. Where the template marks generation, its
    marks say so, but for stop tokens, which are always in. Else the start is where the rendered turns before the answer
    with the cue end, if the text starts so, or where the answer's own words start; the end is told from the ending that
    every answer of this template has, or from the same chat with the answer's words replaced. Raises `Refused` where
    the template refuses or leaves out a turn, or where an answer's place is not certain.
    """
    chat = prepared(tokenizer, messages, tools)
    if any(mark in turn["content"] for turn in chat.turns for mark in (OPEN, CLOSE, HOLE)):
        raise Refused("unclear", "the conversation holds a character that stands for something else here (U+E0F0)")
    text = unmarked(chat.marked_text)
    answers = _marked(chat) if chat.template.marked else _found(chat, text)
    notes = [FOLDED] * bool(chat.folded) + [SHORTENED] * _shown(chat, text, answers)
    stops = chat.template.stops
    return Rendered(
        text=text,
        answers=tuple(answers),
        stopped=tuple(text[start:end].endswith(stops) for start, end in answers),
        cue=chat.template.cue,
        notes=tuple(notes),
        chat=chat,
    )


def _found(chat: Chat, text: str) -> list[tuple[int, int]]:
    """Answers of a template without generation marks, `(start, end)` in characters."""
    answers: list[tuple[int, int]] = []
    for place, turn in enumerate(chat.turns):
        if turn["role"] != "assistant":
            continue
        holed = None if turn.get("tool_calls") else _Hole(chat, text, place)
        start, end = _start(chat, text, place, holed), _end(chat, text, place, holed)
        end = _call_end(chat, text, place, start) if end is None else end
        before = answers[-1][1] if answers else 0
        if not before <= start <= end <= len(text):
            raise Refused("unclear", f"where answer {place} stands in the chat template's text is not certain")
        answers.append((start, end))
    return answers


class _Hole:
    """What stands before and behind one turn's own words, rendered only when asked for."""

    def __init__(self, chat: Chat, text: str, place: int) -> None:
        self._chat, self._text, self._place = chat, text, place

    @cached_property
    def around(self) -> tuple[int, int]:
        """First character of the turn's words in the text, and the first behind them. Raises `Refused` if unclear."""
        parts = self._chat.hole(self._place).split(HOLE)
        fits = len(parts) == 2 and self._text.startswith(parts[0]) and self._text.endswith(parts[1])
        if not fits or len(parts[0]) + len(parts[1]) > len(self._text):
            raise Refused(
                "unclear",
                f"the chat template writes turn {self._place} differently for different words, so that what "
                "of its text is the answer is not certain",
            )
        return len(parts[0]), len(self._text) - len(parts[1])


def _start(chat: Chat, text: str, place: int, holed: _Hole | None) -> int:
    """The first character that the model is to write in this turn."""
    header = chat.template.header
    gap = header if header and not header.strip() else ""  # white space before every answer, which no cue shows
    if place:
        prompt = chat.prompt(place)
        if chat.template.cue and text.startswith(prompt):
            return len(prompt)
        if header is not None and text.startswith(prompt + header):
            return len(prompt + header) - len(gap)
    if holed is None:
        raise Refused("unclear", f"the chat template does not show where the tool calls of turn {place} start")
    start = holed.around[0]
    return start - len(gap) if text.endswith(gap, 0, start) else start


def _end(chat: Chat, text: str, place: int, holed: _Hole | None) -> int | None:
    """The character behind this answer's stop token; None for tool calls that other turns follow."""
    last, template = place == len(chat.turns) - 1, chat.template
    ending = template.final if holed else template.call
    if last and ending and text.endswith(ending.whole):
        return len(text) - len(ending.whole) + len(ending.stop)
    if holed is None:
        return None
    behind, stop = holed.around[1], template.final.stop if last else template.middle
    if not text.startswith(stop, behind):
        raise Refused(
            "unclear", f"answer {place} is not followed by {stop!r}, with which the chat template ends others"
        )
    return behind + len(stop)


def _call_end(chat: Chat, text: str, place: int, start: int) -> int:
    """The end of tool calls in an earlier turn: their last stop token before the next turn's own words."""
    stop = chat.template.call.stop if chat.template.call else ""
    following, hole, _ = chat.hole(place + 1).partition(HOLE) if place + 1 < len(chat.turns) else ("", "", "")
    found = text.rfind(stop, start, len(following)) if stop and hole and text.startswith(following) else -1
    if found < 0:
        raise Refused("unclear", f"the chat template does not show where the tool calls of turn {place} end")
    return found + len(stop)


def _marked(chat: Chat) -> list[tuple[int, int]]:
    """Answers where the template marks generation, ended behind their stop token."""
    answers: list[tuple[int, int]] = []
    text, stops = unmarked(chat.marked_text), chat.template.stops
    place: int = 0
    start: int | None = None
    for part in re.split(f"([{OPEN}{CLOSE}])", chat.marked_text):
        if part == OPEN and start is None:
            start = place
        elif part == CLOSE and start is not None:
            end = _stopped(text, start, place, stops)
            if answers and start <= answers[-1][1]:  # such as a stop token that is marked by itself
                start, end = answers[-1][0], max(end, answers.pop()[1])
            answers.append((start, end))
            start = None
        elif part in (OPEN, CLOSE):
            raise Refused("unclear", "the chat template's generation marks do not match")
        else:
            place += len(part)
    answers = [(begin, end) for begin, end in answers if end > begin]
    if start is not None or not answers:
        raise Refused("unclear", "the chat template marks generation, but marks none of this conversation")
    return answers


def _stopped(text: str, start: int, end: int, stops: Sequence[str]) -> int:
    """The end of a marked answer: without white space behind its stop token, with a stop token right behind it."""
    inside = text[start:end].rstrip()
    if any(inside.endswith(stop) for stop in stops):
        return start + len(inside)
    return end + max((len(stop) for stop in stops if text.startswith(stop, end)), default=0)


def _shown(chat: Chat, text: str, answers: Sequence[tuple[int, int]]) -> bool:
    """Whether an earlier answer is shortened. Raises `Refused` where another turn, or the last answer, is left out."""
    place, shortened = 0, False
    last = max(i for i, turn in enumerate(chat.turns) if turn["role"] == "assistant")
    said = "".join("".join(text[start:end] for start, end in answers).split())
    for i, turn in enumerate(chat.turns):
        words = turn["content"].strip()
        if turn["role"] != "assistant":
            forms = (words, json.dumps(words, ensure_ascii=False)[1:-1])
            origin = 0 if turn["role"] in SYSTEM else place
            found = max(text.find(form, origin) for form in forms)
            if found < 0:
                raise Refused("turn_dropped", f"the chat template leaves out turn {i} ({turn['role']}), or rewrites it")
            place = place if turn["role"] in SYSTEM else found
            continue
        thought = next((str(turn[key]) for key in ("reasoning_content", "thinking", "reasoning") if turn.get(key)), "")
        whole = "".join(words.split()) in said
        if not whole and i == last:
            raise Refused(
                "answer_dropped", "the chat template leaves out part of the last answer, such as its thinking"
            )
        shortened |= not whole or "".join(thought.split()) not in said
    return shortened
