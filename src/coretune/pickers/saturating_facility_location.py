"""Saturating facility location: picks such that every row has a pick like it, as far as it matters to a target."""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.distances import Cosines, Similarity, capped, rows_of
from coretune.pickers.facility_location import facility_location
from coretune.selection import Selection
from coretune.shapes import Float


def saturating_facility_location(
    x: Float[Any, "n d"] | Similarity, relevance: Float[np.ndarray, " m"], k: int, *, eta: float = 1.0
) -> Selection:
    """Greedy picks for f(A) = sum over rows i of min(max_{j in A} s_ij, `eta` relevance_i); ties to the lower row.

    The mutual information of facility location (FLMI, FL1MI) with a target: `relevance` `(m,)` is each row's highest
    similarity to a target item, in the unit of s. A row that has come to its limit asks for no more, so f soon stops to
    rise, and picks that add nothing follow from the lowest row on; `query_facility_location` does not saturate. With
    `eta` infinite f is that of `facility_location`. `x`: as for `facility_location`, rows or a similarity.

    This is facility location of min(s, eta relevance), of which it has gains, which never rise, weights, guarantee and
    costs. Raises `ValueError` where `k` is not from 0 to n, or a number is below 0 or not finite.

    Source: PRISM, Kothawade, Kaushal, Ramakrishnan, Bilmes and Iyer (2022), AAAI 36;
    `FacilityLocationMutualInformation` of submodlib.
    """
    if not eta >= 0:
        raise ValueError(f"eta {eta} asked; give 0 or more")
    source = x if isinstance(x, Similarity) else Cosines(rows_of(x))
    limits = np.asarray(relevance, dtype=np.float64)
    return facility_location(capped(source, eta * limits if eta < np.inf else np.full_like(limits, np.inf)), k)
