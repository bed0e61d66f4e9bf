"""Repeated facility location: every row has a pick like it, then another, and so on, where picks outnumber rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.distances import Neighbours, Similarity
from coretune.pickers.serving import Serving, compared
from coretune.selection import Selection
from coretune.shapes import Float


def repeated_facility_location(x: Float[Any, "n d"] | Similarity | Neighbours, k: int) -> Selection:
    """Picks of `facility_location` until no candidate adds anything, then of the same among the rest, and so on.

    For few rows to serve and many picks: once every row has its most similar candidate, plain greedy takes the lowest
    rows whatever they are. Here it begins anew, as if nothing were picked. Candidates at 0 with all rows come last,
    from the lowest row on. Up to the first beginning anew the picks are those of `facility_location`.

    Gains are what each pick adds to the sum over rows since the last beginning, and fall from one beginning to the
    next. The first k picks are those of k + 1. Costs: as `facility_location`, once a beginning. Raises `ValueError`
    where `k` is not from 0 to n or a value is not finite. Source: a choice of ours.
    """
    source = compared(x)
    if not 0 <= k <= source.n:
        raise ValueError(f"{k} rows asked of {source.n}")
    picks: list[int] = []
    gains: list[float] = []
    serving, fresh = Serving(source), True
    while len(picks) < k:
        winner = int(serving.adds.argmax())
        adds = float(serving.adds[winner])
        if adds == 0 and not fresh:
            serving, fresh = Serving(source), True
            serving.adds[picks] = -np.inf
            continue
        picks.append(winner)
        gains.append(adds * source.step)
        serving.pick(winner)
        fresh = adds == 0  # with nothing added to nothing there is nothing to begin anew
    return Selection.of(picks, np.array(gains))
