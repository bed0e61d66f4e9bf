"""The rows with the highest loss when they were last seen, and some at random: the plainest order by loss.

Rows that were never seen come first, in random order, so that one pass measures them all; after that a stored loss is
as old as the row's last visit. The share at random keeps rows in reach whose loss was low once. Hard, noisy and wrong
rows all have high losses: nothing here tells them apart. Source: online batch selection, Loshchilov and Hutter (2016),
arXiv 1511.06343, in its simplest form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from coretune.orders import Gradient
from coretune.shapes import Bool, Float, Int64


@dataclass(frozen=True)
class HighestLoss:
    """Options of the order: the learning rate is left to the training's own schedule."""

    version: ClassVar[int] = 1

    steps: int
    """Optimizer steps in all."""
    at_random: float = 0.1
    """The part of a step's rows that are drawn at random, rounded to whole rows."""

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if self.steps < 1 or not 0 <= self.at_random <= 1:
            raise ValueError(
                f"{self.steps} steps, {self.at_random} of their rows at random, asked; give 1 or more, 0-1"
            )

    def start(self, learned: Bool[np.ndarray, " n"], *, batch_rows: int, seed: int) -> HighestLossChooser:
        """A chooser before the first step. Raises `ValueError` where no row can be learned."""
        if batch_rows < 1 or not np.any(learned):
            raise ValueError(f"steps of {batch_rows} rows of {int(np.sum(learned))} asked; give 1 or more")
        return HighestLossChooser(self, np.flatnonzero(learned), len(learned), batch_rows, seed)


class HighestLossChooser:
    """`last` `(n,)` holds each row's loss when it was last seen; infinity for one that never was."""

    wants_gradient = False
    keep = False

    def __init__(self, order: HighestLoss, rows: Int64[np.ndarray, " m"], n: int, batch_rows: int, seed: int) -> None:
        self.order, self.learned, self.batch_rows, self.seed = order, rows, min(batch_rows, len(rows)), seed
        self.last: Float[np.ndarray, " n"] = np.full(n, np.inf)
        self.step = 0

    @property
    def most_steps(self) -> int:
        """As many as were asked."""
        return self.order.steps

    @property
    def over(self) -> bool:
        """Whether they are made."""
        return self.step >= self.order.steps

    def rows(self, step: int) -> Int64[np.ndarray, " b"]:
        """The highest last losses, ties at random, then rows at random among the others."""
        if step != self.step + 1 or self.over:
            raise ValueError(f"rows of step {step} asked; {'none' if self.over else self.step + 1} is the next one")
        shuffled = np.random.default_rng([self.seed, step]).permutation(self.learned)
        drawn = round(self.order.at_random * self.batch_rows)
        highest = np.argsort(-self.last[shuffled], kind="stable")[: self.batch_rows - drawn]
        others = np.delete(shuffled, highest)[:drawn]
        return np.concatenate([shuffled[highest], others])

    def rate(self, step: int) -> float | None:
        """The training's own."""
        return None

    def seen(
        self, step: int, rows: Int64[np.ndarray, " b"], losses: Float[np.ndarray, " b"], gradient: Gradient | None
    ) -> None:
        """Remember these losses."""
        self.last[rows] = losses
        self.step = step

    def state(self) -> dict[str, np.ndarray]:
        """The losses, and how many steps were made."""
        return {"last": self.last.copy(), "step": np.array(self.step)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from there."""
        self.last, self.step = np.array(state["last"]), int(state["step"])
