"""Take rows that, shown as a single example, help the model where what it has already learned does not (DELIFT, 3).

Paper: Agarwal et al., "DELIFT: Data Efficient Language model Instruction Fine-Tuning", ICLR 2025, arXiv 2411.04425.
Needs: the data learned already (`--delift_continual.existing`); the model to be tuned; an encoder for the anchors.
Costs: one forward pass over every pair of a row, or an existing example, and an anchor: (n + 200) x 100 answers.

1. Anchors of the pool, and utilities of its rows for their answers, as in `delift`.
2. The same of the existing examples, or of medoids of 200 clusters of them where there are more.
3. Greedy picks for the sum over anchors of weight times what the best pick is above nu times the best existing example.

Notation: D_E -> `existing`; FLCG -> `beyond` and facility location; nu -> `nu`.
Relations: `delift` is what is left where nothing was learned; `delift_targeted` looks for likeness instead.
Differs: the paper takes the best of all existing examples; medoids, where they stand for them, may miss it. When picks
add no more, it begins anew among the rest, and rows that help with nothing follow by mean utility. The command line
of the authors' scripts can read one data set for both. All else as in `delift`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.distances import Given, beyond, weighted
from coretune.methods._in_context import Anchors, Gain, Kernel, refuse_nonsense, similarities, utilities, utility
from coretune.pickers import repeated_facility_location
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class DeliftContinual:
    """Options of `delift_continual`."""

    model: str
    """The model that reads: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    existing: Pool
    """A file of the examples that were learned already."""
    nu: float = 1.0
    """How strictly what existing examples help with is left out."""
    anchors: int = 100
    """How many rows stand for the pool; at most a tenth of it."""
    representatives: int = 200
    """How many existing examples stand for all."""
    gain: Gain = "distance"
    """What a row changes in an anchor's answer: its distance to certainty, or its log-probability."""
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
        """One round: rows that help beyond what is known."""
        refuse_nonsense(self)
        anchor_rng, existing_rng, screen_rng, fill_rng = rng.spawn(4)
        anchors = Anchors.of(self, pool, min(self.anchors, max(1, len(pool) // 10)), lab, anchor_rng)
        known = Anchors.of(self, self.existing, self.representatives, lab, existing_rng)
        before = utility(self, anchors, self.existing, known.rows, lab)
        found = utilities(self, anchors, pool, budget, lab, screen_rng)
        shown = ((found.table, pool, found.rows), (before, self.existing, known.rows))
        s, to_known = similarities(self, anchors, *shown)
        source = weighted(beyond(Given(s), self.nu * to_known.max(axis=1)), anchors.weights)
        chosen = found.fill(budget, fill_rng, lambda k: repeated_facility_location(source, k))
        yield Round(chosen, columns=found.columns, notes=found.notes)
