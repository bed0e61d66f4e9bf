"""Prefer rows whose answers become likelier when trusted text on the matter is read first, and spread them (RECOST).

Paper: Zhang et al., "RECOST: External Knowledge Guided Data-efficient Instruction Tuning", Findings of ACL 2024, arXiv
    2402.17355.
Needs: a language model (the paper's is untuned), text to be trusted (`--recost.knowledge`; the shipped human-written
    instructions by default), an encoder.
Costs: two forward passes over the pool, one of them with up to 1,024 more tokens a row; an encoder pass over pool and
    knowledge. With `control`, a third forward pass.

1. For every row the three passages of the knowledge nearest its prompt; copies of the row and passages that hold its
   answer are left out, and counted.
2. Predictive entropy: the mean negative log-probability of the answer's tokens, without (H0) and with them (Hk).
3. Relative predictive entropy R = H0 - Hk: high where knowledge makes the answer more expected. Dirty answers have a
   high H0, which plain entropy prefers, and a low R.
4. Re-rank by the sum of two ranks: R from high to low, Hk from low to high.
5. Diversity-consistent sampling: from the 500 best left, 50 at a time, those farthest from all chosen.

Notation: H0, Hk, R -> `entropy`, `entropy_with_knowledge`, `relative_entropy`; n_k -> `passages`; W, g -> `window`,
`step`.
Relations: `perplexity` is H0 alone; `ifd` takes the instruction away where this adds knowledge.
Differs: the paper's text was not at hand. Confirmed by summaries: knowledge per row, an untuned model, two kinds of
entropy, re-ranking by two ranks, a sampler with a sliding window. Reconstructed: retrieval, the sign of R
(`relative=ratio` is the other form, Hk / H0 from low to high), the sum (`rank` takes either rank alone), window, step
and distance; `sampler=clusters` is the other reading of "diversity-consistent", the pool's own k-means clusters in
proportion. Small budgets: steps of at most a tenth of the budget, as 50 are of the paper's 520 rows.
`control` subtracts from R what the same length of random passages gains, the effect of format alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from coretune.features import ContextSpec
from coretune.features.answer_loss import AnswerLoss
from coretune.features.embedding import Embedding
from coretune.knowledge import Knowledge, RandomContext, Retrieved, indexed, shipped
from coretune.partitions import kmeans, proportional, within
from coretune.pickers import sliding_window, top
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.scores.surprise import rank_sum, relative_entropy, relative_entropy_share
from coretune.selection import Budget, Selection
from coretune.shapes import Float32

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Recost:
    """Options of `recost`."""

    model: str
    """The model that reads: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    knowledge: Knowledge | None = None
    """Files or folders of trusted text or instructions; none is the human-written set that comes with coretune."""
    passages: int = 3
    """How many passages are read before a row."""
    search: Literal["dense", "bm25", "both"] = "dense"
    """How they are found: by embedding, by words, or by both rankings together."""
    relative: Literal["difference", "ratio"] = "difference"
    """Relative predictive entropy as H0 - Hk, or Hk / H0."""
    rank: Literal["sum", "relative", "with_knowledge"] = "sum"
    """What rows are ranked by: both ranks, relative entropy alone, or entropy with knowledge alone."""
    sampler: Literal["window", "clusters"] = "window"
    """Sliding window over the ranking, or the best of every cluster of the pool."""
    step: int = 50
    """Rows that the sliding window takes at a time; at most a tenth of the budget."""
    window: int = 10
    """How many times as many it chooses among: 1 takes the best, many take the most distant."""
    control: bool = False
    """Subtract what random passages of the same length gain."""
    embedder: str = "minilm"
    """The encoder, for retrieval and diversity."""
    context_tokens: int = 1024
    """At most so many tokens of passages, in whole passages."""
    max_tokens: int | None = None
    """Tokens of passages and conversation that are read, context cut first. None is 2,048, or the model's window."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: rows that knowledge makes likelier, spread."""
        seed_rng, cluster_rng, fill_rng = rng.spawn(3)
        known = indexed(
            self.knowledge or shipped(),
            lab,
            by=("bm25", "dense") if self.search == "both" else (self.search,),
            embedder=self.embedder,
        )
        found = Retrieved(known, self.passages)
        without, given = self._losses(None, pool, lab), self._losses(found, pool, lab)
        relative = relative_entropy if self.relative == "difference" else relative_entropy_share
        gained = relative(without, given)
        columns = {"entropy": without, "entropy_with_knowledge": given}
        if self.control:
            by_chance = self._losses(RandomContext(found, int(seed_rng.integers(2**31))), pool, lab)
            columns["entropy_with_random_text"] = by_chance
            gained = gained - relative(without, by_chance)
        columns["relative_entropy"] = gained
        score = {
            "sum": lambda: rank_sum(gained, -given),
            "relative": lambda: gained,
            "with_knowledge": lambda: -given,
        }[self.rank]()
        x = lab.features(Embedding(self.embedder), pool).array()
        if self.sampler == "window":
            step = min(self.step, max(1, budget.rows // 10))
            width = self.window * step
            chosen = budget.fill(lambda k, _: sliding_window(score, x, k, step=step, window=width), fill_rng)
            yield Round(chosen, columns=columns, notes={"knowledge": known.digest})
            return
        cells = lab.keep(kmeans, x, max(1, min(100, budget.rows // 10)), cluster_rng)

        def best(k: int, rng: np.random.Generator) -> Selection:
            return within(cells, proportional(cells.sizes, k), lambda rows, quota, _: top(score[rows], quota), rng)

        chosen = budget.fill(best, fill_rng)
        yield Round(chosen, partition=cells, columns=columns, notes={"knowledge": known.digest})

    def _losses(self, context: ContextSpec | None, pool: Pool, lab: Lab) -> Float32[np.ndarray, " n"]:
        spec = AnswerLoss(
            self.model,
            context=context,
            context_tokens=self.context_tokens,
            template=self.template,
            max_tokens=self.max_tokens,
        )
        return lab.features(spec, pool).array()
