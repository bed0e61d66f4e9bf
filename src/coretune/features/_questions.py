"""Questions on a record, as a language model reads them: the record's words in their places, and what stands around.

A question is text with places in braces. `{prompt}` is all turns before the last answer (each with its role, where
there are several), `{answer}` the last answer, `{text}` the words of all turns. `{fence}` is a line of number signs,
longer than any in the record, so that nothing in the record can look like its end. A record's words are data: where
they spell a special token of the model, a space is put into it. A record too long for the window is cut, never the
question; every place keeps its beginning, and the longest loses first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from coretune.chat_template import CLOSE, HOLE, OPEN, draw, template_of
from coretune.errors import ModelError, nearest
from coretune.features._encoders import around
from coretune.features._texts import TEXTS
from coretune.pool import Example, Message

WORDS = ("prompt", "answer", "text")
_PLACE = re.compile(r"\{(fence|prompt|answer|text)\}")
_ANY = re.compile(r"\{([a-z_]+)\}")
_CALLS = ("tool_calls", "function_call")


@dataclass(frozen=True)
class Asked:
    """A question on one record in tokens; `cut`: some of the record did not fit. `broken`: it held special tokens."""

    ids: list[int]
    cut: bool
    broken: bool


@dataclass(frozen=True)
class Asker:
    """How questions are put to one model: as a turn of its chat with the cue for an answer, or as plain text.

    `head` and `tail` are text around a question, `first` and `last` tokens around that. Threads may share it.
    """

    tokenizer: Any
    head: str
    tail: str
    first: tuple[int, ...]
    last: tuple[int, ...]
    decodes: bool
    """Whether answers are written by a decoder of their own (T5), not after the question."""

    def ask(self, question: str, examples: Sequence[Example], longest: int) -> list[Asked | None]:
        """A question on every example in at most `longest` tokens; None where the record says nothing.

        Raises `ModelError` where the question leaves no room for a record.
        """
        parts = _PLACE.split(question)
        asked: list[Asked | None] = [None] * len(examples)
        said = {row: _said(parts, example) for row, example in enumerate(examples)}
        safe = {row: [self._safe(each) for each in words] for row, words in said.items() if any(words)}
        written = {row: _written(parts, words, fence_of(words)) for row, words in safe.items()}
        found = self._encode([self.head + "".join(written[row]) + self.tail for row in written])
        for (row, pieces), encoding in zip(written.items(), found, strict=True):
            ids, cut = encoding.ids, False
            while len(ids) > longest - len(self.first) - len(self.last):
                over, cut = len(ids) - (longest - len(self.first) - len(self.last)), True
                pieces = self._shorter(parts, pieces, encoding, over, longest)
                encoding = self._encode([self.head + "".join(pieces) + self.tail])[0]
                ids = encoding.ids
            asked[row] = Asked([*self.first, *ids, *self.last], cut, safe[row] != said[row])
        return asked

    def follows(self, question: str, answer: str) -> int | None:
        """The token that an answer in this spelling is, where it is asked for; None where it is not just one."""
        bare = "" if self.decodes else self._bare(question)
        before, after = (each.ids for each in self._encode([bare, bare + answer]))
        if after[:-1] != before or after[-1:] in ([], [self.tokenizer.unk_token_id]):
            return None
        return int(after[-1])

    def _bare(self, question: str) -> str:
        """The question as it is put, on a record without words."""
        parts = _PLACE.split(question)
        return self.head + "".join(_written(parts, [""] * (len(parts) // 2), fence_of([]))) + self.tail

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        backend = self.tokenizer.backend_tokenizer
        return list(backend.encode_batch(list(texts), add_special_tokens=False))

    def _safe(self, words: str) -> str:
        """Words in which no special token is spelled."""
        return self._specials.sub(lambda found: f"{found[0][0]} {found[0][1:]}", words) if self._specials else words

    @cached_property
    def _specials(self) -> re.Pattern[str] | None:
        added = self.tokenizer.added_tokens_decoder.values()
        known = {token.content for token in added if token.special} | set(self.tokenizer.all_special_tokens)
        known = {token for token in known if len(token.strip()) > 1}
        return re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True)))) if known else None

    def _shorter(self, parts: Sequence[str], pieces: list[str], encoding: Any, over: int, longest: int) -> list[str]:
        """The pieces of a question with its record shorter by `over` tokens, or by a few more than that."""
        starts, held = [], {}
        begins = [begin for begin, _ in encoding.offsets]
        place = len(self.head)
        for number, piece in enumerate(pieces):
            starts.append(place)
            if number % 2 and parts[number] in WORDS:
                held[number] = [begin - place for begin in begins if place <= begin < place + len(piece)]
            place += len(piece)
        room = sum(map(len, held.values())) - over
        if room < 1:
            raise ModelError(
                f"the question takes {len(begins) - room - over} tokens of {longest}, so none are left for a "
                "record; ask a shorter one, or a model with a longer window (max_tokens)"
            )
        level = _level([len(each) for each in held.values()], room)
        shorter = list(pieces)
        for number, tokens in held.items():
            if len(tokens) > level:
                shorter[number] = pieces[number][: min(tokens[level], len(pieces[number]) - 1)]
        return shorter


def asker(tokenizer: Any, cue: str, *, decodes: bool) -> Asker:
    """How questions are put with a tokenizer: by its chat template, where it has one and the model is causal.

    `cue` follows the question in plain text for causal models. Raises `ModelError` where the template shows no prompt.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    if decodes or tokenizer.chat_template is None:
        first, last = around(tokenizer)
        return Asker(tokenizer, "", "" if decodes else cue, (*first,), (*last,) if decodes else (), decodes)
    template = template_of(tokenizer)
    shown = draw(tokenizer, template.text, [{"role": "user", "content": HOLE}], prompt=True)
    head, found, tail = shown.replace(OPEN, "").replace(CLOSE, "").partition(HOLE)
    if not found or (not template.cue and template.header is None):
        raise ModelError(
            "the chat template does not show a prompt and where its answer begins; give another (template)"
        )
    return Asker(tokenizer, head, tail if template.cue else f"{tail}{template.header}", (), (), decodes)


def refuse_questions(questions: Sequence[str]) -> None:
    """Raise `ValueError` for questions that do not show a record, or have places that are not known."""
    if not questions:
        raise ValueError("no question was given to ask of a record")
    for question in questions:
        for name in _ANY.findall(question):
            if name not in (*WORDS, "fence"):
                known = ", ".join(f"{{{each}}}" for each in (*WORDS, "fence"))
                raise ValueError(
                    f"a question has the place {{{name}}}; known are {known}{nearest(name, (*WORDS, 'fence')) or ''}"
                )
        if not set(_ANY.findall(question)) & set(WORDS):
            raise ValueError(
                f"the question {question[:60]!r} shows nothing of a record: write {{prompt}} and {{answer}}"
            )


def fence_of(words: Sequence[str]) -> str:
    """Three number signs, or one more than any run of them in these words."""
    runs = [len(run) for each in words for run in re.findall("#+", each)]
    return "#" * max(3, 1 + max(runs, default=0))


def _said(parts: Sequence[str], example: Example) -> list[str]:
    """What a record says in each place of a question; nothing at fences."""
    return ["" if name == "fence" else READ[name](example) for name in parts[1::2]]


def _written(parts: Sequence[str], words: Sequence[str], fence: str) -> list[str]:
    """A question in pieces: what it says itself, then a place, in turns."""
    pieces = list(parts)
    pieces[1::2] = [fence if name == "fence" else said for name, said in zip(parts[1::2], words, strict=True)]
    return pieces


def _prompt(example: Example) -> str:
    """All turns before the last answer, with their roles where there are several; the tools, where there are any."""
    turns = example.messages[: _answer_at(example)]
    tools = [f"Tools: {example.tools}"] if example.tools else []
    if len(turns) == 1:
        return "\n\n".join([*tools, _words(turns[0])])
    return "\n\n".join([*tools, *(f"{turn.role.capitalize()}: {_words(turn)}" for turn in turns)])


def _answer(example: Example) -> str:
    return "".join(_words(turn) for turn in example.messages[_answer_at(example) :][:1])


def _answer_at(example: Example) -> int:
    """Where the last answer stands; the number of turns where there is none."""
    answers = [place for place, turn in enumerate(example.messages) if turn.role == "assistant"]
    return answers[-1] if answers else len(example.messages)


def _words(turn: Message) -> str:
    """What a turn says: its text, and its calls of tools as JSON."""
    extra = json.loads(turn.extra) if turn.extra else {}
    calls = [json.dumps(extra[key], ensure_ascii=False) for key in _CALLS if extra.get(key)]
    return "\n".join([turn.content, *calls] if turn.content else calls)


READ = {"prompt": _prompt, "answer": _answer, "text": TEXTS["conversation"]}


def _level(lengths: Sequence[int], room: int) -> int:
    """The most that every place may keep so that together they keep at most `room`."""
    left, level = room, 0
    for done, length in enumerate(sorted(lengths)):
        level = left // (len(lengths) - done)
        if length > level:
            break
        left -= length
    return level
