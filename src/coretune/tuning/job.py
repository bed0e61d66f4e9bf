"""A training as data: what is to be learned, in which steps, and the tensors of each micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coretune.errors import need
from coretune.models import best_device
from coretune.orders import Chooser, Order
from coretune.shapes import Float32, Int64
from coretune.tuning.choosing import online_plan
from coretune.tuning.schedule import Plan
from coretune.tuning.spec import Tuning
from coretune.tuning.tokens import MicroBatch, Tokens, coefficients, micro_batches, widths

EachStep = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Job:
    """What is to be trained: a resolved spec, the plan over `learned` (rows with answer tokens), tokens and weights.

    `work` is a folder of its own, in which the training goes on after a kill. With a `chooser` the plan says only how
    many steps there are at most, and the rows of each are chosen when it is there.
    """

    spec: Tuning
    plan: Plan
    learned: np.ndarray
    tokens: Tokens
    weights: Float32[np.ndarray, " k"]
    work: Path
    device: str
    chooser: Chooser | None = None

    @classmethod
    def of(
        cls, spec: Tuning, tokens: Tokens, weights: Float32[np.ndarray, " k"], work: Path, order: Order | None = None
    ) -> Job:
        """A job on the best device. Raises `ValueError` for checkpoints behind the last step, and for an odd order."""
        learned = np.flatnonzero(tokens.answer_lengths)
        if order is None:
            return cls(spec, Plan.of(spec, len(learned)), learned, tokens, weights, work, best_device())
        chooser = order.start(tokens.answer_lengths > 0, batch_rows=spec.batch_rows, seed=spec.seed)
        plan = online_plan(spec, len(learned), chooser)
        return cls(spec, plan, learned, tokens, weights, work, best_device(), chooser)

    def batch(self, step: int) -> tuple[np.ndarray, dict[int, float]]:
        """The rows of a step, and what each row's mean loss counts in the step's loss."""
        rows = self.learned[self.plan.step_rows(step)] if self.chooser is None else self.chooser.rows(step)
        return rows, self.shares(rows)

    def shares(self, rows: Int64[np.ndarray, " b"]) -> dict[int, float]:
        """What each row's mean loss counts in the loss of a step with these rows."""
        return coefficients(self.tokens, rows, self.weights, self.spec.average)

    def ended(self, step: int) -> bool:
        """Whether a step, which was made, is the last one."""
        return step == self.plan.run or (self.chooser is not None and self.chooser.over)


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
