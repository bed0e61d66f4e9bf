"""A training as data: what is to be learned, in which steps, and the tensors of each micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coretune.errors import need
from coretune.models import best_device
from coretune.shapes import Float32
from coretune.tuning.schedule import Plan
from coretune.tuning.spec import Tuning
from coretune.tuning.tokens import MicroBatch, Tokens, coefficients, micro_batches, widths

EachStep = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Job:
    """What is to be trained: a resolved spec, the plan over `learned` (rows with answer tokens), tokens and weights.

    `work` is a folder of its own, in which the training goes on after a kill.
    """

    spec: Tuning
    plan: Plan
    learned: np.ndarray
    tokens: Tokens
    weights: Float32[np.ndarray, " k"]
    work: Path
    device: str

    @classmethod
    def of(cls, spec: Tuning, tokens: Tokens, weights: Float32[np.ndarray, " k"], work: Path) -> Job:
        """A job on the best device. Raises `ValueError` for checkpoints behind the last step."""
        learned = np.flatnonzero(tokens.answer_lengths)
        return cls(spec, Plan.of(spec, len(learned)), learned, tokens, weights, work, best_device())

    def batch(self, step: int) -> tuple[np.ndarray, dict[int, float]]:
        """The rows of a step, and what each row's mean loss counts in the step's loss."""
        rows = self.learned[self.plan.step_rows(step)]
        return rows, coefficients(self.tokens, rows, self.weights, self.spec.average)


def parts(job: Job, rows: np.ndarray, part: int, of: int) -> Iterator[MicroBatch]:
    """The micro-batches that one of several processes computes of a step; one without rows gets a dummy."""
    longest_first = rows[np.argsort(-job.tokens.lengths[rows], kind="stable")]
    mine = longest_first[part::of]
    if len(mine):
        yield from micro_batches(job.tokens, mine, job.spec.batch_tokens or 1)
    else:
        nothing = np.empty(0, dtype=np.int64)
        width = int(widths(int(job.tokens.lengths.max()))[0])
        yield MicroBatch(nothing, np.full((1, width), job.tokens.pad, dtype=np.int64), nothing, nothing, nothing)


def tensors(batch: MicroBatch, shares: dict[int, float]) -> dict[str, Any]:
    """A batch as tensors, its answer tokens filled up with some that count nothing to one of few numbers of them."""
    count = len(batch.places)
    known = widths(batch.ids.size)
    room = int(known[np.searchsorted(known, count)])
    places, labels, factors = np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(room, np.float32)
    places[:count], labels[:count] = batch.places, batch.labels
    each = np.array([shares[row] for row in batch.rows.tolist()]) / np.bincount(batch.owner, None, len(batch.rows))
    factors[:count] = each[batch.owner]
    arrays = {"ids": batch.ids, "places": places, "labels": labels, "shares": factors}
    torch = need("torch", "models")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
