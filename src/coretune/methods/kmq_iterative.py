"""Draw by quality from every cell, tune, and shift the next rows to cells whose answers still beat the model's own.

Paper: Yu et al., "Diversify and Conquer: Diversity-Centric Data Selection with Iterative Refinement", 2024,
    arXiv 2409.11378, Algorithm 1 and eq. 4-6.
Needs: an encoder; a quality (`--kmq_iterative.quality`, as `kmq`); a model to tune; for the paper's best scorer a
    reward model (`--kmq_iterative.reward`), or a judge (`--kmq_iterative.judge.url`).
Costs: an encoder pass over the pool and k-means; in every round a tuning on the rows so far, and for each of them an
    answer by that model and the scores of two answers; the last round is tuned, but its rows are not answered.

1. k-means over unit embeddings, as in `kmq`. All cells weigh the same.
2. A round has b / N new rows. Cells get them by weight, as far as they have rows left; within a cell the draw of kMQ.
3. Tune on all rows so far, from the model as it came, for one epoch.
4. The tuned model answers the prompt of every row so far, taking the likeliest tokens.
5. S: the score of the row's own answer less that of the model's. A cell's score is the mean over its rows with an S.
6. Weights are multiplied by the scores and made to sum to 1. Back to 2.

Notation: D' -> the selection so far; w -> cells `weight`, then `next_weight`; s_j -> cells `score`; S_i -> column
    `gap`; N -> `iterations`; b_it -> the rows of a round; F -> `model`; S -> `reward`, `judge`, or else perplexity.
Relations: one round, while no cell runs out, is `kmq` with `quotas=equal`. What a large S means depends on the scorer:
    by reward model or judge, answers that are better than the model's; by perplexity, ones that it finds less likely.
Differs: eq. 6 is undefined for negative scores, and its weights sum to 1/K; here those count as 0 and weights sum to 1.
A cell without a score keeps its weight (by softmax it has the others' mean). `weights=softmax` is the authors' code,
without a memory; S is standardised first, as its unit would decide how sharp the softmax is. Their code starts from a
uniform draw, gives later rounds 6 rows where 3,267 are meant, scores half of the picks and has no judge: not kept. Rows
of later rounds are drawn by quality too, which the paper leaves open, as it does what tunings start from: Algorithm 1's
Finetune(F, D') and the released scripts start afresh, as we do; its introduction speaks of going on, which is `restart`
off: on the new rows alone, since otherwise the first rows would be trained N times and the last once. LoRA in place of
all weights, at a rate of ours; batches of at most a tenth of the rows. Perplexity is over answer tokens, where the code
counts prompts and padding. Unless told otherwise, there are at most half as many cells as a round has rows, so that a
mean is of two rows or so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from coretune.features.embedding import Embedding
from coretune.judge import Judge
from coretune.methods._gaps import gaps, scorer_of
from coretune.methods._loop import adapter_of, round_tuning, tuned_on
from coretune.partitions import Partition, choose_k, grown, powers_of_two
from coretune.partitions.picking import Pick
from coretune.pickers import drawn
from coretune.pool import Pool
from coretune.quality import named_score
from coretune.rounds import Round
from coretune.scores.cell_weights import carried_over, cell_means, softmax_of, standardised
from coretune.scores.draw_weights import linear_weights, softmax_weights
from coretune.selection import Budget, Selection
from coretune.shapes import Float, Int64
from coretune.tuning import Tuned

if TYPE_CHECKING:
    from coretune.lab import Lab

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KmqIterative:
    """Options of `kmq_iterative`."""

    quality: str
    """What a row is drawn by: length, a column of the data that holds a number, or what a model says of it
    (answer_tokens, low_loss, high_loss, ifd, ifd_perplexity, yes_probability); higher is better."""
    model: str
    """The model that is tuned and answers: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    iterations: int = 3
    """How many rounds share the budget equally (the paper's number)."""
    rows_a_round: int | None = None
    """Rows of a round, as many rounds as it takes; none is what `iterations` makes of the budget."""
    reward: str | None = None
    """The reward model that scores answers: sequence classification of one output (the paper's best scorer)."""
    reward_layout: str | None = None
    """Text with {prompt} and {answer} that the reward model was tuned on; none is its chat template."""
    judge: Judge | None = None
    """Who scores answers where no reward model does; without either, the tuned model's own perplexity."""
    weights: Literal["carried_over", "softmax"] = "carried_over"
    """The next weights: those before times the scores (the paper's), or a softmax of the scores (its code's)."""
    floor: float = 0.0
    """The smallest weight of a cell in carried_over, as a share of an equal one; at 0 a cell may never come back."""
    restart: bool = True
    """Tune the model as it came on all rows so far; if not, the last one further on the new rows alone."""
    final_model: bool = True
    """Tune in the last round too, for the model itself: the longest of the tunings, which chooses nothing."""
    max_new_tokens: int = 512
    """Most tokens of an answer that the model writes (the authors' number)."""
    embedder: str = "minilm"
    """The encoder: a hub id, a folder, `minilm`, or any causal language model."""
    clusters: int | None = None
    """How many cells; none lets the corrected silhouette choose among powers of two."""
    draw: Literal["softmax", "linear"] = "softmax"
    """How a quality becomes a probability: exp(quality / temperature), or the quality itself."""
    temperature: float = 1.0
    """The softmax's temperature, in units of the quality."""
    learning_rate: float = 2e-4
    """The highest learning rate of the tunings, reached after 3% of the steps; then down in a line."""
    epochs: float = 1.0
    """How often a tuning sees every row (the paper's first checkpoint is of one epoch)."""
    batch_rows: int = 64
    """Rows between two steps; at most a tenth of those that are tuned on."""
    rank: int = 16
    """Rank of the LoRA factors; alpha is twice it."""
    max_tokens: int = 2048
    """Tokens of a conversation that are read and learned; context is cut before answers."""
    remote_code: bool = False
    """Let code that comes with the encoder run."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def __post_init__(self) -> None:
        """Refuse options that mean nothing before hours are spent."""
        for name in ("iterations", "max_new_tokens", "batch_rows", "rank", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} asked of kmq_iterative; give 1 or more")
        if self.reward is not None and self.judge is not None:
            raise ValueError("a reward model and a judge were asked to score; give one of them")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor {self.floor} asked of kmq_iterative; give a share of an equal weight, 0 to 1")

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """A round for each part of the budget."""
        cluster_rng, draw_rng, seed_rng = rng.spawn(3)
        seed, parts = int(seed_rng.integers(2**31)), self._parts(budget)
        scorer, score = scorer_of(self, lab)
        quality = named_score(self.quality, pool, lab, model=self.model, template=self.template)
        pick = self._pick(quality)
        cells = self._cells(pool, self.rows_a_round or parts[0].rows, lab, cluster_rng)
        weights: Float[np.ndarray, " c"] = np.full(len(cells), 1 / len(cells))  # w^0
        gap = np.full(len(pool), np.nan, np.float32)
        chosen, tuned = Selection.of([]), None
        for number, part in enumerate(parts):
            own_rng = draw_rng.spawn(1)[0] if number else draw_rng
            before = chosen
            chosen = part.fill(partial(grown, before, cells, weights, pick), own_rng)
            last = number + 1 == len(parts)
            if self.final_model or not last:
                tuned = self._tuned(pool, chosen.rows if self.restart else chosen.rows[len(before) :], lab, seed, tuned)
            said = {"weight": weights}
            notes: dict[str, Any] = {"quality": self.quality, "scorer": scorer}
            if not last and tuned is not None:
                rows = np.sort(chosen.rows)
                found = gaps(self, score, pool, rows, tuned, lab)
                gap[rows] = found.values
                told, weights = self._next(weights, found.values, cells.cell[rows])
                said, notes = said | told, notes | dict(found.notes)
            columns = {self.quality: quality, "gap": gap.copy()}
            model = tuned if self.final_model or not last else None
            yield Round(chosen, model=model, partition=cells, columns=columns, cells=said, notes=notes)

    def _parts(self, budget: Budget) -> tuple[Budget, ...]:
        """The budgets of the rounds; of a few rows, a round each."""
        count = max(1, min(self.iterations, budget.rows))
        if self.rows_a_round is None and count < self.iterations:
            log.warning("%d rows: %d rounds, not %d", budget.rows, count, self.iterations)
        return budget.rounds(count, self.rows_a_round)

    def _pick(self, quality: Float[np.ndarray, " n"]) -> Pick:
        """The draw within a cell."""
        if self.draw == "softmax":
            log_weights = softmax_weights(quality, temperature=self.temperature)
        else:
            log_weights = linear_weights(quality)
        return lambda rows, quota, rng: drawn(log_weights[rows], quota, rng=rng)  # Eq. 3

    def _cells(self, pool: Pool, first: int, lab: Lab, rng: np.random.Generator) -> Partition:
        """The cells; how many is settled by the rows of the `first` round, so that a larger budget has the same."""
        x = lab.features(Embedding(self.embedder, remote_code=self.remote_code), pool).array()
        grid = powers_of_two(len(pool), first) if self.clusters is None else (self.clusters,)
        return lab.keep(choose_k, x, rng, grid=grid)

    def _tuned(self, pool: Pool, rows: Int64[np.ndarray, " m"], lab: Lab, seed: int, before: Tuned | None) -> Tuned:
        """The model of a round: afresh, or from the one before on; that one where there are no rows to go on with."""
        if before is not None and not len(rows):
            return before
        start = None if self.restart or before is None else adapter_of(before)
        batch_rows = min(self.batch_rows, max(1, len(rows) // 10))
        return tuned_on(replace(round_tuning(self), batch_rows=batch_rows, start=start), pool, rows, lab, seed)

    def _next(
        self, weights: Float[np.ndarray, " c"], values: Float[np.ndarray, " m"], cell: np.ndarray
    ) -> tuple[dict[str, np.ndarray], Float[np.ndarray, " c"]]:
        """What a round says of each cell, and the weights of the next."""
        count = len(weights)
        means = cell_means(values, cell, count)
        if self.weights == "softmax":
            after = softmax_of(cell_means(standardised(values), cell, count))
        else:
            after = carried_over(weights, means, floor=self.floor / count)  # Eq. 6
        measured = np.bincount(cell[~np.isnan(values)], minlength=count)
        return {"score": means, "measured": measured, "next_weight": after}, after
