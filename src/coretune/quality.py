"""Quality by name: the score that a quality-aware method is told to draw by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coretune.errors import Unmeasurable, nearest
from coretune.features.column import column
from coretune.features.length import Length
from coretune.pool import Pool
from coretune.shapes import Float32

if TYPE_CHECKING:
    from coretune.lab import Lab


def named_score(name: str, pool: Pool, lab: Lab) -> Float32[np.ndarray, " n"]:
    """The score called `name`, `(n,)`, higher is better: `length` (answer characters) or a numeric column of the data.

    Raises `ValueError`, naming the nearest, where there is no such score, and `Unmeasurable` for rows without a value.
    """
    if name == "length":
        return lab.features(Length("answer"), pool).array()
    known = ("length", *pool.fields)
    if name not in known:
        raise ValueError(f"no score {name!r}{nearest(name, known)} Known here: {', '.join(known)}")
    values = column(pool, name)
    missing = np.flatnonzero(~np.isfinite(values))
    if len(missing):
        raise Unmeasurable(missing, f"no number in column {name}", pool)
    return values
