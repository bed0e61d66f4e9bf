"""Let the training itself say what to learn next: least certain rows, by the losses that its own steps compute (LEAD).

Paper: Lin et al., "LEAD: Iterative Data Selection for Efficient LLM Instruction Tuning", PVLDB 19(3), 2025,
    arXiv 2505.07437.
Needs: the model to be tuned.
Costs: before the loop a LoRA warm-up and three forward passes over the pool: the loss of every answer by the model as
    it comes, and by the warmed-up one after its conversation and alone. In the loop nothing but the tuning itself:
    "inference-free" says that of the loop, not of the whole.

1. Warm-up on random rows; IFD of every row with it; k-means of that one number gives difficulty clusters.
2. Stored utility (IDU) of a row: its loss by the model as it comes.
3. A round: EXP3 draws a cluster; each task in it gives the part `share` of its rows used fewer than `most_uses` times,
   those of the highest utility; the model learns them once.
4. The losses just seen, corrected for the steps since and smoothed, are their new utilities; the mean fall is the
   cluster's reward. Rounds go on until the distinct rows meet the budget.

Notation: dc -> `cell`; tc -> `task`; IDU -> `idu`; r -> `share`; gamma -> `exploration`; b -> `memory`; B -> budget.
Relations: one cluster, `share=1` and `memory=0` train the highest losses; `kmq_iterative` and `diverse_evol` tune anew.
Differs: the paper's text could not be read; formulas are those of its code and of a summary, the smoothing with b on
history is reconstructed (the code computes 1 - b and never uses it). The code does not run as it is: names are never
assigned, and its reward stays 0 and is divided by. It compares logits with labels at the same place; ours are shifted
by one. Its cos phi is of two norms, so always 1, and the correction vanishes; ours is of the last adapted layer's
gradients, with beta kept within 0 to 1. Its delta is a fall of losses, which may be negative under a root; ours is the
squared gradient norm, mean over a round's steps. The correction is that of plain descent at the current rate, AdamW's
steps are not. The code's IFD is 0 for rows above 1 or too long, which puts them with the easiest; ours stand apart, and
are drawn when no others are left. Its stop after 20 rounds would leave budgets unmet; ours goes on. The last round is
cut to the budget. Tasks by embeddings (`task=none`) are the paper's figure, by the data's source its code. Small pools:
min(clusters, rows // 39) clusters, warm-up on a tenth of the rows, `share` scaled so that 20 rounds suit the budget as
the paper's 0.015 suits its 2.5%.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.answer_loss import AnswerLoss
from coretune.methods._difficulty import Difficulty, difficulty, tasks_by_column, tasks_by_embedding
from coretune.methods._loop import adapter_of
from coretune.methods._warm_up import warm_up
from coretune.orders.lead import Lead as Order
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget, Selection
from coretune.shapes import Float32
from coretune.tuning import Tuned, Tuning

if TYPE_CHECKING:
    from coretune.lab import Lab

PAPERS = 0.015 * 20 / (7 * 0.025)  # share x rounds / (clusters x budget's part of the pool), as the code has them


@dataclass(frozen=True)
class Lead:
    """Options of `lead`; defaults are those of the authors' code."""

    model: str
    """The model that learns: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    clusters: int = 7
    """Difficulty clusters (K); fewer where one would have less than 39 rows."""
    task: str | None = "source"
    """The column that names a row's task; none clusters embeddings within each difficulty cluster."""
    embedder: str = "minilm"
    """The encoder behind tasks by embeddings."""
    share: float | None = None
    """The part of a task's rows that a round takes (r); none is 0.015 at the paper's budget, and scaled with it."""
    rounds_meant: int = 20
    """Rounds that the share is scaled for; there are as many as the budget takes."""
    most_uses: int = 4
    """A row is trained at most so often."""
    exploration: float = 0.1
    """EXP3's gamma: the chance that a cluster is drawn at random."""
    memory: float = 0.1
    """What the stored utility counts beside the one just seen (b)."""
    rank: int = 64
    """Rank of the LoRA factors, in all linear layers; alpha is 16."""
    learning_rate: float = 2e-5
    """The first learning rate; it is multiplied by 0.995 every 8 optimizer steps, without a warm-up."""
    batch_rows: int = 16
    """Rows of an optimizer step."""
    warmup_rows: int = 6000
    """Rows of the warm-up that difficulty is measured with, at most."""
    warmup_share: float = 0.1
    """The part of the pool that the warm-up may take at most."""
    keep_rounds: bool = False
    """Keep the weights after every round."""
    max_tokens: int = 3080
    """Tokens of a conversation that are read; context is cut before answers."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """The rounds of one tuning, told after it."""
        warm_rng, cell_rng, task_rng, seed_rng = rng.spawn(4)
        part = min(self.warmup_share, self.warmup_rows / len(pool))
        warm = warm_up(self._tuning(32, 4), part, pool, lab, warm_rng)
        read = AnswerLoss(self.model, template=self.template, max_tokens=self.max_tokens)
        hard = difficulty(replace(read, adapter=adapter_of(warm)), self.clusters, pool, lab, cell_rng)
        task = (
            tasks_by_column(pool, self.task)
            if self.task is not None
            else tasks_by_embedding(self.embedder, hard.cells, pool, lab, task_rng)
        )
        losses = lab.features(read, pool).array()
        order = self._order(losses, hard, task, budget)
        tuning = replace(self._tuning(self.rank, 1), seed=int(seed_rng.integers(2**31)))
        tuned = lab.tune(tuning, pool, np.arange(len(pool)), order=order)
        notes = {"warm_up": warm.address, "share": order.share, "passes_before": 3, **hard.notes}
        learned = int((tuned.order["uses"] > 0).sum())
        if budget.tokens is None and learned < budget.rows:
            raise ValueError(
                f"budget {budget.asked!r} asks for {budget.rows} rows, but the tuning could learn {learned}; lower it"
            )
        yield from told(tuned, order, hard, notes)

    def _order(self, losses: Float32[np.ndarray, " n"], hard: Difficulty, task: np.ndarray, budget: Budget) -> Order:
        """The loop as the training follows it."""
        n, clusters = len(losses), max(1, int(hard.arm.max()) + 1)
        costs = budget.costs if budget.tokens is not None else None
        total, amount = (n, budget.rows) if costs is None else (int(costs.sum()), int(budget.tokens or 0))
        share = self.share or min(1.0, PAPERS * clusters * amount / total / self.rounds_meant)
        slack = 0 if costs is None else int(max(amount / 100, float(np.median(costs)) / 2))
        return Order(
            losses,
            hard.arm,
            task,
            amount,
            costs,
            slack,
            share=share,
            most_uses=self.most_uses,
            exploration=self.exploration,
            memory=self.memory,
            keep_rounds=self.keep_rounds,
        )

    def _tuning(self, rank: int, epochs: float) -> Tuning:
        """The authors' LoRA: the warm-up with rank 32, the loop with 64."""
        return Tuning(
            self.model,
            template=self.template,
            rank=rank,
            alpha=16.0,
            dropout=0.1,
            learning_rate=self.learning_rate,
            warmup=0.03,
            batch_rows=self.batch_rows,
            epochs=epochs,
            average="rows",
            max_tokens=self.max_tokens,
        )


def told(tuned: Tuned, order: Order, hard: Difficulty, notes: dict[str, object]) -> Iterator[Round]:
    """A `Round` for each round of the training; the last has the model, each where weights were kept."""
    said, idu, steps = tuned.order, order.losses.astype(np.float32), tuned.visits["step"]
    ends, apart = np.cumsum(said["round_rows"]), len(hard.cells) - said["round_weights"].shape[1]
    last, start = len(ends) - 1, 0
    for number, end in enumerate(ends.tolist()):
        trained = said["visit_row"][:end]
        idu[trained[start:]] = said["visit_idu"][start:end]
        chosen = trained[np.sort(np.unique(trained, return_index=True)[1])]  # in the order of their first visit
        uses = np.bincount(trained, minlength=len(idu)).astype(np.float32)
        drawn = hard.cells.cell[trained[start:]]
        cells = {
            "weight": np.append(said["round_weights"][number], [0.0] * apart),
            "probability": np.append(said["round_probabilities"][number], [0.0] * apart),
            "reward": np.where(np.arange(len(hard.cells)) == drawn[0], said["round_reward"][number], np.nan),
            "rows": np.bincount(drawn, minlength=len(hard.cells)),
        }
        kept = tuned.checkpoints[: number + 1]
        yield Round(
            Selection.of(chosen, order.losses[chosen]),
            model=tuned
            if number == last
            else replace(tuned, path=kept[-1].path, checkpoints=kept)
            if order.keep_rounds
            else None,
            partition=hard.cells,
            columns={"idu": idu.copy(), "ifd": hard.ifd, "uses": uses},
            cells=cells,
            schedule={"row": trained, "step": steps[:end], "idu": said["visit_idu"][:end]},
            notes={**notes, "correction": float(said["round_change"][number])},
        )
        start = end
