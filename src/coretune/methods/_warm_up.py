"""The LoRA warm-up that methods on gradients begin with, scaled by a stated rule to pools smaller than the papers'."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from coretune.features.lora_gradient import AdapterAt, LoraGradient
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


class Early(Protocol):
    """The options that methods share whose papers take gradients early in training and know no LoRA."""

    @property
    def model(self) -> str: ...
    @property
    def template(self) -> str | None: ...
    @property
    def warmup_share(self) -> float: ...
    @property
    def rank(self) -> int: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def width(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...


def early_gradients(asked: Early, pool: Pool, lab: Lab, rng: np.random.Generator) -> tuple[Feature, Tuned]:
    """Every row's plain gradient after a warm-up of one epoch, whose numbers are ours; and that warm-up."""
    tuning = Tuning(
        asked.model,
        template=asked.template,
        rank=asked.rank,
        alpha=2 * asked.rank,
        dropout=0.0,
        targets=tuple(asked.targets),
        learning_rate=2e-4,
        batch_rows=16,
        epochs=1,
        average="rows",
        max_tokens=asked.max_tokens,
    )
    tuned = warm_up(tuning, asked.warmup_share, pool, lab, rng)
    last = AdapterAt(tuned.checkpoints[-1].digest, str(tuned.checkpoints[-1].path))
    gradient = LoraGradient(
        asked.model, (last,), "none", asked.width, template=asked.template, max_tokens=asked.max_tokens
    )
    return lab.features(gradient, pool), tuned


def with_lengths(feature: Feature, unit: float = 1.0) -> Float[np.ndarray, "n d"]:
    """Gradients, or means of them, with their lengths, in `unit`s; float16."""
    x, norm = feature.array(), feature.numbers["norm"]
    for start in range(0, len(x), BLOCK):
        x[start : start + BLOCK] *= norm[start : start + BLOCK, None] / unit
    return x


def mean_square_one(feature: Feature) -> Float[np.ndarray, "n d"]:
    """Gradients with their lengths, in units of their root mean square; float16."""
    return with_lengths(feature, float(np.sqrt(np.mean(np.square(feature.numbers["norm"], dtype=np.float64)))))
