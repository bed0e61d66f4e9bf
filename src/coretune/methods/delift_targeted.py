"""Take rows that, shown as a single example, help the model most with the answers of a target task (DELIFT, stage 2).

Paper: Agarwal et al., "DELIFT: Data Efficient Language model Instruction Fine-Tuning", ICLR 2025, arXiv 2411.04425.
Needs: examples of the target task (`--target`); the model to be tuned, or a smaller one; an encoder for the anchors.
Costs: one forward pass over every pair of a row and a target example: n x 100 answers. Said before it starts.

1. Target examples, or medoids of 100 clusters of them where there are more, each weighted by its cluster.
2. Utility of every row for each of their answers, and similarities, as in `delift`.
3. Greedy picks for the sum over target examples of their best similarity to a pick, plus eta times the sum over picks
   of their best similarity to a target example.

With `objective=saturating`, 2. has anchors of the pool as in `delift`, and target examples are shown to them too; 3. is
the sum over anchors of their best similarity to a pick, at most eta times that to a target example.

Notation: D_T -> `target`; FLMI, FL1MI -> `objective=saturating`; FLQMI, FL2MI -> `objective=query`; eta -> `eta`.
Relations: `delift` is without a target; `less` and `rds` compare gradients and states with a target.
Differs: notes on the paper write the second form's terms with a first sum over the pool, its code runs the first form
(eta 1 in both), which asks for nothing more once every row is as near to a pick as to the target; the default is the
form that does not saturate. The code shows target examples to pool rows; the default shows pool rows to target
examples, which is what is wanted of them. When picks add no more, saturating facility location begins anew among the
rest, and rows that help with nothing follow by mean utility. All else as in `delift`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from coretune.distances import Given, capped, weighted
from coretune.methods._in_context import Anchors, Gain, Kernel, refuse_nonsense, similarities, utilities, utility
from coretune.pickers import query_facility_location, repeated_facility_location
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget, Selection

if TYPE_CHECKING:
    from coretune.lab import Lab
    from coretune.methods._in_context import Utilities


@dataclass(frozen=True)
class DeliftTargeted:
    """Options of `delift_targeted`."""

    model: str
    """The model that reads: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    target: Pool
    """A file of examples of the target task."""
    objective: Literal["query", "saturating"] = "query"
    """What picks maximise: likeness to the target that never saturates, or cover of the pool as far as the target."""
    eta: float = 1.0
    """What relevance to the target counts."""
    anchors: int = 100
    """How many target examples, or with the saturating objective also rows of the pool, stand for all."""
    gain: Gain = "distance"
    """What a row changes in an answer: its distance to certainty, or its log-probability."""
    kernel: Kernel = "clip"
    """How utilities become similarities: negative ones are 0, or all are scaled to 0..1."""
    embedder: str | None = None
    """What the instructions are clustered by; none is the model itself."""
    screen: str | None = None
    """A cheap score that says which rows are tried at all: length, low_loss, a column of the data, ..."""
    screen_model: str | None = None
    """The model behind the cheap score, where it needs one."""
    keep: float = 0.2
    """The share of the rows that the cheap score lets through."""
    max_tokens: int | None = None
    """Tokens of row and anchor together that are read. None is 2,048, or the model's window."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: rows that help with the target."""
        refuse_nonsense(self)
        target_rng, anchor_rng, screen_rng, fill_rng = rng.spawn(4)
        items = Anchors.of(self, self.target, self.anchors, lab, target_rng)
        if self.objective == "query":
            found = utilities(self, items, pool, budget, lab, screen_rng)
            cover = self._query(items, found, pool)
        else:
            anchors = Anchors.of(self, pool, min(self.anchors, max(1, len(pool) // 10)), lab, anchor_rng)
            shown = utility(self, anchors, self.target, items.rows, lab)
            found = utilities(self, anchors, pool, budget, lab, screen_rng)
            cover = self._saturating(anchors, found, pool, (shown, self.target, items.rows))
        yield Round(found.fill(budget, fill_rng, cover), columns=found.columns, notes=found.notes)

    def _query(self, items: Anchors, found: Utilities, pool: Pool) -> Callable[[int], Selection]:
        (s,) = similarities(self, items, (found.table, pool, found.rows))
        return lambda k: query_facility_location(Given(s), k, eta=self.eta, weights=items.weights)

    def _saturating(
        self, anchors: Anchors, found: Utilities, pool: Pool, shown: tuple[np.ndarray, Pool, np.ndarray]
    ) -> Callable[[int], Selection]:
        s, to_target = similarities(self, anchors, (found.table, pool, found.rows), shown)
        source = weighted(capped(Given(s), self.eta * to_target.max(axis=1)), anchors.weights)
        return lambda k: repeated_facility_location(source, k)
