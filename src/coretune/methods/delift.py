"""Take rows that, shown as a single example, between them help the model most with the answers of all (DELIFT).

Paper: Agarwal et al., "DELIFT: Data Efficient Language model Instruction Fine-Tuning", ICLR 2025, arXiv 2411.04425.
Needs: the model to be tuned, or a smaller one (`--select-model`); an encoder for the anchors, by default the model.
Costs: one forward pass over every pair of a row and an anchor: n x 100 answers. Said before it starts.

1. Anchors: k-means of the instructions into 100 clusters, the row nearest each centre, weighted by its cluster's rows.
2. Distance of an anchor's answer to certainty: sqrt(mean over its tokens of (1 - p)^2), teacher-forced, as it stands
   and with a row as one worked example before it. Utility is by how much the row lowers it.
3. Similarity is the utility, 0 where it is negative.
4. Greedy facility location: the sum over anchors of weight times the best utility among the picks.

Notation: U_ij -> `utility`; s_ij -> `similarities`; d -> `DemonstrationDistance`; D -> the pool.
Relations: `delift_targeted` and `delift_continual` are its stages two and three; `nuggets` counts anchors that gain.
Differs: the paper compares all n x n pairs; anchors stand for the rows to be helped. When picks are so many that every
anchor has its best, facility location begins anew among the rest; rows that help with nothing follow by mean utility.
The authors' newest scorer generates text and reads the 15 likeliest tokens at each place, which drifts from the
reference; here it is forced, as in their `no_vllm` file. The paper's notes clip utilities; the code scales them to 0..1
by the lowest and highest (`kernel=min_max`); its `exponential` is left out. A row that is an anchor, or says the same,
gives that answer away: kept, as in the paper, but outside min-max's range. The row is an earlier exchange of the
model's chat template, where the authors write one prompt. Theirs cuts answers at 2,048 tokens; here a long row loses
its beginning, never an answer its end. `gain=log_probability` is the form of the paper's Theorem 1. The authors keep
30% of the data; the budget is the user's. The paper's formulas are known from notes and the authors' code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.distances import Given, weighted
from coretune.methods._in_context import Anchors, Gain, Kernel, refuse_nonsense, similarities, utilities
from coretune.pickers import repeated_facility_location
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Delift:
    """Options of `delift`."""

    model: str
    """The model that reads: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    anchors: int = 100
    """How many rows stand for the pool; at most a tenth of it."""
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
        """One round: rows that help with every part of the pool."""
        refuse_nonsense(self)
        anchor_rng, screen_rng, fill_rng = rng.spawn(3)
        anchors = Anchors.of(self, pool, min(self.anchors, max(1, len(pool) // 10)), lab, anchor_rng)
        found = utilities(self, anchors, pool, budget, lab, screen_rng)
        (s,) = similarities(self, anchors, (found.table, pool, found.rows))
        source = weighted(Given(s), anchors.weights)
        chosen = found.fill(budget, fill_rng, lambda k: repeated_facility_location(source, k))
        yield Round(chosen, columns=found.columns, notes=found.notes)
