"""Orders: which rows a training learns next, decided while it runs from the losses that its own steps compute.

An `Order` is a spec: frozen data, part of a tuning's address. `start` gives a `Chooser`, which a training asks for the
rows of each optimizer step and tells what it saw in it. Neither needs more than numpy, so the same choosers serve
`lab.tune(..., order=...)` and any other training loop:

    chooser = order.start(learned, batch_rows=16, seed=0)
    step = 0
    while not chooser.over:
        step += 1
        rows = chooser.rows(step)
        ...                                     # forward, backward; the learning rate is rate(step) times the highest
        chooser.seen(step, rows, losses, gradient if chooser.wants_gradient else None)
        ...                                     # the optimizer's step
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from coretune.shapes import Bool, Float, Float32, Int64


@dataclass(frozen=True, eq=False)
class Gradient:
    """What an optimizer step's gradient says, before it is clipped.

    `squared_norm` is that of the whole gradient; `vector` `(d,)` the gradient of the last adapted layer's LoRA factors,
    flattened, on the CPU; `learning_rate` the one that the step is made with.
    """

    squared_norm: float
    vector: Float32[np.ndarray, " d"]
    learning_rate: float


@runtime_checkable
class Chooser(Protocol):
    """Chooses the rows of each step; steps are counted from 1 and asked for one after the other.

    It changes only in `seen` and `restore`, and by nothing but what they are given: the same losses and gradients are
    the same rows.
    """

    @property
    def most_steps(self) -> int:
        """More optimizer steps than these are never made."""
        ...

    @property
    def wants_gradient(self) -> bool:
        """Whether `seen` is to be given the gradient; where it is not, it may be None."""
        ...

    @property
    def over(self) -> bool:
        """Whether no further step is wanted."""
        ...

    @property
    def keep(self) -> bool:
        """Whether the weights after the step that was seen last are to be kept as a checkpoint."""
        ...

    def rows(self, step: int) -> Int64[np.ndarray, " b"]:
        """The rows of the next step: places among those that may be learned, none twice; the same however often asked.

        Raises `ValueError` for a step that is not the next one.
        """
        ...

    def rate(self, step: int) -> float | None:
        """The learning rate of a step as a part of the highest, of the step's number alone; None leaves it to the
        training's own schedule.
        """
        ...

    def seen(
        self, step: int, rows: Int64[np.ndarray, " b"], losses: Float[np.ndarray, " b"], gradient: Gradient | None
    ) -> None:
        """Take in a step: its rows as `rows(step)` gave them, and the mean answer loss of each as training saw it."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Everything that a chooser of the same order needs to go on from here, as arrays without objects."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from where `state` was taken."""
        ...


@runtime_checkable
class Order(Protocol):
    """A frozen dataclass with a `version`, whose fields are its options; arrays count by their content."""

    def start(self, learned: Bool[np.ndarray, " n"], *, batch_rows: int, seed: int) -> Chooser:
        """A chooser for rows of which those marked can be learned (have answer tokens); others are never chosen.

        Raises `ValueError` where the order is of another number of rows, or its numbers mean nothing.
        """
        ...


__all__ = ["Chooser", "Gradient", "Order"]
