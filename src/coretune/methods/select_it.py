"""Let the base model itself rate every row, and trust ratings that are sure and do not hang on the wording (SelectIT).

Paper: Liu et al., "SelectIT: Selective Instruction Tuning for LLMs via Uncertainty-Aware Self-Reflection", NeurIPS
    2024, arXiv 2402.16705.
Needs: a language model; several of one family for the paper's third level (`--select_it.models`).
Costs: five forward passes over the pool a model.

1. Five differently worded prompts ask for a rating from 1 to 5; the probabilities of the five digits.
2. Token level: the likeliest digit, times the mean distance of its probability from the others'.
3. Sentence level: the mean over the five prompts, divided by 1 + alpha times their standard deviation.
4. Model level: the mean over models, weighted by their numbers of parameters.
5. The highest scores; the paper keeps 20%.

Notation: P' -> `Rating`, normalised; S_base * (...) -> `uncertainty_weighted_rating`; S_sent -> `agreeing_rating`.
Relations: `ask_llm` asks once for yes or no; `alpagasus` asks a judge behind an endpoint.
Differs: the formulas of the paper are followed. Its code takes the exponential of P' and normalises again (.415 where
the formula gives 1.875 for .05, .1, .15, .2, .5) and weighs models by 7/20, 13/20 and 70/90. The wording of the prompts
is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.rating import SELECT_IT, Rating
from coretune.methods._screen import screened
from coretune.pickers import top
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.scores.ratings import agreeing_rating, uncertainty_weighted_rating
from coretune.selection import Budget
from coretune.shapes import Float, Float32, Int64

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class SelectIt:
    """Options of `select_it`."""

    model: str
    """The model that rates: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    models: tuple[str, ...] = ()
    """Further models that rate, for the model level."""
    weights: tuple[float, ...] = ()
    """What each model counts, `model` first; the paper takes their numbers of parameters (7, 13, 70)."""
    alpha: float = 0.2
    """How much disagreement between prompts costs."""
    screen: str | None = None
    """A cheap score that says which rows are rated at all: length, low_loss, a column of the data, ..."""
    screen_model: str | None = None
    """The model behind the cheap score, where it needs one."""
    keep: float = 0.2
    """The share of the rows that the cheap score lets through."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def __post_init__(self) -> None:
        """Refuse weights that do not fit the models."""
        if self.models and len(self.weights) != 1 + len(self.models):
            raise ValueError(
                f"{1 + len(self.models)} models and {len(self.weights)} weights given; give the number of parameters "
                "of each, model first"
            )

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the highest ratings."""
        screen_rng, fill_rng = rng.spawn(2)
        weights = np.array(self.weights or (1.0,))
        found: Float32[np.ndarray, " n"] = np.full(len(pool), np.nan, np.float32)

        def costly(rows: Int64[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
            ratings = [
                agreeing_rating(
                    uncertainty_weighted_rating(
                        lab.features(Rating(name, SELECT_IT, template=self.template), pool, rows).array()
                    ),
                    alpha=self.alpha,
                )
                for name in (self.model, *self.models)
            ]
            found[rows] = np.average(ratings, axis=0, weights=weights)
            return np.asarray(found[rows])

        score, notes = screened(self, pool, budget, lab, screen_rng, costly)
        chosen = budget.fill(lambda k, _: top(score, k), fill_rng)
        yield Round(chosen, columns={"rating": found}, notes=notes)
