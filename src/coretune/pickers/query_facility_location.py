"""Query facility location: picks that are like some target item, such that every target item has a pick like it."""

from __future__ import annotations

import numpy as np

from coretune.distances import Similarity, blocks, weighted
from coretune.pickers.serving import PRODUCTS, Serving
from coretune.selection import Selection
from coretune.shapes import Float


def query_facility_location(
    similarity: Similarity, k: int, *, eta: float = 1.0, weights: Float[np.ndarray, " m"] | None = None
) -> Selection:
    """Greedy picks for f(A) = sum_q w_q max_{j in A} s_qj + `eta` sum_{j in A} max_q s_qj; ties to the lower row.

    The variant of facility location's mutual information whose sums run over target and picks alone (FLQMI, FL2MI):
    rows of `similarity` `(m, n)` are target items q, candidates are rows of the pool. `weights` `(m,)`: how many items
    each target item stands for in the first sum, 1 by default. The second sum never saturates: when every item is
    served as well as can be, candidates most like some item follow. With `eta` 0, it is `facility_location`.

    Gains are what each pick adds to f, and fall; f is at least 1 - 1/e of the largest possible. All is counted in whole
    steps. Time and memory: as `facility_location`. Raises `ValueError` where `k` is not from 0 to n, or `eta` or a
    weight is below 0 or not finite.

    Source: PRISM, Kothawade, Kaushal, Ramakrishnan, Bilmes and Iyer (2022), AAAI 36;
    `FacilityLocationVariantMutualInformation` of submodlib.
    """
    if not 0 <= k <= similarity.n:
        raise ValueError(f"{k} rows asked of {similarity.n}")
    if not 0 <= eta < np.inf:
        raise ValueError(f"eta {eta} asked; give 0 or more")
    served = similarity if weights is None else weighted(similarity, weights)
    own = np.rint(highest(similarity) * (eta * similarity.step / served.step))
    serving = Serving(served)
    gains: list[float] = []
    while len(gains) < k:
        adds = serving.adds + own
        winner = int(adds.argmax())
        gains.append(float(adds[winner]) * served.step)
        serving.pick(winner)
    return Selection.of(serving.best.picks, np.array(gains))


def highest(similarity: Similarity) -> Float[np.ndarray, " n"]:
    """Of every candidate to any row, in steps."""
    found = np.zeros(similarity.n)
    for place in blocks(similarity.m, max(1, PRODUCTS // similarity.n)):
        np.maximum(found, similarity.between(place, slice(None)).max(axis=0), out=found)
    return found
