"""Passages to put before an example: those that its prompt retrieves, and two controls for them.

Left out before anything is handed out, replaced by the next best, and counted: near-copies of the example, and passages
that hold its answer. Without that any example looks as if the knowledge agreed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from coretune.features import Contexts
from coretune.knowledge.indexes import KnowledgeAt
from coretune.knowledge.shelf import Counts, Picked, Shelf, asked, drawn
from coretune.pool import Example

Find = Callable[[Sequence[Example]], Contexts]


@dataclass(frozen=True)
class Retrieved:
    """The passages that an example's prompt, all user turns before its last answer, finds; the best first.

    No passage is given twice. Numbers: `passages` handed out, `copies_excluded`, `answers_excluded`. Marks:
    `copy_excluded`, `answer_excluded`, `few_passages` (fewer than `k`, for no more have a word of the prompt).
    """

    version: ClassVar[int] = 1

    knowledge: KnowledgeAt
    """The corpus and its index, as `indexed` gives them."""
    k: int = 3
    """Passages an example gets."""
    copy_share: float = 0.5
    """A passage that shares more than this of the runs of five words, its own or the example's, is a copy."""
    answer_words: int = 8
    """A passage with so many words of the answer in a row holds the answer."""

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if self.k < 1 or self.answer_words < 1 or not 0 <= self.copy_share <= 1:
            raise ValueError(
                f"{self.k} passages, copies above a share of {self.copy_share}, answers of {self.answer_words} words: "
                "give 1 or more passages and words, and a share from 0 to 1"
            )

    def resolved(self) -> Self:
        """Nothing is open: indexing has settled everything."""
        return self

    def load(self) -> Find:
        """Open corpus and index, and load the encoder of a dense one."""
        shelf = Shelf.open(self)

        def find(examples: Sequence[Example]) -> Contexts:
            picked = shelf.retrieve(examples, [asked(example) for example in examples])
            texts = [[shelf.texts[row] for row in each.rows] for each in picked]
            return contexts(texts, picked, self.k)

        return find


@dataclass(frozen=True)
class RandomContext:
    """Random passages in place of retrieved ones: what any text of this kind and length does to an example.

    As many texts as are retrieved, each as long in characters as the one in its place: a random passage, with others
    after it where it is shorter, cut where the length is reached. None of them is retrieved, a copy, or has the answer.
    Drawn by `seed` and the example's content. Besides the marks of `Retrieved`: `shorter`, where the corpus ran out.
    """

    version: ClassVar[int] = 1

    retrieved: Retrieved
    """What is controlled for."""
    seed: int = 0
    """Of the draw."""

    def resolved(self) -> Self:
        """Nothing is open."""
        return self

    def load(self) -> Find:
        """Open corpus and index."""
        shelf = Shelf.open(self.retrieved)

        def find(examples: Sequence[Example]) -> Contexts:
            picked = shelf.retrieve(examples, [asked(example) for example in examples])
            drawn = [self._draw(shelf, example, each) for example, each in zip(examples, picked, strict=True)]
            found = contexts([texts for texts, _ in drawn], [counts for _, counts in drawn], self.retrieved.k)
            shorter = [
                sum(map(len, texts)) < sum(len(shelf.texts[row]) for row in each.rows)
                for (texts, _), each in zip(drawn, picked, strict=True)
            ]
            return Contexts(found.passages, {**found.marks, "shorter": np.array(shorter, dtype=bool)}, found.numbers)

        return find

    def _draw(self, shelf: Shelf, example: Example, retrieved: Picked) -> tuple[list[str], Picked]:
        """Texts as long as the retrieved ones, and what was left out while drawing them."""
        left_out = Counts(shelf, shelf.sample(example))
        order = (row for row in drawn(example, self.seed, len(shelf.texts)) if row not in retrieved.rows)
        rows, texts = [], []
        for place in retrieved.rows:
            text, length = "", len(shelf.texts[place])
            while len(text) < length:
                row = next((row for row in order if left_out.passes(row)), None)
                if row is None:
                    break
                rows.append(row)
                text += ("\n\n" if text else "") + shelf.texts[row]
            if text:
                texts.append(text[:length])
        return texts, Picked(rows, left_out.copies, left_out.answers)


@dataclass(frozen=True)
class SwappedContext:
    """What a random passage of the corpus, taken as the question, retrieves: good answers to the wrong question.

    The passage is drawn by `seed` and the example's content; it is neither a copy of the example nor has its answer,
    and it is not retrieved itself. Marks and numbers are those of `Retrieved`.
    """

    version: ClassVar[int] = 1

    retrieved: Retrieved
    """What is controlled for."""
    seed: int = 0
    """Of the draw."""

    def resolved(self) -> Self:
        """Nothing is open."""
        return self

    def load(self) -> Find:
        """Open corpus and index, and load the encoder of a dense one."""
        shelf = Shelf.open(self.retrieved)

        def find(examples: Sequence[Example]) -> Contexts:
            wrong = [self._question(shelf, example) for example in examples]
            queries = ["" if row is None else shelf.texts[row] for row in wrong]
            picked = shelf.retrieve(examples, queries, queries)
            return contexts([[shelf.texts[row] for row in each.rows] for each in picked], picked, self.retrieved.k)

        return find

    def _question(self, shelf: Shelf, example: Example) -> int | None:
        """A random passage that does not give the example away; None where every one does."""
        left_out = Counts(shelf, shelf.sample(example))
        return next((row for row in drawn(example, self.seed, len(shelf.texts)) if left_out.passes(row)), None)


def contexts(texts: Sequence[Sequence[str]], picked: Sequence[Picked], k: int) -> Contexts:
    """Texts for some examples, with marks and numbers."""
    numbers = {
        "passages": [len(each) for each in texts],
        "copies_excluded": [each.copies for each in picked],
        "answers_excluded": [each.answers for each in picked],
    }
    counts = {name: np.array(each, dtype=np.float32) for name, each in numbers.items()}
    marks = {
        "copy_excluded": counts["copies_excluded"] > 0,
        "answer_excluded": counts["answers_excluded"] > 0,
        "few_passages": counts["passages"] < k,
    }
    return Contexts(texts, marks, counts)
