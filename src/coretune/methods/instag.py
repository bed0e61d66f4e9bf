"""Take the rows with the most intentions that no row before them covered (#InsTag).

Paper: Lu et al., "#InsTag: Instruction Tagging for Analyzing Supervised Fine-tuning of Large Language Models", ICLR
    2024, arXiv 2308.07074.
Needs: tags: a judge behind an OpenAI-compatible endpoint (`--instag.judge.url`, `--instag.judge.model`), or a column of
    the data (`--instag.tags`).
Costs: with a judge, one request a row.

1. A judge names what every row asks for, in short phrases.
2. Tags in plain form; those of fewer than `least` rows are dropped.
3. Rows by their number of tags, most first. Going over them again and again, each row that adds a tag not covered in
   this sweep is taken, until the budget is spent.

Notation: complexity -> a row's number of tags; diversity -> tags covered.
Relations: `mig` spreads a quality score over tags and their neighbours; `k_center` covers embeddings.
Differs: the paper merges tags by frequency, embedding and association into 6,600 and trains a tagger on them; here only
form and frequency are normalised. Its least frequency is 20 in a pool of half a million; here one in 25,000 rows, at
least
1. That coverage begins anew when nothing more is added is known from a summary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.judge import Judge
from coretune.methods._labels import labelled
from coretune.pickers import tag_coverage
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget

if TYPE_CHECKING:
    from coretune.lab import Lab

ROWS = 25_000  # of the pool for each row that a tag must have


@dataclass(frozen=True)
class Instag:
    """Options of `instag`."""

    judge: Judge | None = None
    """Who names the tags."""
    tags: str | None = None
    """A column of the data that holds them: a JSON list, or words between commas."""
    least: int | None = None
    """Tags of fewer rows are dropped; none is one row in 25,000."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: rows that cover the tags."""
        found = labelled(pool, lab, self.judge, self.tags, self.least or max(1, len(pool) // ROWS))
        chosen = budget.fill(lambda k, _: tag_coverage(found.labels, found.offsets, k), rng)
        columns = {"tags": np.diff(found.offsets).astype(np.float32)}
        yield Round(chosen, columns=columns, notes={"different_tags": len(found.names)})
