"""How sure a language model is of the answers of anchors when it has seen an example as a demonstration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np

from coretune.features import Measure, Ragged, _one_shot, place
from coretune.features.lora_gradient import AdapterAt
from coretune.features.reference_pool import ReferencePool
from coretune.shapes import Float, Float32, Int64


@dataclass(frozen=True)
class DemonstrationDistance:
    """Distance of each anchor's answer to certainty behind an example, `(n, m)` float32, from 0 to 1 (DELIFT).

    sqrt(mean over the answer's tokens of (1 - p)^2), where p is the probability of the token that stands there; the
    example is the single demonstration, as turns before the anchor's (arXiv 2411.04425; root mean square as the
    authors' code has it). `distances` of the anchors' `AnswerTokenLosses` gives the same without a demonstration, and
    the difference of the two is the example's utility. Everything else is as in `DemonstrationLoss`: what is NaN, that
    a demonstration too long for the longest anchor loses its beginning, marked `demonstration_cut`, and an anchor's
    tokens are never cut, so that a pair is never scored on a part of the answer.

    A demonstration is read once and kept for all anchors where the model has a cache of keys and values; this changes
    values by rounding alone, `tolerance` in float32.
    """

    version: ClassVar[int] = 1
    tolerance: ClassVar[float] = 1e-4

    model: str = field(metadata=place())
    """The language model that reads."""
    anchors: ReferencePool
    """The examples whose answers are predicted."""
    adapter: AdapterAt | None = None
    """A checkpoint of an adapter, merged into the model's weights."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the tokenizer's digest."""
    max_tokens: int | None = None
    """Tokens of a demonstration and an anchor; none is 2,048, or the model's window if that is less."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the model computes in; none is bfloat16 where the hardware has it and a sample's losses agree."""
    batch_tokens: int | None = None
    """About how many tokens of anchors a batch has; none is what suits the hardware."""
    digest: str | None = None
    """Content hash of the model's weights and configuration; `resolved` finds it."""
    tokenizer: str | None = None
    """Content hash of tokenizer and template; `resolved` finds it."""

    @property
    def shard_rows(self) -> int:
        """Rows between two writes: under a minute's work."""
        return _one_shot.shard_rows(self)

    @property
    def row_bytes(self) -> int:
        """Bytes a row takes on the disk: float32 values, key and marks."""
        return 4 * len(self.anchors) + 32

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing."""
        _one_shot.refuse_nonsense(self)

    def resolved(self) -> Self:
        """The same with model, tokenizer, window, precision and batches settled. Raises `ModelError`."""
        return _one_shot.resolved(self)

    def load(self) -> Measure:
        """Load the model and read the anchors. Raises `ModelError` where they are not what was resolved."""
        return _one_shot.load(self.resolved(), root_mean_squares)


def distances(losses: Ragged) -> Float32[np.ndarray, " n"]:
    """The same without a demonstration, from `AnswerTokenLosses`, `(n,)`; NaN for rows without an answer token."""
    found = np.full(len(losses), np.nan, np.float32)
    some = np.flatnonzero(np.diff(losses.offsets))
    ends = np.append(losses.offsets[some], losses.offsets[-1])
    if len(some):
        found[some] = root_mean_squares(losses.values.astype(np.float64), ends)
    return found


def root_mean_squares(losses: Float[np.ndarray, " t"], ends: Int64[np.ndarray, " g1"]) -> Float[np.ndarray, " g"]:
    """sqrt(mean (1 - p)^2) of each anchor's tokens from their losses, p = exp(-loss)."""
    return np.sqrt(np.add.reduceat(np.expm1(-losses) ** 2, ends[:-1]) / np.diff(ends))
