"""What the methods of DELIFT have in common: how much each row, shown as an example, helps with anchors' answers.

A method fixes the anchors and what its picks are to maximise; utilities, screening and filling the budget are here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from coretune.cascade import refuse_odd_share
from coretune.features.answer_loss import AnswerLoss
from coretune.features.answer_token_losses import AnswerTokenLosses
from coretune.features.demonstration_distance import DemonstrationDistance, distances
from coretune.features.demonstration_loss import DemonstrationLoss
from coretune.features.reference_pool import ReferencePool
from coretune.methods._anchors import Anchored, characters_of, medoids
from coretune.methods._screen import Screened, screened
from coretune.pickers import top
from coretune.pool import Pool
from coretune.selection import Budget, Selection
from coretune.shapes import Bool, Float, Float32, Int64

if TYPE_CHECKING:
    from coretune.lab import Lab

log = logging.getLogger(__name__)

CHARACTERS = 4  # of a token, for the estimate that is said before anything is read

Gain = Literal["distance", "log_probability"]
Kernel = Literal["clip", "min_max"]


class Shown(Anchored, Screened, Protocol):
    """The options of DELIFT's methods."""

    @property
    def anchors(self) -> int: ...
    @property
    def gain(self) -> Gain: ...
    @property
    def kernel(self) -> Kernel: ...
    @property
    def template(self) -> str | None: ...


@dataclass(frozen=True)
class Anchors:
    """Rows of a pool whose answers are predicted; `weights` `(m,)` are how many rows each stands for."""

    pool: Pool
    rows: Int64[np.ndarray, " m"]
    weights: Float[np.ndarray, " m"]

    @classmethod
    def of(cls, asked: Anchored, pool: Pool, most: int, lab: Lab, rng: np.random.Generator) -> Anchors:
        """All rows where there are no more than `most`, else so many medoids with the sizes of their clusters."""
        if len(pool) <= most:
            return cls(pool, np.arange(len(pool)), np.ones(len(pool)))
        rows, sizes = medoids(asked, pool, most, lab, rng)
        return cls(pool, rows, sizes.astype(np.float64))

    def as_data(self) -> ReferencePool:
        """The examples themselves, as a feature carries them."""
        return ReferencePool.of(self.pool.examples(self.rows))

    def same(self, pool: Pool, rows: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, "n m"]:
        """Which rows of a pool say what an anchor says."""
        return np.asarray((pool.keys[rows][:, None] == self.pool.keys[self.rows][None]).all(axis=2))


@dataclass(frozen=True)
class Utilities:
    """What was measured: `table` `(s, m)`, the utilities of the `rows` `(s,)` that go before all others.

    `score` `(n,)`, the mean over anchors, orders rows that add nothing to the picks; screened away ones come last.
    """

    table: Float32[np.ndarray, "s m"]
    rows: Int64[np.ndarray, " s"]
    score: Float32[np.ndarray, " n"]
    columns: dict[str, np.ndarray]
    notes: dict[str, Any]

    def fill(self, budget: Budget, rng: np.random.Generator, cover: Callable[[int], Selection]) -> Selection:
        """Rows within a budget: what `cover(k)` picks among `rows` while that adds something, then by `score`."""

        def choose(k: int) -> Selection:
            picked = cover(min(k, len(self.rows)))
            picked = picked.head(int(np.count_nonzero(picked.gains > 0)))
            first = self.rows[picked.rows]
            others = np.setdiff1d(np.arange(len(self.score)), first)
            rest = others[top(self.score[others], k - len(first)).rows]
            return Selection.of(np.concatenate([first, rest]), np.append(picked.gains, np.zeros(len(rest))))

        return budget.fill(lambda k, _: choose(k), rng)


def refuse_nonsense(asked: Shown) -> None:
    """Raise `ValueError`, before anything is spent, for options that mean nothing."""
    refuse_odd_share(asked.keep)
    for name, known in (("gain", GAINS), ("kernel", KERNELS)):
        if (word := getattr(asked, name)) not in known:
            raise ValueError(f"{name} {word!r} asked; known are {', '.join(known)}")
    if asked.anchors < 1:
        raise ValueError(f"{asked.anchors} anchors asked; give 1 or more")


def utilities(
    asked: Shown, anchors: Anchors, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator
) -> Utilities:
    """The utilities of a pool's rows, or of those that the cheap score lets through."""
    found = np.full((len(pool), len(anchors.rows)), np.nan, np.float32)
    share = anchors.weights / anchors.weights.sum()

    def costly(rows: Int64[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        found[rows] = utility(asked, anchors, pool, rows, lab)
        return np.asarray(found[rows] @ share)

    score, notes = screened(asked, pool, budget, lab, rng, costly)
    rows = np.sort(top(score, notes["screen"]["survivors"] if notes else len(pool)).rows)
    helped = np.where(np.isnan(found[:, 0]), np.nan, (found > 0) @ share)
    columns = {"mean_utility": (found @ share).astype(np.float32), "helped": helped.astype(np.float32)}
    said = {"anchors": anchors.rows.tolist(), "anchor_weights": anchors.weights.tolist()}
    return Utilities(found[rows], rows, score, columns, notes | said)


def utility(
    asked: Shown, anchors: Anchors, pool: Pool, rows: Int64[np.ndarray, " n"], lab: Lab
) -> Float32[np.ndarray, "n m"]:
    """U `(n, m)`: how much nearer to certain each anchor's answer is behind a row; what it will cost is said first."""
    own = characters_of(anchors.pool)[anchors.rows].sum()
    tokens = (int(characters_of(pool)[rows].sum()) + len(rows) * int(own)) / CHARACTERS
    log.warning(
        "%d rows before each of %d anchors: %d answers to read, about %.2g million tokens; what is stored is not read "
        "again",
        len(rows), len(anchors.rows), len(rows) * len(anchors.rows), tokens / 1e6,
    )  # fmt: skip
    return np.asarray(GAINS[asked.gain](asked, anchors, pool, rows, lab), np.float32)


def distance_gains(
    asked: Shown, anchors: Anchors, pool: Pool, rows: Int64[np.ndarray, " n"], lab: Lab
) -> Float[np.ndarray, "n m"]:
    """Distance without a demonstration less distance behind it; within -1 and 1."""
    as_it_stands = AnswerTokenLosses(asked.model, template=asked.template, max_tokens=asked.max_tokens)
    behind = DemonstrationDistance(asked.model, anchors.as_data(), template=asked.template, max_tokens=asked.max_tokens)
    alone = distances(lab.features(as_it_stands, anchors.pool, anchors.rows).ragged())
    return np.asarray(alone - lab.features(behind, pool, rows).array())


def log_probability_gains(
    asked: Shown, anchors: Anchors, pool: Pool, rows: Int64[np.ndarray, " n"], lab: Lab
) -> Float[np.ndarray, "n m"]:
    """The sum over the answer's tokens of log(p behind the demonstration / p without), in nats (Theorem 1)."""
    as_it_stands = AnswerLoss(asked.model, template=asked.template, max_tokens=asked.max_tokens)
    behind = DemonstrationLoss(asked.model, anchors.as_data(), template=asked.template, max_tokens=asked.max_tokens)
    alone = lab.features(as_it_stands, anchors.pool, anchors.rows)
    return np.asarray((lab.features(behind, pool, rows).array() + alone.array()) * alone.numbers["tokens"])


def clip(utility: Float[np.ndarray, "n m"], same: Bool[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """max(U, 0)."""
    return np.asarray(np.maximum(utility, 0))


def min_max(utility: Float[np.ndarray, "n m"], same: Bool[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """(U - lowest) / (highest - lowest), at most 1; pairs of the `same` example are left out of both."""
    others = utility[~same]
    low, high = (float(others.min()), float(others.max())) if others.size else (0.0, 0.0)
    if high == low:
        return np.zeros_like(utility)
    return np.asarray(np.clip((utility - low) / (high - low), 0, 1))


def similarities(
    asked: Shown, anchors: Anchors, *shown: tuple[Float[np.ndarray, "_ m"], Pool, Int64[np.ndarray, " _"]]
) -> list[Float[np.ndarray, "m _"]]:
    """The kernel of utilities and the rows they are of, each turned to `(m, n)`; min-max has one scale for all."""
    table = np.concatenate([utility for utility, _, _ in shown]).astype(np.float64)
    same = np.concatenate([anchors.same(pool, rows) for _, pool, rows in shown])
    ends = np.cumsum([len(rows) for _, _, rows in shown])[:-1]
    return [np.ascontiguousarray(each.T) for each in np.split(KERNELS[asked.kernel](table, same), ends)]


GAINS = {"distance": distance_gains, "log_probability": log_probability_gains}
KERNELS = {"clip": clip, "min_max": min_max}
