"""Anchors behind a demonstration, in tokens: those that all anchors share, and those of each anchor that follow.

A demonstration is an example's conversation up to its last answer, as earlier turns of the anchor's own. The system
turn is the anchor's; the demonstration's own stands at the head of its first user turn, after which an empty line is
put. What follows the demonstration is the same for every demonstration of a template that ends its answers with a stop
token, so it is tokenized once; that this holds is checked for each demonstration on one anchor, and where it does not
all anchors are tokenized behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coretune.chat_template import Refused
from coretune.errors import ModelError
from coretune.pool import Example, Message
from coretune.shapes import Bool, Int64

SYSTEM = ("system", "developer")
PROBES = (("Name a colour.", "Blue."), ("What are 6 and 7?", "They make 13."))  # nothing in them is alike
LEAST = 16  # tokens of a demonstration that must find room before the longest anchor


@dataclass(frozen=True)
class Behind:
    """Some anchors behind one demonstration: `prefix` tokens, then `suffixes` with the masks of the answers.

    `anchors` are their places among all; `cut` says whether the demonstration lost its beginning.
    """

    anchors: Sequence[int]
    prefix: list[int]
    suffixes: list[list[int]]
    masks: list[Bool[np.ndarray, " s"]]
    cut: bool


@dataclass(frozen=True)
class Group:
    """Anchors with one system turn and one set of tools; `head` is how many tokens every demonstration begins with."""

    anchors: Sequence[int]
    suffixes: list[list[int]]
    masks: list[Bool[np.ndarray, " s"]]
    head: int


class Demonstrations:
    """Places anchors behind demonstrations, within `longest` tokens.

    Raises `ModelError` for an anchor that the chat template refuses, or one that leaves a demonstration no room.
    """

    def __init__(self, tokenizer: Any, anchors: Sequence[Example], longest: int) -> None:
        self.tokenizer, self.anchors = tokenizer, anchors
        known: dict[Any, list[int]] = {}
        for number, anchor in enumerate(anchors):
            known.setdefault((_system(anchor.messages), anchor.tools), []).append(number)
        self.groups = [self._group(members) for members in known.values()]
        needed = {
            number: len(ids) for group in self.groups for number, ids in zip(group.anchors, group.suffixes, strict=True)
        }
        most = max(needed, key=lambda number: needed[number])
        self.room = longest - needed[most]
        if self.room < max(group.head for group in self.groups) + LEAST:
            raise ModelError(
                f"anchor {most} takes {needed[most]} of {longest} tokens, which leaves a demonstration no room; "
                "give shorter anchors, or a larger max_tokens"
            )

    def before(self, example: Example) -> Iterator[Behind]:
        """All anchors behind an example, in groups that share their beginning. Raises `Refused`."""
        shown = _shown(example)
        for group in self.groups:
            ids, mask, end = self._encoded(shown, group.anchors[0], group.masks[0])
            suffixes, masks, prefix = group.suffixes, group.masks, ids[:end]
            if ids[end:] != suffixes[0] or not np.array_equal(mask[end:], masks[0]):
                prefix, suffixes, masks = self._one_by_one(shown, group)
            cut = len(prefix) > self.room
            if cut:
                prefix = prefix[: group.head] + prefix[len(prefix) - self.room + group.head :]
            yield Behind(group.anchors, prefix, suffixes, masks, cut)

    def _group(self, members: Sequence[int]) -> Group:
        suffixes, masks, head = [], [], 0
        for number in members:
            try:
                one, other = (self._encoded(_talk(*probe), number, None) for probe in PROBES)
            except Refused as error:
                raise ModelError(f"anchor {number} cannot stand behind a demonstration: {error}") from error
            (ids, mask, end), head = one, _common([one[0][: one[2]], other[0][: other[2]]])
            suffixes.append(ids[end:])
            masks.append(mask[end:])
        return Group(members, suffixes, masks, head)

    def _encoded(
        self, shown: Sequence[Message], number: int, known: Bool[np.ndarray, " s"] | None
    ) -> tuple[list[int], Bool[np.ndarray, " t"], int]:
        """Tokens of an anchor behind a demonstration, their mask, and where the demonstration's last answer ends.

        `known` is the mask of what follows that end: as many stretches of answers are the anchor's. Without it the
        demonstration has one.
        """
        from coretune.chat import encode

        anchor = self.anchors[number]
        one = encode(self.tokenizer, behind(shown, anchor), tools=anchor.tools)
        ends = _ends(one.answer_mask)
        own = len(ends) - 1 if known is None else len(_ends(known))
        if len(ends) <= own or own == 0:
            raise Refused("unclear", "where the demonstration ends in the chat template's text is not certain")
        return one.ids.tolist(), one.answer_mask, int(ends[-own - 1])

    def _one_by_one(
        self, shown: Sequence[Message], group: Group
    ) -> tuple[list[int], list[list[int]], list[Bool[np.ndarray, " s"]]]:
        """Prefix, suffixes and masks where a demonstration changes the tokens that follow it."""
        all_ids, all_masks, ends = [], [], []
        for number, known in zip(group.anchors, group.masks, strict=True):
            ids, mask, end = self._encoded(shown, number, known)
            all_ids.append(ids)
            all_masks.append(mask)
            ends.append(end)
        shared = min(_common(all_ids), *ends)
        cleared = [np.where(np.arange(len(mask)) < end, False, mask) for mask, end in zip(all_masks, ends, strict=True)]
        return all_ids[0][:shared], [ids[shared:] for ids in all_ids], [mask[shared:] for mask in cleared]


def behind(shown: Sequence[Message], anchor: Example) -> list[Message]:
    """The conversation in which a demonstration's turns stand before an anchor's."""
    system = _system(anchor.messages)
    return [*system, *shown, *anchor.messages[len(system) :]]


def _shown(example: Example) -> list[Message]:
    """The turns of a demonstration. Raises `Refused` where there is no answer in it."""
    from coretune.turns import is_answer

    answers = [place for place, turn in enumerate(example.messages) if is_answer(turn)]
    if not answers:
        raise Refused("no_answer", "no turn of the assistant says anything, so there is nothing to demonstrate")
    system = _system(example.messages)
    turns = list(example.messages[len(system) : answers[-1] + 1])
    if system and turns[0].role == "user":
        said = "\n\n".join(turn.content for turn in system)
        turns[0] = replace(turns[0], content=f"{said}\n\n{turns[0].content}")
    elif system:
        raise Refused("turn_dropped", "no user turn follows the demonstration's system turn to hold its text")
    return turns


def _system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The system turns at the beginning."""
    count = next((place for place, turn in enumerate(messages) if turn.role not in SYSTEM), len(messages))
    return tuple(messages[:count])


def _talk(asked: str, answer: str) -> list[Message]:
    return [Message("user", asked), Message("assistant", answer)]


def _ends(mask: Bool[np.ndarray, " t"]) -> Int64[np.ndarray, " r"]:
    """Where each stretch of answer tokens ends."""
    return np.flatnonzero(mask & ~np.append(mask[1:], False)) + 1


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens all rows share."""
    together = zip(*rows, strict=False)
    return next((place for place, tokens in enumerate(together) if len(set(tokens)) > 1), min(map(len, rows)))
