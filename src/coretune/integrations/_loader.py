"""The batches of a training that follows an order: asked for one optimizer step at a time, never ahead of it.

A DataLoader that accelerate has prepared fetches the next batch before it hands out the one at hand, so an ordinary
sampler would be asked for rows of the next step while the last losses are still missing. A plain DataLoader without
workers fetches nothing ahead. Each batch carries where in its step its rows stand, so losses cannot be taken for those
of other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from coretune.errors import CoretuneError, need
from coretune.shapes import Int64

PLACES = "coretune_places"  # in a batch: the place of each of its rows in the step; negative in a batch without rows
NOTHING = -100  # labels of tokens that are not learned
Place = tuple[int, int]  # where in its step a row stands, and the row


class Asked(Protocol):
    """Gives the rows of the step that comes next, None where the training is over."""

    def next_rows(self) -> Int64[np.ndarray, " b"] | None: ...
    def skipped(self) -> int: ...


def ordered_loader(ordinary: Any, asked: Asked, *, parts: int, process: int, processes: int, length: int) -> Any:
    """The DataLoader of a training that follows an order.

    `ordinary` is the one that the Trainer would use, whose dataset and collator are kept; a step has `parts` batches on
    each of the `processes`, a pass `length` batches.
    """
    return need("torch", "models").utils.data.DataLoader(
        Numbered(ordinary.dataset),
        batch_sampler=Batches(asked, parts=parts, process=process, processes=processes, length=length),
        collate_fn=Collated(ordinary.collate_fn),
        pin_memory=ordinary.pin_memory,
        num_workers=0,
    )


class Batches:
    """The batches of one process, without end: the rows of each step dealt into its parts, in order."""

    def __init__(self, asked: Asked, *, parts: int, process: int, processes: int, length: int) -> None:
        self.asked, self.length = asked, length
        self.parts, self.process, self.processes = parts, process, processes

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[Place]]:
        """First an empty batch for each that the Trainer skips because it was trained before a kill."""
        for _ in range(self.asked.skipped()):
            yield []
        while (rows := self.asked.next_rows()) is not None:
            yield from dealt(rows, self.parts, self.process, self.processes)


def dealt(rows: Int64[np.ndarray, " b"], parts: int, process: int, processes: int) -> Iterator[list[Place]]:
    """The batches of a step for one process: of equal sizes, or one row more in the first ones.

    The Trainer takes as many batches in every step. Where a step has fewer rows than batches, the others are its first
    row at place -1, whose labels `Collated` blanks: it adds nothing to loss and gradient.
    """
    for part in range(parts):
        places = np.array_split(np.arange(len(rows)), parts * processes)[part * processes + process]
        yield [(int(place), int(rows[place])) for place in places] or [(-1, int(rows[0]))]


class Numbered:
    """A dataset whose examples are asked for, and come, with their places in the step."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, asked: Sequence[Place]) -> list[tuple[int, Any]]:
        """The examples of a batch. Raises `CoretuneError` for a batch that should have been skipped."""
        if not asked:
            raise CoretuneError("the Trainer goes on from a checkpoint at another batch than was trained last")
        rows = [row for _, row in asked]
        many = getattr(self.dataset, "__getitems__", None)
        examples = many(rows) if many is not None else [self.dataset[row] for row in rows]
        return [(place, example) for (place, _), example in zip(asked, examples, strict=True)]


class Collated:
    """The Trainer's collator, and the places of the rows in its batch."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, numbered: Sequence[tuple[int, Any]]) -> Any:
        """A batch. Raises `CoretuneError` where it has no labels, or not a row for each example."""
        batch = self.collate([example for _, example in numbered])
        labels = batch.get("labels") if hasattr(batch, "get") else None
        if labels is None:
            raise CoretuneError(
                "a batch has no labels, so its losses are unknown; use a collator that gives input_ids and labels"
            )
        if labels.ndim != 2 or len(labels) != len(numbered):
            raise CoretuneError(
                f"the collator made labels of shape {tuple(labels.shape)} out of {len(numbered)} examples; an order "
                "needs a row for each: no packing, no padding-free batches"
            )
        places = [place for place, _ in numbered]
        if min(places) < 0:
            batch["labels"] = need("torch", "models").full_like(labels, NOTHING)
        batch[PLACES] = need("torch", "models").tensor(places)
        return batch
