"""The plan of a tuning: how many optimizer steps, which rows in each, the learning rate of each, where checkpoints lie.

All of it follows from the spec and the number of rows, before a model is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coretune.shapes import Float, Int64
from coretune.tuning.spec import Tuning


@dataclass(frozen=True)
class Plan:
    """Optimizer steps: `planned` by the epochs, of which `run` are made. Steps are counted from 1."""

    spec: Tuning
    rows: int
    planned: int
    run: int

    @classmethod
    def of(cls, spec: Tuning, rows: int, planned: int | None = None) -> Plan:
        """The plan for so many rows, of as many steps as the epochs make, or as are `planned`.

        Raises `ValueError` for checkpoints behind the last step.
        """
        if planned is None:
            planned = math.ceil(round(spec.epochs * math.ceil(rows / spec.batch_rows), 9))
        plan = cls(spec, rows, planned, min(planned, spec.stop_after or planned))
        late = [each for each in spec.checkpoints if isinstance(each, int) and each > plan.run]
        if late:
            raise ValueError(
                f"a checkpoint at step {late[0]} asked, but the tuning has {plan.run} steps ({rows} rows, "
                f"{spec.batch_rows} a step, {spec.epochs:g} epochs); give shares of the run, as 0.5, or fewer steps"
            )
        return plan

    @cached_property
    def rates(self) -> Float[np.ndarray, " run"]:
        """The learning rate of each step that is run."""
        return learning_rates(self.spec, self.planned)[: self.run]

    @cached_property
    def checkpoints(self) -> tuple[int, ...]:
        """The steps after which a checkpoint is kept, ascending; the last step is always one."""
        asked = {each if isinstance(each, int) else max(1, round(each * self.run)) for each in self.spec.checkpoints}
        return tuple(sorted({*asked, self.run}))

    def step_rows(self, step: int) -> Int64[np.ndarray, " b"]:
        """The rows of step `step` (from 1): every epoch goes through all rows in an order of its own."""
        steps_an_epoch = math.ceil(self.rows / self.spec.batch_rows)
        epoch, place = divmod(step - 1, steps_an_epoch)
        if epoch not in self._orders:
            self._orders.clear()
            self._orders[epoch] = np.random.default_rng([self.spec.seed, epoch]).permutation(self.rows)
        start = place * self.spec.batch_rows
        return self._orders[epoch][start : start + self.spec.batch_rows]

    @cached_property
    def _orders(self) -> dict[int, Int64[np.ndarray, " n"]]:
        """The order of the rows in the epoch that was asked last."""
        return {}


def learning_rates(spec: Tuning, planned: int) -> Float[np.ndarray, " planned"]:
    """The learning rate of each planned step: up in a line over `warmup` of them, then down as `schedule` says.

    Step k of a warm-up of w steps has k/w of the highest rate, so no step is spent at a rate of 0; the mean rates that
    TAGCOS and LESS publish with their checkpoints count in this way.
    """
    step = np.arange(1, planned + 1, dtype=np.float64)
    rising = math.ceil(round(spec.warmup * planned, 9))
    gone = np.clip((step - 1 - rising) / max(1, planned - rising), 0, 1)
    after = {"linear": 1 - gone, "cosine": (1 + np.cos(np.pi * gone)) / 2, "constant": np.ones(planned)}
    return spec.learning_rate * np.where(step <= rising, step / max(1, rising), after[spec.schedule])


def mean_rates(rates: Float[np.ndarray, " s"], checkpoints: Sequence[int]) -> Float[np.ndarray, " c"]:
    """The mean learning rate of the steps up to each checkpoint since the one before."""
    starts = (0, *checkpoints[:-1])
    return np.array([rates[start:end].mean() for start, end in zip(starts, checkpoints, strict=True)])
