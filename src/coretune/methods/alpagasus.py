"""Let a strong model rate every row, and keep the best rated (AlpaGasus).

Paper: Chen et al., "AlpaGasus: Training a Better Alpaca with Fewer Data", ICLR 2024, arXiv 2307.08701.
Needs: a judge behind an OpenAI-compatible endpoint (`--alpagasus.judge.url`, `--alpagasus.judge.model`).
Costs: one request a row; give the judge a budget (`--alpagasus.judge.budget.money`).

1. The judge rates instruction and answer from 0 to 5, for helpfulness or accuracy.
2. The highest ratings; of equal ones, rows drawn at random.

Notation: the rating -> `rating`; tau -> none: the budget says how far down the ratings are taken.
Relations: `select_it` and `deita` rate with models at hand; `ask_llm` asks for yes or no.
Differs: the paper keeps all rows rated 4.5 or more (9,229 of 52,002 Alpaca rows), where the rater's marks pile up; a
budget that ends among equal ratings takes a random part of them, where the first rows of the file would be favoured.
The prompt is ours. Where the server gives log-probabilities the rating is its expected value, else the mark stated; a
reply that holds none is counted and its row left out, never given a default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from coretune.features.judgement import Judgement
from coretune.judge import ACCURACY, HELPFULNESS, Judge
from coretune.methods._judging import in_store
from coretune.methods._screen import screened
from coretune.pickers.top import highest
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget, Selection
from coretune.shapes import Float, Float32, Int64

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Alpagasus:
    """Options of `alpagasus`."""

    judge: Judge
    """Who rates."""
    asks_for: Literal["helpfulness", "accuracy"] = "helpfulness"
    """What is rated."""
    screen: str | None = None
    """A cheap score that says which rows are rated at all: length, low_loss, a column of the data, ..."""
    screen_model: str | None = None
    """The model behind the cheap score, where it needs one."""
    keep: float = 0.2
    """The share of the rows that the cheap score lets through."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the highest ratings."""
        screen_rng, tie_rng, fill_rng = rng.spawn(3)
        prompt = HELPFULNESS if self.asks_for == "helpfulness" else ACCURACY
        spec = Judgement(in_store(self.judge, lab), prompt)
        found: Float32[np.ndarray, " n"] = np.full(len(pool), np.nan, np.float32)

        def costly(rows: Int64[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
            found[rows] = lab.features(spec, pool, rows).array()
            return np.asarray(found[rows])

        score, notes = screened(self, pool, budget, lab, screen_rng, costly)
        shuffled = tie_rng.permutation(len(pool))

        def best(k: int) -> Selection:
            rows = shuffled[highest(score[shuffled], k)]
            return Selection.of(rows, score[rows])

        chosen = budget.fill(lambda k, _: best(k), fill_rng)
        yield Round(chosen, columns={"rating": found}, notes=notes)
