"""Exact squared distances, and the bound on the error of products that says where they are needed."""

from __future__ import annotations

import numpy as np

from coretune.distances.rows import UNIT, Rows, blocks
from coretune.shapes import Float, Int32

BLOCK = 1024
LARGEST = 1e15  # of a value: squares and their sums stay far from overflow in float32
TINY = 2.0**-120  # what products lose below the smallest normal float32


def squares(differences: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
    """The sum of squares of each row."""
    return np.asarray(np.einsum("ij,ij->i", differences, differences))


def squared_distances(rows: Rows, center: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
    """The squared distance of every row to one vector, in float64."""
    found = np.empty(rows.n)
    for place in blocks(rows.n, BLOCK):
        found[place] = squares(rows.take(place) - center)
    return found


def centred(rows: Rows) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " n"]]:
    """The mean of the rows, and the squared distance of every row to it, in float64.

    Raises `ValueError`, naming the row, where a value is not finite or too large for products in float32.
    """
    mean = np.zeros(rows.d)
    for place in blocks(rows.n, BLOCK):
        x = rows.take(place)
        fine = np.abs(x).max(axis=1) <= LARGEST
        if not fine.all():
            bad = place.start + int(np.flatnonzero(~fine)[0])
            raise ValueError(
                f"row {bad} has a value that is not finite or above {LARGEST:.0e}; leave it out or rescale"
            )
        mean += x.sum(axis=0)
    mean /= rows.n
    return mean, squared_distances(rows, mean)


def slack(
    rows: Rows, lengths: Float[np.ndarray, " n"], vector: float, offset: float, unit: float | None = None
) -> Float[np.ndarray, " n"]:
    """How far two values of `x . v - offset` can be from their exact difference, and half of it a squared distance.

    For rows of these lengths |x|, and up to these |v| and |offset|. The bound of a sum of d products taken in any order
    (Higham 2002, Accuracy and Stability of Numerical Algorithms, eq. 3.5), for products with relative error `unit` an
    operation (that of `rows` by default), with v and offset rounded, plus the same for squared differences in float64.
    """
    relative = 2 * (rows.d + 16) * ((rows.unit if unit is None else unit) + 8 * UNIT[8])
    return relative * (lengths * vector + offset) + TINY


def nearest(
    rows: Rows, centers: Float[np.ndarray, "c d"], mean: Float[np.ndarray, " d"], spread: Float[np.ndarray, " n"]
) -> tuple[Int32[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Each row's nearest centre, ties to the lower one, and its squared distance; `mean`, `spread` as `centred` gives.

    Rows whose two best centres are closer than the error of the products are compared again in float64, and those
    that even then are as good as tied, by differences.
    """
    vectors = centers.astype(np.float64) - mean
    lengths, reach = np.sqrt(spread) + np.linalg.norm(mean), squares(vectors)
    offsets = reach / 2 + vectors @ mean
    widest, highest = float(np.sqrt(reach.max())), float(np.abs(offsets).max())
    which, first, second = rows.best_two(None, vectors, offsets)
    unsure = np.flatnonzero(first - second <= slack(rows, lengths, widest, highest))
    for place in blocks(len(unsure), BLOCK):
        some = unsure[place]
        x = rows.take(some)
        products = x @ vectors.T - offsets
        error = slack(rows, lengths[some], widest, highest, UNIT[8])
        near = products >= (products.max(axis=1) - error)[:, None]
        which[some] = products.argmax(axis=1)
        for i in np.flatnonzero(near.sum(axis=1) > 1):
            tied = np.flatnonzero(near[i])
            which[some[i]] = tied[squares(centers[tied] - x[i]).argmin()]
    squared = np.empty(rows.n)
    for place in blocks(rows.n, BLOCK):
        squared[place] = squares(rows.take(place) - centers[which[place]])
    return which, squared
