"""Let the model choose its next rows itself: those farthest, in its own space, from the rows it has (DiverseEvol).

Paper: Wu et al., "Self-Evolved Diverse Data Sampling for Efficient Instruction Tuning", 2023, arXiv 2311.08182.
Needs: a language model, which is tuned.
Costs: a tuning from scratch a round, on all rows so far, and a forward pass over the pool each but the last; besides,
    the untuned model reads the chosen rows once.

1. P_0: rows drawn at random. Tune M_0 on them.
2. The mean over all tokens of M_t's last hidden states, prompt and answer, is the vector of a row.
3. k-center: again and again the row farthest from its nearest chosen row, those of P_t and the new ones. They and P_t
   are P_{t+1}.
4. Tune M_{t+1} on P_{t+1}, from the base model again; go on at 2.

Notation: P_t -> `selection` of round t; M_t -> `model`; T -> `iterations`; E_t -> `x`; Delta -> Euclidean distance.
Relations: with a model that learns nothing, all rounds are one run of `k_center` that goes on from P_0.
Differs: LoRA where the authors tune all weights, with ten times their learning rate, as is usual. The budget is shared
equally between P_0, of at most 100 rows, and the other rounds, 1,100 rows as the authors do; a round has 10 rows or
more, in a small budget so many fewer rounds, but one beyond P_0 at least. A batch has at most 64% of a round's rows, as
64 of the authors' first 100. Long conversations lose their beginning before their answer, where the authors cut the
end. The authors set no seed. `final_model` trains M_T, which chooses nothing, as they do. Their baselines by
uncertainty (mean top logit, margin, entropy over prompt and answer) are left out. The paper's equations and tables were
known from its code and summaries only. `vendi` in the notes is the Vendi score of the base model's vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from coretune.distances import centred, nearest, rows_of
from coretune.features.mean_states import MeanStates
from coretune.methods._loop import adapter_of, round_tuning, tuned_on
from coretune.pickers import k_center, uniform
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.scores.vendi import vendi
from coretune.scores.whitening import whitened
from coretune.selection import Budget, Selection, union
from coretune.shapes import Float, Float32, Int64
from coretune.tuning import Tuned, Tuning

if TYPE_CHECKING:
    from coretune.lab import Lab

log = logging.getLogger(__name__)

FIRST, FEWEST = 100, 10  # rows of P_0 at most, rows of a round at least, unless told otherwise
AT_ONCE = 0.64  # share of a round's rows in a batch, at most: the authors' 64 of their first 100


@dataclass(frozen=True)
class DiverseEvol:
    """Options of `diverse_evol`."""

    model: str
    """The model that is tuned and chooses: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    iterations: int = 10
    """How often the model chooses; fewer times where that would be less than 10 rows each."""
    rows_a_round: int | None = None
    """Rows that it chooses at a time, as often as it takes; none shares the budget among `iterations`."""
    first: int | None = None
    """Rows drawn at random before; none is 100, or as many as are chosen at a time where that is less."""
    normalize: bool = False
    """Scale vectors to length 1, so that angles alone count."""
    whiten: int | None = None
    """Whiten vectors to so many principal components, and scale them to length 1; none leaves them."""
    final_model: bool = True
    """Tune on all rows at the end too, for the model itself: the longest of the tunings, which chooses nothing."""
    learning_rate: float = 2e-4
    """The highest learning rate of the tunings, reached after 3% of the steps; then down in a half wave."""
    epochs: float = 3.0
    """How often a tuning sees every row."""
    batch_rows: int = 64
    """Rows between two steps; at most 64% of the rows so far."""
    rank: int = 16
    """Rank of the LoRA factors; alpha is twice it."""
    max_tokens: int = 512
    """Tokens of a conversation that are read and learned; context is cut before answers."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """A round for P_0, and one for each time that the model chooses."""
        draw_rng, seed_rng = rng.spawn(2)
        seed, parts = int(seed_rng.integers(2**31)), self._parts(budget)
        chosen, tuned = Selection.of([]), None
        for t, part in enumerate(parts):
            columns, notes, before = {}, {}, len(chosen)
            if t == 0:
                drawn = part.fill(lambda k, rng: uniform(len(pool), k, rng=rng), draw_rng)
                chosen = Selection.of(drawn.rows)  # the noise that drew them is no radius
            else:
                x = self._vectors(tuned, pool, lab)
                chosen = part.fill(_farther(x, chosen), rng)
                columns["distance"] = _distances(x, chosen.rows)
                notes["radius"] = float(columns["distance"].max())
            tuned = None
            if self.final_model or t + 1 < len(parts):
                tuned_seed = int(np.random.default_rng([seed, t]).integers(2**31))
                tuned = tuned_on(self._tuning(len(chosen)), pool, chosen.rows, lab, tuned_seed)
            base = lab.features(self._states(None), pool, chosen.rows).array()
            notes |= {"vendi": vendi(base), "vendi_of_the_round": vendi(base[before:])}
            yield Round(chosen, model=tuned, columns=columns, notes=notes)

    def _parts(self, budget: Budget) -> tuple[Budget, ...]:
        """The budgets of P_0, P_1, ...: equal steps, but for a P_0 of its own size."""
        if self.iterations < 1 or (self.first is not None and self.first < 1):
            raise ValueError(f"iterations {self.iterations} and first {self.first} asked; give 1 or more")
        count = max(1, min(self.iterations, (budget.rows - (self.first or FEWEST)) // FEWEST))
        if self.rows_a_round is None and count < self.iterations:
            log.warning("%d rows: the model chooses in %d rounds, not %d", budget.rows, count, self.iterations)
        head = budget.rounds(min(count + 1, budget.rows), self.rows_a_round)[0]
        if self.first is not None or (self.rows_a_round or head.rows) > FIRST:
            head = budget.rounds(1, self.first or FIRST)[0]
        left = _plus(budget, head, -1)
        if not (left.rows if left.tokens is None else left.tokens):
            log.warning("all %d rows are drawn at random: the budget leaves none for the model to choose", head.rows)
            return (head,)
        return (head, *(_plus(each, head) for each in left.rounds(count, self.rows_a_round)))

    def _tuning(self, k: int) -> Tuning:
        """The tuning on `k` rows."""
        batch_rows = min(self.batch_rows, max(1, round(AT_ONCE * k)))
        return replace(round_tuning(self, schedule="cosine"), batch_rows=batch_rows)

    def _states(self, tuned: Tuned | None) -> MeanStates:
        """The measurement by a tuned model, or the base model's."""
        adapter = None if tuned is None else adapter_of(tuned)
        return MeanStates(self.model, adapter, self.normalize, template=self.template, max_tokens=self.max_tokens)

    def _vectors(self, tuned: Tuned | None, pool: Pool, lab: Lab) -> Float[np.ndarray, "n d"]:
        """E_t: every row's vector by a tuned model."""
        x = lab.features(self._states(tuned), pool).array()
        return x if self.whiten is None else lab.keep(whitened, x, self.whiten)


def _plus(one: Budget, other: Budget, sign: int = 1) -> Budget:
    """A budget with another added, or taken away."""
    tokens = None if one.tokens is None or other.tokens is None else one.tokens + sign * other.tokens
    return replace(one, rows=one.rows + sign * other.rows, tokens=tokens)


def _farther(x: Float[np.ndarray, "n d"], earlier: Selection) -> Callable[[int, np.random.Generator], Selection]:
    """What gives `earlier` and then, up to `k` rows in all, those farthest from all before them."""
    made = Selection.of([])

    def choose(k: int, _: np.random.Generator) -> Selection:
        nonlocal made
        more = k - len(earlier)
        if more > len(made):
            made = k_center(x, more, chosen=earlier.rows)
        return earlier.head(k) if more <= 0 else union([earlier, made.head(more)])

    return choose


def _distances(x: Float[np.ndarray, "n d"], chosen: Int64[np.ndarray, " k"]) -> Float32[np.ndarray, " n"]:
    """Every row's distance to the nearest that is chosen."""
    rows = rows_of(x)
    _, squared = nearest(rows, rows.take(chosen), *centred(rows))
    return np.asarray(np.sqrt(squared), dtype=np.float32)
