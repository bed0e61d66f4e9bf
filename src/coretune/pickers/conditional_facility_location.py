"""Conditional facility location: picks such that every row has a pick like it, beyond what is there already."""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.distances import Cosines, Similarity, beyond, rows_of
from coretune.pickers.facility_location import facility_location
from coretune.selection import Selection
from coretune.shapes import Float


def conditional_facility_location(
    x: Float[Any, "n d"] | Similarity, known: Float[np.ndarray, " m"], k: int, *, nu: float = 1.0
) -> Selection:
    """Greedy picks for f(A) = sum over rows i of max(max_{j in A} s_ij - `nu` known_i, 0); ties to the lower row.

    The conditional gain of facility location (FLCG) given a set E: `known` `(m,)` is each row's highest similarity to E
    in the unit of s, 0 for an empty one, and f is then that of `facility_location`. `nu` above 1 asks for more than E's
    best before a row counts. `x`: as for `facility_location`, rows or a similarity.

    This is facility location of max(s - nu known, 0), of which it has gains, which never rise, weights, guarantee and
    costs. Raises `ValueError` where `k` is not from 0 to n, or a number is below 0 or not finite.

    Source: PRISM, Kothawade, Kaushal, Ramakrishnan, Bilmes and Iyer (2022), AAAI 36; `FacilityLocationConditionalGain`
    of submodlib.
    """
    if not 0 <= nu < np.inf:
        raise ValueError(f"nu {nu} asked; give 0 or more")
    source = x if isinstance(x, Similarity) else Cosines(rows_of(x))
    return facility_location(beyond(source, nu * np.asarray(known, dtype=np.float64)), k)
