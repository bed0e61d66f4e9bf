"""Take the rows whose instruction helps the model least to predict the answer (IFD, "Cherry" data).

Paper: Li et al., "From Quantity to Quality: Boosting LLM Performance with Self-Guided Data Selection for Instruction
    Tuning", NAACL 2024, arXiv 2308.12032.
Needs: the model to be tuned, or a smaller one (`--select-model`).
Costs: an embedding pass and a brief tuning on about 1,000 rows, then two forward passes over the pool, one of them over
    the answers alone.

1. Brief experience: k-means of the instructions into 100 clusters, 10 rows of each at middling distances from its
   centre, and one epoch of tuning on them.
2. Loss of every answer after its instruction, and of the answer alone, by that model.
3. The score is the ratio of the two losses; rows above 1, where the instruction misleads, come last.
4. The highest scores.

Notation: IFD -> `ifd_loss_ratio`; s_theta(A|Q), s_theta(A) -> `AnswerLoss` after the conversation, after nothing.
Relations: `superfiltering` divides perplexities instead, which orders rows otherwise, with a small model as it comes.
Differs: the authors tune all weights at a rate of 2e-5; here a LoRA adapter at 2e-4 learns from the same rows
(`experience=0` leaves that out, as their later versions do). Their code drops rows above 1; here they come after all
others, so that any budget is met. Their prompt is replaced by the model's chat template, and an answer alone follows
the beginning-of-sequence token. Small pools: clusters = min(100, n // 100) and at least 1, 10 rows of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.cascade import refuse_odd_share
from coretune.features.answer_loss import AnswerLoss
from coretune.features.embedding import Embedding
from coretune.features.lora_gradient import AdapterAt
from coretune.methods._screen import screened
from coretune.partitions import kmeans
from coretune.pickers import top
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.scores.surprise import ifd_loss_ratio, misleading_last
from coretune.selection import Budget
from coretune.shapes import Float, Float32, Int64
from coretune.tuning import Tuning

if TYPE_CHECKING:
    from coretune.lab import Lab

PER_CLUSTER = 10
MIDDLING = (25, 75)  # percentiles of the distance from the centre


@dataclass(frozen=True)
class Ifd:
    """Options of `ifd`."""

    model: str
    """The model that reads: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    experience: int = 100
    """Clusters of instructions that the brief tuning takes its rows from; 0 reads with the model as it comes."""
    embedder: str | None = None
    """What the instructions are clustered by; none is the model itself."""
    screen: str | None = None
    """A cheap score that says which rows are read at all: length, low_loss, a column of the data, ..."""
    screen_model: str | None = None
    """The model behind the cheap score, where it needs one."""
    keep: float = 0.2
    """The share of the rows that the cheap score lets through."""
    max_tokens: int | None = None
    """Tokens of a conversation that are read; context is cut before answers. None is 2,048, or the model's window."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the highest ratios."""
        refuse_odd_share(self.keep)  # before anything is spent
        tune_rng, screen_rng, fill_rng = rng.spawn(3)
        adapter = self._experienced(pool, lab, tune_rng) if self.experience else None
        found: Float32[np.ndarray, " n"] = np.full(len(pool), np.nan, np.float32)

        def costly(rows: Int64[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
            given, alone = (
                lab.features(
                    AnswerLoss(self.model, before, adapter=adapter, template=self.template, max_tokens=self.max_tokens),
                    pool,
                    rows,
                ).array()
                for before in ("conversation", "nothing")
            )
            found[rows] = ifd_loss_ratio(given, alone)
            return misleading_last(found[rows])

        score, notes = screened(self, pool, budget, lab, screen_rng, costly)
        chosen = budget.fill(lambda k, _: top(score, k), fill_rng)
        yield Round(chosen, columns={"ifd": found}, notes=notes)

    def _experienced(self, pool: Pool, lab: Lab, rng: np.random.Generator) -> AdapterAt:
        """The adapter of the brief tuning."""
        x = lab.features(Embedding(self.embedder or self.model, text="prompt"), pool).array()
        clusters = min(self.experience, max(1, len(pool) // 100))
        cells = lab.keep(kmeans, x, clusters, rng)
        centers = cells.centers
        assert centers is not None
        away = np.linalg.norm(x - centers[cells.cell], axis=1)
        chosen = []
        for cell in range(clusters):
            rows = cells.members(cell)
            low, high = np.percentile(away[rows], MIDDLING)
            between = rows[(away[rows] >= low) & (away[rows] <= high)]
            chosen.append(rng.permutation(between)[:PER_CLUSTER])
        rows = np.sort(np.concatenate(chosen))
        tuning = Tuning(
            self.model,
            template=self.template,
            learning_rate=2e-4,
            batch_rows=min(128, max(1, len(rows) // 10)),
            epochs=1,
            max_tokens=self.max_tokens,
            seed=int(rng.integers(2**31)),
        )
        last = lab.tune(tuning, pool, rows).checkpoints[-1]
        return AdapterAt(last.digest, str(last.path))
