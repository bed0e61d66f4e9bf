"""Complex rows with good answers first, unless they are too like one that is taken already (DEITA).

Paper: Liu et al., "What Makes Good Data for Alignment? A Comprehensive Study of Automatic Data Selection in Instruction
    Tuning", ICLR 2024, arXiv 2312.15685.
Needs: two scorers, or one model that rates both (`--deita.complexity`, `--deita.quality`: the authors' are
    hkust-nlp/deita-complexity-scorer and deita-quality-scorer); an encoder.
Costs: two forward passes over the pool, and an encoder pass.

1. Complexity of the instruction and quality of the answer: the mean of the ratings 1 to 6, weighted by the probability
   of each digit at the first place of the scorer's answer.
2. The score is their product.
3. From the highest score on, a row is taken unless its cosine with one taken before is above 0.9.

Notation: c, q, s = c * q -> `complexity`, `quality`, `score`; tau -> `threshold`.
Relations: `mig` spreads the same score over labels; `qdit` mixes a score with coverage.
Differs: the authors' scorers are tuned on rankings by ChatGPT; any other model rates by a prompt of ours, which is
another measurement. They score each turn of a conversation and add up the products, so that long ones gain; here the
whole conversation is rated once. Where a reply is no digit their code takes 3.0; here probabilities are read and
nothing is parsed. Their batched scan drops a row for being like one that was itself dropped; here the scan is row by
row. Should the filter leave too few rows, the best of those that it refused follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.embedding import Embedding
from coretune.features.rating import DEITA_COMPLEXITY, DEITA_QUALITY, Rating
from coretune.methods._screen import screened
from coretune.pickers import distance_filter
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.scores.ratings import expected_rating
from coretune.selection import Budget
from coretune.shapes import Float, Int64

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Deita:
    """Options of `deita`."""

    model: str
    """The model that rates, where no scorer is named: a hub id, a folder, a GGUF file, or an embedded default."""
    complexity: str | None = None
    """The scorer of complexity; none is `model`."""
    quality: str | None = None
    """The scorer of quality; none is `model`."""
    threshold: float = 0.9
    """A row is refused if its cosine with one that was taken is above this."""
    embedder: str = "minilm"
    """The encoder that cosines are taken in; the paper's is a language model of 13B parameters."""
    screen: str | None = None
    """A cheap score that says which rows are rated at all: length, low_loss, a column of the data, ..."""
    screen_model: str | None = None
    """The model behind the cheap score, where it needs one."""
    keep: float = 0.2
    """The share of the rows that the cheap score lets through."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the highest scores that are not alike."""
        screen_rng, fill_rng = rng.spawn(2)
        columns = {name: np.full(len(pool), np.nan, np.float32) for name in ("complexity", "quality")}

        def costly(rows: Int64[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
            columns["complexity"][rows] = self._rated(self.complexity, DEITA_COMPLEXITY, pool, lab, rows)
            columns["quality"][rows] = self._rated(self.quality, DEITA_QUALITY, pool, lab, rows)
            return np.asarray(columns["complexity"][rows] * columns["quality"][rows])

        score, notes = screened(self, pool, budget, lab, screen_rng, costly)
        x = lab.features(Embedding(self.embedder), pool).array()
        chosen = budget.fill(lambda k, _: distance_filter(score, x, k, threshold=self.threshold), fill_rng)
        yield Round(chosen, columns=columns, notes=notes)

    def _rated(
        self, scorer: str | None, prompts: tuple[str, ...], pool: Pool, lab: Lab, rows: Int64[np.ndarray, " m"]
    ) -> Float[np.ndarray, " m"]:
        spec = Rating(scorer or self.model, prompts, low=1, high=6, template=self.template)
        return expected_rating(lab.features(spec, pool, rows).array()[:, 0], low=1)
