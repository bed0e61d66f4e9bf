"""Count only tokens that the instruction changes, and trust scores that do not hang on the exact words (T-SHIRT).

Paper: Fu et al., "T-SHIRT: Token-Selective Hierarchical Data Selection for Instruction Tuning", NeurIPS 2025, arXiv
    2506.01317.
Needs: a small language model (`--select-model`; the paper's is GPT-2).
Costs: 60 forward passes over the pool, 30 of them over the answers alone; 4 bytes a token and pass on the disk.

1. 30 copies of every row with noise on the input embeddings; the loss of each answer token after the conversation and
   alone, and their difference.
2. Informative tokens: the half of the pool's tokens with the largest differences.
3. S-IFD of a copy: exp of the mean difference of its informative tokens. Its mean over copies says how good a row is,
   its standard deviation how much that hangs on the exact input.
4. Of the rows whose mean IFD is below 1, the 2k with the highest mean S-IFD; of these the k with the smallest
   deviation.

Notation: Delta_t -> the difference; gamma -> `ratio`; S-IFD -> `selective_ifd`; alpha -> `scale`.
Relations: `superfiltering` takes all tokens, of one reading.
Differs: the formulas are the authors' code's, as the paper's text was not at hand. The threshold is the quantile over
all tokens of all copies. Rows of a mean IFD of 1 and more come after all others, so that any budget is met. The model's
chat template stands for the authors' prompt; the noise follows from the row, so a row scores alike in any pool, but for
the threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.features import Ragged
from coretune.features.noisy_token_losses import NoisyTokenLosses
from coretune.pickers import top
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.scores.surprise import ifd_perplexity_ratio, selective_ifd, token_threshold
from coretune.selection import Budget, Selection, lift
from coretune.shapes import Float

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class TShirt:
    """Options of `t_shirt`."""

    model: str = "smollm2-135m"
    """The model that reads: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    ratio: float = 0.5
    """Share of all tokens that count as informative; the paper also takes 0.75."""
    copies: int = 30
    """How many blurred copies of a row are read."""
    scale: float = 5.0
    """How strong the noise is."""
    max_tokens: int | None = None
    """Tokens of a conversation that are read; context is cut before answers. None is 2,048, or the model's window."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: steady rows among the best."""
        given, alone = (
            lab.features(
                NoisyTokenLosses(
                    self.model, before, self.copies, self.scale, template=self.template, max_tokens=self.max_tokens
                ),
                pool,
            ).ragged()
            for before in ("conversation", "nothing")
        )
        plain, selective = ratios(given, alone, self.copies, self.ratio)
        mean, deviation = selective.mean(axis=1), selective.std(axis=1)
        misleads = plain.mean(axis=1) >= 1
        order = np.where(misleads, mean - 1e6, mean)

        def steady(k: int) -> Selection:
            best = top(order, min(len(pool), 2 * k)).rows
            return lift(top(-deviation[best] - 1e6 * misleads[best], k), best)

        chosen = budget.fill(lambda k, _: steady(k), rng)
        yield Round(
            chosen, columns={"selective_ifd": mean, "deviation": deviation, "ifd_perplexity": plain.mean(axis=1)}
        )


def ratios(
    given: Ragged, alone: Ragged, copies: int, ratio: float
) -> tuple[Float[np.ndarray, "n copies"], Float[np.ndarray, "n copies"]]:
    """IFD of all tokens and of the informative ones, of every row and copy; `given` and `alone` hold copies in turn."""
    sizes = np.diff(given.offsets) // copies
    offsets = np.concatenate([[0], np.cumsum(np.repeat(sizes, copies))])
    threshold = token_threshold(given.values - alone.values, ratio=ratio)
    some = selective_ifd(given.values, alone.values, offsets, threshold=threshold).score
    counts = np.maximum(np.diff(offsets), 1)
    means = [np.add.reduceat(np.append(each.values, 0.0), offsets[:-1]) / counts for each in (given, alone)]
    return ifd_perplexity_ratio(*means).reshape(-1, copies), some.reshape(-1, copies)
