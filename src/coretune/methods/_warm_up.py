"""The LoRA warm-up that methods on gradients begin with, scaled by a stated rule to pools smaller than the papers'."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from coretune.features.lora_gradient import AdapterAt, LoraGradient
from coretune.pickers import uniform
from coretune.pool import Pool
from coretune.shapes import Float
from coretune.tuning import Tuned, Tuning
from coretune.tuning.schedule import Plan

if TYPE_CHECKING:
    from coretune.lab import Feature, Lab

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
BLOCK = 4096


def plan_of(tuning: Tuning, share: float, n: int) -> Plan:
    """The plan of a warm-up on a share of `n` rows, at least one, in batches of at most a tenth of its rows."""
    rows = max(1, round(share * n))
    return Plan.of(replace(tuning, batch_rows=min(tuning.batch_rows, max(1, rows // 10))), rows)


def warm_up(tuning: Tuning, share: float, pool: Pool, lab: Lab, rng: np.random.Generator) -> Tuned:
    """Tune on a random share of the pool, as `plan_of` has it; adapter and order follow from `rng` too."""
    plan = plan_of(tuning, share, len(pool))
    rows = np.sort(uniform(len(pool), plan.rows, rng=rng).rows)
    return lab.tune(replace(plan.spec, seed=int(rng.integers(2**31))), pool, rows)


def adapters_of(tuned: Tuned) -> tuple[AdapterAt, ...]:
    """The checkpoints of a warm-up, weighted by their mean learning rates."""
    return tuple(AdapterAt(each.digest, str(each.path), each.learning_rate) for each in tuned.checkpoints)


class Gradients(Protocol):
    """The options that all methods on gradients have."""

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


def refuse_nonsense(asked: Gradients) -> None:
    """Raise `ValueError` for options that mean nothing, before hours are spent on a warm-up."""
    for name in ("clusters", "trials", "width", "rank", "max_tokens"):
        if getattr(asked, name, 1) < 1:
            raise ValueError(f"{name} {getattr(asked, name)} asked; give 1 or more")
    if not 0 < asked.warmup_share <= 1:
        raise ValueError(f"warmup_share {asked.warmup_share} asked; give a share of the pool above 0, at most 1")
    if getattr(asked, "ridge", 0.0) < 0:
        raise ValueError(f"ridge {getattr(asked, 'ridge')} asked; give 0 or more")  # noqa: B009 - few have it


def early_gradients(asked: Gradients, pool: Pool, lab: Lab, rng: np.random.Generator) -> tuple[Feature, Tuned]:
    """Every row's plain gradient after a warm-up of one epoch, whose numbers are ours; and that warm-up."""
    refuse_nonsense(asked)
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
    return lab.features(gradient(asked, (last,), "none"), pool), tuned


def authors_tuning(asked: Gradients) -> Tuning:
    """The warm-up of LESS, which TAGCOS took over (base_training_args.sh in both), without its checkpoints."""
    refuse_nonsense(asked)
    return Tuning(
        asked.model,
        template=asked.template,
        rank=asked.rank,
        alpha=4 * asked.rank,
        dropout=0.1,
        targets=tuple(asked.targets),
        learning_rate=2e-5,
        warmup=0.03,
        batch_rows=128,
        epochs=4,
        average="rows",
        max_tokens=asked.max_tokens,
    )


def gradient(
    asked: Gradients, adapters: tuple[AdapterAt, ...], direction: Literal["less", "adam", "none"]
) -> LoraGradient:
    """The feature: gradients at these checkpoints, in this direction, as wide and long as is asked."""
    return LoraGradient(
        asked.model, adapters, direction, asked.width, template=asked.template, max_tokens=asked.max_tokens
    )


def with_lengths(feature: Feature, unit: float = 1.0) -> Float[np.ndarray, "n d"]:
    """Gradients, or means of them, with their lengths, in `unit`s; float16."""
    x, norm = feature.array(), feature.numbers["norm"]
    for start in range(0, len(x), BLOCK):
        x[start : start + BLOCK] *= norm[start : start + BLOCK, None] / unit
    return x


def mean_square_one(feature: Feature) -> Float[np.ndarray, "n d"]:
    """Gradients with their lengths, in units of their root mean square; float16."""
    return with_lengths(feature, float(np.sqrt(np.mean(np.square(feature.numbers["norm"], dtype=np.float64)))))
