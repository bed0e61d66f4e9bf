"""Sketched gradients of conversations, at one or several checkpoints, as unit rows and their norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.features import Measured
from coretune.features._answers import Answers, answers_of
from coretune.features._batches import Batch, batches
from coretune.features._conversations import Conversations

NOT_FINITE = "gradient not finite, or zero"


@dataclass(frozen=True)
class Source:
    """A checkpoint: what it counts, and a function from a batch to the sketches of its rows, a tensor `(b, d)`."""

    weight: float
    gradients: Callable[[Batch, Answers], Any]


def unit_rows(sources: Sequence[Source], d: int, found: Conversations, batch_tokens: int, positions: int) -> Measured:
    """The direction and length of each row's gradient, or of the weighted mean of its directions at several sources."""
    sums = np.full((found.count, d), np.nan, dtype=np.float32)
    made = [
        (batch.pieces, _rows_of(sources, batch, answers_of(batch, found.masks, positions)))
        for batch in batches(found.ids, found.longest, batch_tokens, found.pad)
    ]
    for pieces, rows in made:  # only now, so that no device waits for its results to be fetched
        sums[found.rows[pieces]] = rows.cpu().numpy()
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(sums, axis=1)
    bad = ~(np.isfinite(norms) & (norms > 0))
    norms[bad] = np.nan
    marks = {**found.marks, NOT_FINITE: np.zeros(found.count, dtype=bool)}
    marks[NOT_FINITE][found.rows] = bad[found.rows]
    return Measured((sums / norms[:, None]).astype(np.float16), marks, {"norm": norms})


def _rows_of(sources: Sequence[Source], batch: Batch, answers: Answers) -> Any:
    """A tensor `(b, d)`: the gradient of each row of a batch that is no dummy, or the mean of its directions."""
    whole: Any = 0
    total = sum(source.weight for source in sources)
    for source in sources:
        rows = source.gradients(batch, answers)[: len(batch.pieces)]
        if len(sources) > 1:
            rows = rows * (source.weight / total / rows.norm(dim=1, keepdim=True))
        whole = whole + rows
    return whole
