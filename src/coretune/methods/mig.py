"""Take the rows that add most information to a graph of labels, good rows adding more, known labels less (MIG).

Paper: Chen et al., "MIG: Automatic Data Selection for Instruction Tuning by Maximizing Information Gain in Semantic
    Space", Findings of ACL 2025, arXiv 2504.13835.
Needs: labels: a judge (`--mig.judge.url`, `--mig.judge.model`) or a column of the data (`--mig.tags`); a quality by
    name, the paper's is DEITA's score; an encoder.
Costs: with a judge, one request a row; what the quality costs; an encoder pass over the labels.

1. Labels of every row; an edge between labels whose embeddings have a cosine of at least 0.9.
2. A row puts its quality on each of its labels; a part of it spreads to their neighbours.
3. The information of a choice is the sum over labels of what has reached them, to the power of 0.8.
4. Greedily the row that adds most.

Notation: v_i, s_i -> labels, `quality`; A -> `propagation`; phi -> the power; T -> `threshold`.
Relations: `instag` counts labels alone; `qdit` covers embeddings in place of labels.
Differs: the paper's labels are 4,531 tags of InsTag's tagger, embedded by E5-Mistral; here those of a judge or a
column, in plain form, embedded by `embedder`. Parts that spread add up to 1 for every label, as in the paper; the
authors' code divides by what arrives (`spread=receiver`), which loses and makes information.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from coretune.features.embedding import Embedding
from coretune.judge import Judge
from coretune.knowledge import Knowledge
from coretune.methods._labels import labelled
from coretune.pickers import LabelGraph, mig, propagation, propagation_by_receiver, similar_labels
from coretune.pool import Pool
from coretune.quality import named_score
from coretune.rounds import Round
from coretune.selection import Budget

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Mig:
    """Options of `mig`."""

    quality: str
    """What makes a row good, from 0: length, ifd, a column of the data (such as a run of deita's), ..."""
    judge: Judge | None = None
    """Who names the labels."""
    tags: str | None = None
    """A column of the data that holds them: a JSON list, or words between commas."""
    least: int = 1
    """Labels of fewer rows are dropped."""
    embedder: str = "minilm"
    """The encoder of the labels."""
    threshold: float = 0.9
    """Labels are neighbours from this cosine on."""
    spread: Literal["sender", "receiver"] = "sender"
    """What the parts that spread are divided by: what a label sends, or what arrives."""
    model: str | None = None
    """The model behind the quality, where it needs one."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: rows that add most information."""
        quality = named_score(self.quality, pool, lab, model=self.model, template=self.template)
        found = labelled(pool, lab, self.judge, self.tags, self.least)
        graph = LabelGraph.of(np.zeros((0, 0)))
        if found.names:
            x = lab.features(Embedding(self.embedder, text="prompt"), Knowledge.of(found.names).pool).array()
            graph = similar_labels(x, threshold=self.threshold)
        shares = (propagation if self.spread == "sender" else propagation_by_receiver)(graph)
        chosen = budget.fill(lambda k, _: mig(found.labels, found.offsets, quality, k, shares=shares), rng)
        columns = {self.quality: quality, "labels": np.diff(found.offsets).astype(np.float32)}
        notes = {"different_labels": len(found.names), "edges": len(graph.others) - len(found.names)}
        yield Round(chosen, columns=columns, notes=notes)
