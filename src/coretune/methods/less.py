"""Take the rows whose gradients, in Adam's direction, point at the gradients of a target task (LESS).

Paper: Xia et al., "LESS: Selecting Influential Data for Targeted Instruction Tuning", ICML 2024, arXiv 2402.04333.
Needs: examples of the target task (`--target`), and the model to be tuned, or a smaller one (`--select-model`).
Costs: a LoRA warm-up of 4 epochs on 5% of the pool, and 4 forward and backward passes over pool and target.

1. LoRA warm-up on a random 5% of the pool, 4 epochs, a checkpoint after each.
2. At each checkpoint: every pool row's gradient in Adam's direction, every target row's plain gradient, both sketched
   to 8192 numbers and scaled to length 1.
3. Influence on a sub-task: mean cosine with its rows, summed over checkpoints with weights in proportion to their
   learning rates. A row's score is its influence on the sub-task that it helps most.
4. The rows with the highest scores.

Notation: Gamma -> a gradient in Adam's direction; eta_i -> `Checkpoint.learning_rate`; D_val^(j) -> sub-task j.
Relations: `tagcos` takes the same gradients without a target.
Differs: as the authors' code, whose Adam keeps its epsilon inside the root and does not correct bias (`direction=adam`
is textbook Adam), and whose schedule is linear where the paper says cosine. A count sketch of equal variance stands for
the +-1 matrix. Batches are at most a tenth of the warm-up's rows. `pick=round_robin` gives every sub-task its turn, as
RDS+ does, where the maximum may serve one sub-task alone. Published results are means of 3 trials, each with a seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from coretune.features.lora_gradient import AdapterAt
from coretune.methods._warm_up import ATTENTION, authors_tuning, gradient, warm_up
from coretune.pickers import round_robin, top
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.scores.influence import influence, task_means
from coretune.selection import Budget
from coretune.tuning import Tuning

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Less:
    """Options of `less`."""

    model: str
    """The model whose gradients are taken: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    target: Pool
    """A file of examples of the target task."""
    subtask: str = "source"
    """The column of the target file that names an example's sub-task; by default the file it comes from."""
    pick: Literal["best_subtask", "round_robin"] = "best_subtask"
    """The highest influence on any sub-task, or sub-tasks taking turns."""
    direction: Literal["less", "adam", "none"] = "less"
    """What a pool row's gradient becomes: the authors' Adam (epsilon inside the root), textbook Adam, or neither."""
    width: int = 8192
    """Numbers a gradient is sketched to."""
    warmup_share: float = 0.05
    """Share of the pool that the warm-up trains on."""
    rank: int = 128
    """Rank of the warm-up's LoRA factors; alpha is four times it."""
    targets: tuple[str, ...] = ATTENTION
    """The linear layers that get LoRA factors, by the end of their names, or all-linear alone."""
    max_tokens: int = 2048
    """Tokens of a conversation that are read; context is cut before answers."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the rows of most influence."""
        names, task = np.unique(self.target.column(self.subtask).astype(str), return_inverse=True)
        tuned = warm_up(self._tuning(), self.warmup_share, pool, lab, rng)
        rates = np.array([each.learning_rate for each in tuned.checkpoints])
        total = np.zeros((len(pool), len(names)), np.float32)
        for checkpoint, weight in zip(tuned.checkpoints, rates / rates.sum(), strict=True):
            at = (AdapterAt(checkpoint.digest, str(checkpoint.path)),)
            wanted = lab.features(gradient(self, at, "none"), self.target).array()
            gradients = lab.features(gradient(self, at, self.direction), pool)
            total += weight * influence(gradients.blocks(), task_means(wanted, task))
        score = total.max(axis=1)
        chosen = budget.fill(
            lambda k, _: top(score, k) if self.pick == "best_subtask" else round_robin(total, k),
            rng,
        )
        columns = {"influence": score, "subtask": total.argmax(axis=1).astype(np.float32)}
        yield Round(
            chosen, columns=columns, notes={"warm_up": tuned.address, "subtasks": [str(name) for name in names]}
        )

    def _tuning(self) -> Tuning:
        """The warm-up: a checkpoint an epoch."""
        return replace(authors_tuning(self), checkpoints=(0.25, 0.5, 0.75, 1.0))
