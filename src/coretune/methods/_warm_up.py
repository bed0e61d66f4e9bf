"""The LoRA warm-up that methods on gradients begin with, scaled by a stated rule to pools smaller than the papers'."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.lora_gradient import AdapterAt
from coretune.pickers import uniform
from coretune.pool import Pool
from coretune.shapes import Float
from coretune.tuning import Tuned, Tuning

if TYPE_CHECKING:
    from coretune.lab import Feature, Lab

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
BLOCK = 4096


def warm_up(tuning: Tuning, share: float, pool: Pool, lab: Lab, rng: np.random.Generator) -> Tuned:
    """Tune on a random share of the pool, at least one row, in batches of at most a tenth of its rows."""
    rows = uniform(len(pool), max(1, round(share * len(pool))), rng=rng).rows
    batch_rows = min(tuning.batch_rows, max(1, len(rows) // 10))
    return lab.tune(replace(tuning, batch_rows=batch_rows, seed=int(rng.integers(2**31))), pool, np.sort(rows))


def planned_steps(tuning: Tuning, share: float, n: int) -> int:
    """Optimizer steps of a whole warm-up on a share of `n` rows."""
    rows = max(1, round(share * n))
    return round(tuning.epochs * -(-rows // min(tuning.batch_rows, max(1, rows // 10))))


def adapters_of(tuned: Tuned) -> tuple[AdapterAt, ...]:
    """The checkpoints of a warm-up, weighted by their mean learning rates."""
    return tuple(AdapterAt(each.digest, str(each.path), each.learning_rate) for each in tuned.checkpoints)


def last_adapter(tuned: Tuned) -> tuple[AdapterAt, ...]:
    """The last checkpoint alone."""
    return (AdapterAt(tuned.checkpoints[-1].digest, str(tuned.checkpoints[-1].path)),)


def brief(model: str, template: str | None, rank: int, max_tokens: int) -> Tuning:
    """A warm-up of one epoch for methods whose papers know no LoRA: these numbers are ours."""
    return Tuning(
        model,
        template=template,
        rank=rank,
        alpha=2 * rank,
        dropout=0.0,
        targets=ATTENTION,
        learning_rate=2e-4,
        batch_rows=16,
        epochs=1,
        average="rows",
        max_tokens=max_tokens,
    )


def with_lengths(feature: Feature, unit: float = 1.0) -> Float[np.ndarray, "n d"]:
    """Gradients, or means of them, with their lengths, in `unit`s; float16."""
    x, norm = feature.array(), feature.numbers["norm"]
    for start in range(0, len(x), BLOCK):
        x[start : start + BLOCK] *= norm[start : start + BLOCK, None] / unit
    return x
