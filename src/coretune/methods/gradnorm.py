"""Take the rows with the longest gradients early in training: those that would move the model most (GraNd).

Paper: Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet: Finding Important Examples Early in Training",
    NeurIPS 2021, arXiv 2107.07075.
Needs: the model to be tuned, or a smaller one (`--select-model`).
Costs: a LoRA warm-up a trial on 5% of the pool, and a forward and backward pass over the pool each.

1. A short LoRA warm-up on a random share of the pool.
2. The length of every row's gradient (of its mean loss over answer tokens) in the LoRA factors.
3. Its mean over trials, whose seeds draw other rows, factors and orders; the highest are taken.

Notation: chi_t(x, y), the expected gradient norm at time t -> `gradient_norm`.
Relations: `longest` is what remains of it where answers differ most by length; EL2N is this for the last layer of a
classifier.
Differs: the paper prunes images, takes all parameters' gradients and ten trials; here the LoRA factors' and, to save
passes, two. The norm is that of the sketch, whose square is unbiased with a relative error of sqrt(2 / width).
Reported to fail below half of the data, where it keeps the noisy rows: no recommendation, but a control.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.methods._warm_up import ATTENTION, early_gradients, refuse_nonsense
from coretune.pickers import top
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Gradnorm:
    """Options of `gradnorm`."""

    model: str
    """The model whose gradients are taken: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    trials: int = 2
    """Warm-ups over which the norm is averaged."""
    width: int = 512
    """Numbers a gradient is sketched to."""
    warmup_share: float = 0.05
    """Share of the pool that the warm-up trains on."""
    rank: int = 8
    """Rank of the warm-up's LoRA factors."""
    targets: tuple[str, ...] = ATTENTION
    """The linear layers that get LoRA factors, by the end of their names, or all-linear alone."""
    max_tokens: int = 2048
    """Tokens of a conversation that are read; context is cut before answers."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the rows with the longest gradients."""
        refuse_nonsense(self)
        norm = np.zeros(len(pool), np.float32)
        for trial_rng in rng.spawn(self.trials):
            norm += early_gradients(self, pool, lab, trial_rng)[0].numbers["norm"] / self.trials
        yield Round(budget.fill(lambda k, _: top(norm, k), rng), columns={"gradient_norm": norm})
