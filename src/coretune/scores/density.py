"""Density: how many rows lie near each row, counted exactly over all pairs, or sketched in one pass over the rows.

The kernel is the chance that two rows at distance c fall into the same bucket of a random line cut into buckets of one
width (p-stable hashing). Every row counts itself, so no density is below 1, and a row of which the pool holds m copies
has m - 1 more than it would have alone.

Source: Sachdeva et al. (2024), "How to train data-efficient LLMs", arXiv 2402.09668, algorithm 2; the sketch is RACE,
Coleman and Shrivastava (2020), arXiv 1912.02283; the hashes are those of Datar, Immorlica, Indyk and Mirrokni (2004).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from coretune.distances import blocks, centred, rows_of, squares
from coretune.shapes import Float

SAMPLE = 10_000  # rows among which nearest ones are looked for
TILE = 512  # rows by as many others at a time
CELLS = 1 << 15  # of the table of the kernel; between its points, linear: off by less than 1e-9
NEAR = 2.0**-20  # squared distances that are a smaller part of the squared lengths are taken again, by differences


def collision(distance: Float[np.ndarray, "*shape"], width: float) -> Float[np.ndarray, "*shape"]:
    """The chance p(c) that two rows at this distance share a bucket of this width, from 1 at distance 0.

    p(c) = 1 - 2 Phi(-w/c) - 2 / (sqrt(2 pi) w/c) (1 - exp(-(w/c)^2 / 2)). It falls with c/w alone, and no faster than
    0.4 w/c: far rows count. Raises `ValueError` where `width` is not above 0. Source: Datar et al. (2004), section 3.2.
    """
    _check_width(width)
    place = np.asarray(distance, dtype=np.float64) + width
    np.divide(CELLS * width, place, out=place)
    table, rises = _table()
    cell = place.astype(np.int32)
    place -= cell
    place *= rises[cell]
    place += table[cell]
    return place


def kernel_density(x: Float[Any, "n d"], width: float) -> Float[np.ndarray, " n"]:
    """The sum of p(distance) over all rows, the row itself included, from 1 to n: exact, over all pairs.

    `x`: numpy array or torch tensor of any floating type; `width` in its unit. n^2 d / 2 multiplications in float64;
    8 n d bytes. With 384 numbers a row, 50,000 rows take half a minute on one core, growing with the square; above
    3,000 rows `density_sketch` is faster, and a per cent off. Raises `ValueError` where a value is not finite or
    `width` is not above 0.
    """
    _check_width(width)
    away, lengths = _centred(x)
    found = np.zeros(len(away))
    places = list(blocks(len(away), TILE))
    for i, some in enumerate(places):
        for others in places[i:]:
            near = collision(_distances(away, lengths, some, others), width)
            found[some] += near.sum(axis=1)
            if others.start > some.start:
                found[others] += near.sum(axis=0)
    return found


def nearest_distance(x: Float[Any, "n d"], rng: np.random.Generator, *, sample: int = SAMPLE) -> float:
    """The median distance of a row to the nearest that differs from it, among `sample` rows drawn: a width that fits.

    Raises `ValueError` where no two of these rows differ, or a value is not finite. Source: a choice of ours; the paper
    prints no width and reports that it matters little.
    """
    rows = rows_of(x)
    drawn = np.sort(rng.permutation(rows.n)[:sample])
    away, lengths = _centred(rows.take(drawn))
    nearest = np.full(len(away), np.inf)
    places = list(blocks(len(away), TILE))
    for some in places:
        for others in places:
            distances = _distances(away, lengths, some, others)
            distances[distances == 0] = np.inf
            np.minimum(nearest[some], distances.min(axis=1), out=nearest[some])
    if not np.isfinite(nearest).any():
        raise ValueError(
            f"no two of {len(away)} rows differ, so there is no distance to nearest rows; drop copies first"
        )
    return float(np.median(nearest[np.isfinite(nearest)]))


def _check_width(width: float) -> None:
    if not 0 < width < np.inf:
        raise ValueError(f"a width of {width} asked; it must be above 0 and finite")


def _centred(x: Float[Any, "n d"]) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """The rows less their mean, in float64, and their squared lengths."""
    rows = rows_of(x)
    mean, spread = centred(rows)
    return rows.take(slice(None)) - mean, spread


def _distances(
    away: Float[np.ndarray, "n d"], lengths: Float[np.ndarray, " n"], some: slice, others: slice
) -> Float[np.ndarray, "a b"]:
    """The distance of each of some rows to each of others; of copies, 0."""
    scale = lengths[some][:, None] + lengths[others]
    found: Float[np.ndarray, "a b"] = away[some] @ away[others].T
    found *= -2
    found += scale
    which, near = np.nonzero(found <= scale * NEAR)
    for place in blocks(len(which), TILE):
        found[which[place], near[place]] = squares(away[some][which[place]] - away[others][near[place]])
    return np.asarray(np.sqrt(found, out=found))


@cache
def _table() -> tuple[Float[np.ndarray, " cells"], Float[np.ndarray, " cells"]]:
    """The kernel at w / (w + c) = 0, 1 / CELLS, ..., 1, and how much it rises until the next."""
    place = np.arange(CELLS + 1) / CELLS
    values = np.array([_exact(one / (1 - one)) if one < 1 else 1.0 for one in place.tolist()])
    return values, np.append(np.diff(values), 0.0)


def _exact(ratio: float) -> float:
    """The kernel at w / c, `ratio`; below 0.01 by the first terms of its series, which has no cancellation."""
    if ratio < 0.01:
        return ratio / math.sqrt(2 * math.pi) * (1 - ratio**2 / 12 + ratio**4 / 120)
    return math.erf(ratio / math.sqrt(2)) + math.sqrt(2 / math.pi) / ratio * math.expm1(-(ratio**2) / 2)
