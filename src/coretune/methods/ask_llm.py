"""Ask a model of every row whether it is worth learning from, and take the surest yes (Ask-LLM).

Paper: Sachdeva et al., "How to Train Data-Efficient LLMs", 2024, arXiv 2402.09668, section 3.1.
Needs: an instruction-tuned model, causal or encoder-decoder (`--select-model`; the paper's is Flan-T5 XL).
Costs: one forward pass over the pool.

1. A prompt shows the row between fences and asks, yes or no, whether it is a good example to learn from.
2. The score is the probability of yes among all tokens at the first place of the answer.
3. The highest scores; the paper takes the top, not a sample.

Notation: P(yes) -> `YesProbability`, as its logarithm.
Relations: `density` is the paper's other selector, for coverage; `select_it` asks for a rating in five wordings.
Differs: the paper chooses documents for pre-training and asks about that; here instruction and answer are shown and the
question is about tuning an assistant, which no published result speaks of (`ask_llm.question` takes another). All
one-token spellings of yes count. Top scores say nothing of diversity: near-copies of a good row all pass; `--dedup`
first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.yes_probability import USEFUL_DEMONSTRATION, YesProbability
from coretune.methods._screen import screened
from coretune.pickers import top
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget
from coretune.shapes import Float, Float32, Int64

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class AskLlm:
    """Options of `ask_llm`."""

    model: str
    """The model that is asked: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    question: str = USEFUL_DEMONSTRATION
    """What it is asked, with places: {prompt}, {answer} or {text}, and {fence} for lines that keep the row apart."""
    yes: tuple[str, ...] = ("yes",)
    """The words that count as yes, in every spelling that is one token."""
    no: tuple[str, ...] = ("no",)
    """The words that count as no; they are reported, not scored."""
    screen: str | None = None
    """A cheap score that says which rows are asked about at all: length, low_loss, a column of the data, ..."""
    screen_model: str | None = None
    """The model behind the cheap score, where it needs one."""
    keep: float = 0.2
    """The share of the rows that the cheap score lets through."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the surest yes."""
        screen_rng, fill_rng = rng.spawn(2)
        spec = YesProbability(self.model, question=self.question, yes=self.yes, no=self.no, template=self.template)
        found: Float32[np.ndarray, " n"] = np.full(len(pool), np.nan, np.float32)

        def costly(rows: Int64[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
            found[rows] = lab.features(spec, pool, rows).array()
            return np.asarray(found[rows])

        score, notes = screened(self, pool, budget, lab, screen_rng, costly)
        chosen = budget.fill(lambda k, _: top(score, k), fill_rng)
        yield Round(chosen, columns={"log_yes": found}, notes=notes)
