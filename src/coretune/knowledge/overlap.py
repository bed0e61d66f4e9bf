"""Overlap of a passage with the sample that it may stand before: copies of the sample, and passages with its answer.

Both are counted in runs of words in a row, so case, punctuation and spacing make no difference. Characters of scripts
without spaces count as half a word: runs are twice as long where a text is mostly in such.
"""

from __future__ import annotations

from collections.abc import Sequence

from coretune.knowledge.words import units, unspaced

COPY_WORDS = 5  # of a run by which copies are known
ENOUGH_CHARACTERS = 20  # of an answer that is looked for although it has few words

Runs = frozenset[tuple[str, ...]]


class Sample:
    """What of a sample must not stand before it: its prompt and answer together, and its answer alone.

    `copy_share` is the share of runs of words above which a passage is a copy; `answer_words` the words in a row of the
    answer that a passage may not have. Shorter answers are looked for whole, from half as many words on, or from 20
    characters; those below (a name, a number, yes) are found in too many passages to mean anything.
    """

    def __init__(self, prompt: str, answer: str, *, copy_share: float, answer_words: int) -> None:
        self._said = [*units(prompt), *units(answer)]
        self._copy_share = copy_share
        self._copy_length = run_length(self._said, COPY_WORDS)
        self._runs = runs(self._said, self._copy_length)
        said = units(answer)
        self._length = run_length(said, answer_words)
        if len(said) < self._length:
            enough = 2 * len(said) >= self._length or len(answer.strip()) >= ENOUGH_CHARACTERS
            self._length = len(said) if enough else 0
        self._answer = runs(said, self._length)

    def is_copy(self, passage: Sequence[str]) -> bool:
        """Whether most runs of 5 words of the shorter one, sample or passage (in units), stand in the other."""
        length = min(self._copy_length, len(self._said), len(passage))
        mine = self._runs if length == self._copy_length else runs(self._said, length)
        theirs = runs(passage, length)
        return len(mine & theirs) > self._copy_share * min(len(mine), len(theirs))

    def answered_by(self, passage: Sequence[str]) -> bool:
        """Whether a passage (in units) holds so many words of the answer in a row."""
        return not self._answer.isdisjoint(runs(passage, self._length))


def run_length(said: Sequence[str], words: int) -> int:
    """How many units make a run of so many words."""
    return 2 * words if unspaced(said) else words


def runs(said: Sequence[str], length: int) -> Runs:
    """All different runs of so many units in a row; none of length 0."""
    return frozenset(zip(*(said[i:] for i in range(length)), strict=False)) if length else frozenset()
