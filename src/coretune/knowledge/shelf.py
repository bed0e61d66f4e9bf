"""A corpus taken off the shelf: what is found for an example's query, less what would give the example away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from coretune.errors import FolderError
from coretune.knowledge.indexes import Texts
from coretune.knowledge.overlap import Sample
from coretune.knowledge.searching import Search
from coretune.knowledge.words import units
from coretune.pool import Example

if TYPE_CHECKING:
    from coretune.knowledge.contexts import Retrieved

FIRST_DEPTH = 100  # passages looked at for an example before deeper lists are asked for
DEEPER = 4  # times as many then


class Picked(NamedTuple):
    """Passages for an example, and how many were left out on the way."""

    rows: list[int]
    copies: int
    answers: int


@dataclass(frozen=True)
class Shelf:
    """A corpus and its index, open, and what is to be left out."""

    texts: Texts
    search: Search
    spec: Retrieved

    @classmethod
    def open(cls, spec: Retrieved) -> Shelf:
        """Map passages and index. Raises `FolderError` where they are in the store no more."""
        try:
            return cls(Texts.open(spec.knowledge.path), spec.knowledge.search.open(), spec)
        except FileNotFoundError as error:
            raise FolderError(
                f"the knowledge asked, {spec.knowledge.digest}, lies in the store no more ({error.filename} is gone); "
                "run again to have it indexed"
            ) from error

    def sample(self, example: Example) -> Sample:
        """What must not stand before an example."""
        return Sample(
            example.prompt, example.answer, copy_share=self.spec.copy_share, answer_words=self.spec.answer_words
        )

    def retrieve(
        self, examples: Sequence[Example], queries: Sequence[str], barred: Sequence[str] | None = None
    ) -> list[Picked]:
        """For each example the best `k` passages for its query, but those left out, and one that is `barred`."""
        samples = [self.sample(example) for example in examples]
        picked = [Picked([], 0, 0)] * len(examples)
        unfinished, depth = list(range(len(examples))), max(FIRST_DEPTH, self.spec.k)
        while unfinished:
            rows = self.search.search([queries[i] for i in unfinished], min(depth, len(self.texts))).rows
            asked_again = []
            for i, found in zip(unfinished, rows, strict=True):
                picked[i] = self._pick(found[found >= 0], samples[i], barred[i] if barred else "")
                if len(picked[i].rows) < self.spec.k and depth < len(self.texts) and (found >= 0).all():
                    asked_again.append(i)
            unfinished, depth = asked_again, depth * DEEPER
        return picked

    def _pick(self, found: np.ndarray, sample: Sample, barred: str) -> Picked:
        left_out, given = Counts(self, sample), {barred}
        rows: list[int] = []
        for row in found.tolist():
            if len(rows) == self.spec.k:
                break
            text = self.texts[row]
            if text not in given and left_out.passes(row):
                given.add(text)
                rows.append(row)
        return Picked(rows, left_out.copies, left_out.answers)


class Counts:
    """Tells which passages may stand before a sample, and counts those that may not."""

    def __init__(self, shelf: Shelf, sample: Sample) -> None:
        self._shelf, self._sample = shelf, sample
        self.copies = self.answers = 0

    def passes(self, row: int) -> bool:
        """Whether a passage is neither a copy of the sample nor holds its answer."""
        said = units(self._shelf.texts[row])
        copy = self._sample.is_copy(said)
        answer = not copy and self._sample.answered_by(said)
        self.copies += copy
        self.answers += answer
        return not (copy or answer)


def asked(example: Example) -> str:
    """What a passage is looked for by: the user's turns before the last answer, or all turns before it without any."""
    turns = [i for i, message in enumerate(example.messages) if message.role == "assistant"]
    before = example.messages[: turns[-1]] if turns else example.messages
    said = [message.content for message in before if message.role == "user" and message.content.strip()]
    return "\n\n".join(said) or example.prompt


def drawn(example: Example, seed: int, count: int) -> Iterator[int]:
    """All numbers below `count` in a random order of the example's own, without a list of them."""
    rng = np.random.default_rng([seed, int.from_bytes(example.key)])
    seen: set[int] = set()
    while len(seen) < count:
        row = int(rng.integers(count))
        if row not in seen:
            seen.add(row)
            yield row
