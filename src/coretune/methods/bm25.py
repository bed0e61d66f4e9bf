"""Take the rows whose words match examples of a target task best (BM25).

Paper: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; as a selector: Xia et
    al., LESS, ICML 2024, arXiv 2402.04333, and Ivison et al., 2025, arXiv 2503.01807.
Needs: examples of the target task (`--target`). No model.
Costs: one pass over the text.

1. Every row of the pool is a document, every target example a query: its text, prompt and answer.
2. Every query in turn takes its best row that is not taken, until the budget is spent.

Notation: score(q, d) -> the columns `best_bm25` and `query`, a row's best query.
Relations: `rds` and `less` search by a model's states and by gradients; this is the control that they have to beat.
Differs: LESS takes the mean over the queries of a sub-task, and RDS+ turns; turns are taken here, as they serve every
query.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.knowledge import Knowledge, bm25_scores
from coretune.pickers import round_robin
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget
from coretune.shapes import Float32

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Bm25:
    """Options of `bm25`."""

    target: Pool
    """A file of examples of the target task."""
    queries: int = 500
    """At most so many target examples are queries, drawn at random; memory is 4 bytes a row and query."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: the queries' best rows, in turn."""
        asked = self.target
        if len(asked) > self.queries:
            asked = asked.subset(np.sort(rng.choice(len(asked), self.queries, replace=False)))
        scores = lab.keep(matches, pool, asked)
        chosen = budget.fill(lambda k, _: round_robin(scores, k), rng)
        columns = {"best_bm25": scores.max(axis=1), "query": scores.argmax(axis=1).astype(np.float32)}
        yield Round(chosen, columns=columns, notes={"queries": len(asked)})


def matches(pool: Pool, target: Pool) -> Float32[np.ndarray, "n q"]:
    """The BM25 score of every row for every target example."""
    documents, queries = Knowledge.from_pool(pool), Knowledge.from_pool(target)
    return np.stack(list(bm25_scores(documents.passages, queries.passages)), axis=1)
