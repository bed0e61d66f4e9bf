"""What methods that select, tune, look and select again have in common: the tuning of a round."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from coretune.features.lora_gradient import AdapterAt
from coretune.pool import Pool
from coretune.shapes import Int64
from coretune.tuning import Tuned, Tuning

if TYPE_CHECKING:
    from coretune.lab import Lab


class Looping(Protocol):
    """The options of a loop's tunings, by the names that `Tuning` has for them."""

    @property
    def model(self) -> str: ...
    @property
    def template(self) -> str | None: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def epochs(self) -> float: ...
    @property
    def batch_rows(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...


def round_tuning(asked: Looping, *, schedule: str = "linear", warmup: float = 0.03) -> Tuning:
    """The tuning of a round: LoRA in all linear layers, alpha twice the rank."""
    return Tuning(
        asked.model,
        template=asked.template,
        rank=asked.rank,
        alpha=2.0 * asked.rank,
        learning_rate=asked.learning_rate,
        schedule=schedule,  # type: ignore[arg-type]
        warmup=warmup,
        batch_rows=asked.batch_rows,
        epochs=asked.epochs,
        max_tokens=asked.max_tokens,
    )


def tuned_on(tuning: Tuning, pool: Pool, rows: Int64[np.ndarray, " k"], lab: Lab, seed: int) -> Tuned:
    """Tune on these rows, in pool order, so that the same rows are the same tuning however they were found."""
    return lab.tune(replace(tuning, seed=seed), pool, np.sort(rows))


def adapter_of(tuned: Tuned) -> AdapterAt:
    """The last checkpoint of a tuning, as features take it."""
    last = tuned.checkpoints[-1]
    return AdapterAt(last.digest, str(last.path))
