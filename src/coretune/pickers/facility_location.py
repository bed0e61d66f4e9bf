"""Facility location: picks such that every row has a pick like it."""

from __future__ import annotations

from typing import Any

from coretune.distances import Neighbours, Similarity
from coretune.pickers.serving import Serving, compared
from coretune.selection import Selection
from coretune.shapes import Float


def facility_location(x: Float[Any, "n d"] | Similarity | Neighbours, k: int) -> Selection:
    """Greedy picks for f(S) = sum over all rows of their highest similarity to a pick; ties to the lower row.

    `x`: rows, as a numpy array or torch tensor of any floating type, any length, compared by (1 + cosine) / 2; or, from
    `coretune.distances`, another similarity: `Closeness(rows_of(x), reach)` of Euclidean distances, `Given(s)` for a
    matrix at hand; or the `neighbours(rows_of(x), t)` of each row, all others at 0, for many rows. The rows to serve
    and the candidates are the same but for `Given`.

    Gains are what each pick adds to f, which never rises; their sum is f. Weights are how many rows each pick serves
    best, the earlier of equals, as in CRAIG; with neighbours, a row without a pick among its own counts for none.

    The picks are those of the plain loop over all candidates, and so of lazy greedy (Minoux 1978), for similarities
    rounded to 24 bits. f is at least 1 - 1/e of the largest possible (Nemhauser, Wolsey and Fisher 1978). Rows: n^2 d
    / 2 multiplications in float64, and 4 n^2 bytes; above 16,000 rows, at most 2.5 GiB and 8 n d bytes, and about
    three times the products. Neighbours: about 24 n t bytes. Raises `ValueError` where `k` is not from 0 to n or a
    value is not finite.

    Sources: CRAIG is Mirzasoleiman, Bilmes and Leskovec (2020), arXiv 1906.01827; neighbours instead of all rows,
    Lindgren, Wu and Dimakis (2016), arXiv 1703.02690.
    """
    source = compared(x)
    if not 0 <= k <= source.n:
        raise ValueError(f"{k} rows asked of {source.n}")
    serving = Serving(source)
    while len(serving.best.picks) < k:
        serving.pick(int(serving.adds.argmax()))
    return serving.best.selection()
