"""Take the rows that, shown as a single example, help the model with the most of a set of other tasks (Nuggets).

Paper: Li et al., "One-Shot Learning as Instruction Data Prospector for Large Language Models", ACL 2024,
    arXiv 2312.10302.
Needs: a language model; and an encoder for the anchors, by default the model itself.
Costs: one forward pass over every pair of a row and an anchor: n x 100 answers. Said before it starts.

1. Anchors: k-means of the instructions into 100 clusters, the row nearest each centre.
2. Log-probability of every anchor's answer as it stands, and with the row as one worked example before it.
3. A row's golden score is the share of anchors whose answer became likelier.
4. The highest scores.

Notation: GS -> `golden`; S_zsl, S_iit -> the anchors' log-probabilities without and with the row; m -> `anchors`.
Relations: `delift` replaces the yes or no of an anchor by how much it gained, and the highest scores by a cover.
Differs: an anchor that is the row itself is left out of the row's score, where showing it gives its answer away; the
authors count it. Anchors have at most half as many characters as the window has tokens, so that there is room before
them. Ties, of which m + 1 levels make many, go to the larger mean gain in log-probability. The row is an
earlier exchange of the model's own chat template, where the authors write both into one prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.cascade import refuse_odd_share
from coretune.features.answer_loss import AnswerLoss
from coretune.features.demonstration_loss import DemonstrationLoss
from coretune.features.reference_pool import ReferencePool
from coretune.methods._anchors import medoids
from coretune.methods._screen import screened
from coretune.pickers import top
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget
from coretune.shapes import Float, Float32, Int64

if TYPE_CHECKING:
    from coretune.lab import Lab

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Nuggets:
    """Options of `nuggets`."""

    model: str
    """The model that reads: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    anchors: int = 100
    """How many other tasks a row is tried on; at most a tenth of the pool."""
    embedder: str | None = None
    """What the instructions are clustered by; none is the model itself."""
    screen: str | None = None
    """A cheap score that says which rows are tried at all: length, low_loss, a column of the data, ..."""
    screen_model: str | None = None
    """The model behind the cheap score, where it needs one."""
    keep: float = 0.2
    """The share of the rows that the cheap score lets through."""
    max_tokens: int | None = None
    """Tokens of row and anchor together that are read. None is 2,048, or the model's window."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the highest golden scores."""
        refuse_odd_share(self.keep)  # before anything is spent
        cluster_rng, screen_rng, fill_rng = rng.spawn(3)
        anchors, _ = medoids(self, pool, min(self.anchors, max(1, len(pool) // 10)), lab, cluster_rng)
        alone = -lab.features(
            AnswerLoss(self.model, template=self.template, max_tokens=self.max_tokens), pool, anchors
        ).array()
        spec = DemonstrationLoss(
            self.model, ReferencePool.of(pool.examples(anchors)), template=self.template, max_tokens=self.max_tokens
        )
        found, gained = (np.full(len(pool), np.nan, np.float32) for _ in range(2))

        def costly(rows: Int64[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
            answers = len(rows) * len(anchors)
            log.warning("%d rows before each of %d anchors: %d answers to read", len(rows), len(anchors), answers)
            shown = lab.features(spec, pool, rows).array()
            found[rows], gained[rows] = golden(shown, alone, rows[:, None] == anchors)
            return ranked(found[rows], gained[rows], len(anchors))

        score, notes = screened(self, pool, budget, lab, screen_rng, costly)
        chosen = budget.fill(lambda k, _: top(score, k), fill_rng)
        yield Round(chosen, columns={"golden": found, "mean_gain": gained}, notes=notes | {"anchors": anchors.tolist()})


def golden(
    shown: Float[np.ndarray, "n m"], alone: Float[np.ndarray, " m"], same: np.ndarray
) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Share of anchors that gain from a row, and their mean gain, both without the anchors that are the row itself."""
    counted = ~same
    tried = np.maximum(counted.sum(axis=1), 1)
    gains = np.where(counted, shown - alone, 0.0)
    return ((gains > 0).sum(axis=1) / tried).astype(np.float32), (gains.sum(axis=1) / tried).astype(np.float32)


def ranked(share: Float[np.ndarray, " n"], gain: Float[np.ndarray, " n"], m: int) -> Float[np.ndarray, " n"]:
    """The share, with ties in the order of the gain: less than half a step of the share is added."""
    order = np.argsort(np.argsort(gain, kind="stable"), kind="stable")
    return share.astype(np.float64) + order / (2.0 * m * max(1, len(order)))
