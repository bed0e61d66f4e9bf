"""The map: two coordinates a row, so that rows with similar features lie near each other on paper.

Idea: exact t-SNE costs c^2 a step, so it lays out at most 512 cluster centres, and every row finds its place among its
five nearest: in a disc around the nearest one's spot, on the side of the other four, the further out the less it
belongs. Neighbourhoods on the map mean something; the axes, areas and distances between far groups do not.

Source: van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 2008 (Eq. 1, 4, 5 and Section 3.4). The discs are
ours: they keep neighbours as well as t-SNE of all rows (3,011 Dolly rows: trustworthiness .935, all rows .933). So do
rows at the weighted mean of their five spots (.928), but those lie in 512 heaps, hundreds of rows on one pixel.
"""

from __future__ import annotations

import numpy as np

from coretune.partitions import kmeans
from coretune.shapes import Float, Float32, Int64

CENTERS = 512
SAMPLE = 16_384  # rows that k-means sees; the centres of a picture need no more
NEAREST = 5
SHARPNESS = 2.0  # how much nearer centres count for the side that a row lies on
BLOCK = 8_192  # rows placed at a time
PERPLEXITY = 30.0
STEPS, EARLY, EXAGGERATION = 1000, 250, 12.0


def lay_out(x: Float[np.ndarray, "n d"], rng: np.random.Generator) -> Float32[np.ndarray, "n 2"]:
    """Coordinates of every row on the map, centred, without a unit. The same `rng` state gives the same map.

    Up to 512 rows are laid out themselves; of more, centres are, and rows are placed among these. `x` may be
    memory-mapped: it is read in blocks, twice. Raises `ValueError` where `x` is not `(n, d)` or has values that are not
    finite.
    """
    if x.ndim != 2:
        raise ValueError(f"a map is made of an (n, d) array; this one has shape {x.shape}")
    if len(x) <= CENTERS:
        rows = np.ascontiguousarray(x, dtype=np.float32)
        _check_finite(rows, 0)
        return embed(rows, rng)
    seen = np.arange(len(x)) if len(x) <= SAMPLE else np.sort(rng.choice(len(x), SAMPLE, replace=False))
    sample = np.ascontiguousarray(x[seen], dtype=np.float32)
    _check_finite(sample, 0)
    centers = _centers(sample, rng)
    return place(x, centers, embed(centers, rng))


def _centers(x: Float32[np.ndarray, "m d"], rng: np.random.Generator) -> Float32[np.ndarray, "c d"]:
    """What is laid out: means of 512 cells, or the different rows where there are no more of them."""
    different = np.unique(x, axis=0)
    if len(different) <= CENTERS:
        return different
    return np.asarray(kmeans(x, CENTERS, rng).centers, dtype=np.float32)


def place(
    x: Float[np.ndarray, "n d"], centers: Float32[np.ndarray, "c d"], spots: Float32[np.ndarray, "c 2"]
) -> Float32[np.ndarray, "n 2"]:
    """Each row in a disc around the spot of its nearest centre, rows of one disc at equal areas from each other.

    The side is the mean direction of the next four spots, weighted by `exp(-2 e / mean(e))`, where `e` is how much
    larger a squared distance is than that to the second. Within a disc rows go outwards by how much nearer their own
    centre is than the second. A disc reaches half way to the three nearest spots, on average.
    """
    near = min(NEAREST, len(centers))
    if near < 2:
        return np.repeat(spots, len(x), axis=0)
    own, side = np.empty(len(x), dtype=np.int64), np.empty((len(x), 2), dtype=np.float32)
    margin = np.empty(len(x), dtype=np.float32)
    lengths = np.einsum("cd,cd->c", centers, centers)
    for start in range(0, len(x), BLOCK):
        here = slice(start, start + BLOCK)
        block = np.ascontiguousarray(x[here], dtype=np.float32)
        _check_finite(block, start)
        squared = lengths - 2 * (block @ centers.T)  # up to the row's own length, the same for all its centres
        nearest = np.argpartition(squared, near - 1, axis=1)[:, :near]
        order = np.argsort(np.take_along_axis(squared, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        squared = np.take_along_axis(squared, nearest, axis=1)
        own[here], margin[here] = nearest[:, 0], squared[:, 1] - squared[:, 0]
        side[here] = _side(squared[:, 1:], spots[nearest[:, 1:]] - spots[nearest[:, :1]])
    return np.asarray(spots[own] + (_reach(spots)[own] * _outwards(own, margin, len(spots)))[:, None] * side)


def _side(squared: Float32[np.ndarray, "b k"], ways: Float32[np.ndarray, "b k 2"]) -> Float32[np.ndarray, "b 2"]:
    """The mean of `ways`, weighted by nearness, at unit length; zero where they cancel."""
    excess = squared - squared[:, :1]
    scale = np.maximum(excess.mean(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    weights = np.exp(-SHARPNESS * excess / scale)
    side = np.einsum("bk,bkt->bt", weights / weights.sum(axis=1, keepdims=True), ways)
    return np.asarray(side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), np.finfo(np.float32).tiny))


def _reach(spots: Float32[np.ndarray, "c 2"]) -> Float32[np.ndarray, " c"]:
    """The radius of each spot's disc: half the mean distance to the three nearest other spots."""
    distances = np.linalg.norm(spots[:, None] - spots[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return np.asarray(np.sort(distances, axis=1)[:, : min(3, len(spots) - 1)].mean(axis=1) / 2)


def _outwards(own: Int64[np.ndarray, " n"], margin: Float32[np.ndarray, " n"], c: int) -> Float32[np.ndarray, " n"]:
    """How far out in its disc each row lies, from 0 to 1: large margins first, as much area to each row."""
    order = np.lexsort((-margin, own))
    sizes = np.bincount(own, minlength=c)
    rank = np.empty(len(own), dtype=np.int64)
    rank[order] = np.arange(len(own)) - (np.cumsum(sizes) - sizes)[own[order]]
    return np.asarray(np.sqrt((rank + 0.5) / sizes[own]), dtype=np.float32)


def embed(x: Float32[np.ndarray, "c d"], rng: np.random.Generator) -> Float32[np.ndarray, "c 2"]:
    """Exact t-SNE of a few hundred points, started from their two main directions."""
    if len(x) < 2:
        return np.zeros((len(x), 2), dtype=np.float32)
    perplexity = max(1.0, min(PERPLEXITY, (len(x) - 1) / 3))
    return _descend(affinities(x, perplexity), _principal(x, rng))


def affinities(x: Float32[np.ndarray, "c d"], perplexity: float) -> Float32[np.ndarray, "c c"]:
    """Joint neighbour probabilities `p_ij` (Eq. 1 and Section 3.1), each row's bandwidth found by bisection."""
    c = len(x)
    centred = (x - x.mean(axis=0)).astype(np.float64)
    lengths = np.einsum("cd,cd->c", centred, centred)
    squared = np.maximum(lengths[:, None] + lengths - 2 * centred @ centred.T, 0)
    np.fill_diagonal(squared, np.inf)
    squared -= squared.min(axis=1, keepdims=True)  # the nearest always keeps weight 1
    scale = np.where(np.isfinite(squared), squared, 0).mean() or 1.0
    low, high = np.full(c, -60.0), np.full(c, 60.0)  # log precision, in units of the mean distance
    for _ in range(60):
        middle = (low + high) / 2
        conditional = _conditional(squared, np.exp(middle) / scale)
        logs = np.log(conditional, where=conditional > 0, out=np.zeros_like(conditional))
        wide = -(conditional * logs).sum(axis=1) > np.log(perplexity)
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    conditional = _conditional(squared, np.exp((low + high) / 2) / scale)
    return np.asarray((conditional + conditional.T) / (2 * c), dtype=np.float32)


def _conditional(squared: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """`p_j|i` (Eq. 1)."""
    weights = np.exp(-squared * precision[:, None])
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _principal(x: Float32[np.ndarray, "c d"], rng: np.random.Generator) -> Float32[np.ndarray, "c 2"]:
    """The two main directions, small, with a fixed sign, and a little noise that parts equal points."""
    centred = (x - x.mean(axis=0)).astype(np.float64)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    start = vectors[:, ::-1][:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0))
    start *= np.sign(start[np.abs(start).argmax(axis=0), [0, 1]] + 1e-300)
    spread, tiny = start[:, 0].std(), 1e-6 * np.abs(x).max()
    start *= 1e-2 / spread if spread > tiny else 0  # no direction: equal points, whose differences are rounding
    return np.asarray(start + rng.normal(scale=1e-5, size=start.shape), dtype=np.float32)


def _descend(p: Float32[np.ndarray, "c c"], start: Float32[np.ndarray, "c 2"]) -> Float32[np.ndarray, "c 2"]:
    """Gradient descent with momentum and gains (Section 3.4), on exaggerated affinities at first."""
    y, step, gains = start.copy(), np.zeros_like(start), np.ones_like(start)
    rate = max(len(p) / EXAGGERATION / 4, 50.0)
    kernel, pull, across, down = (np.empty_like(p) for _ in range(4))
    for turn in range(STEPS):
        np.subtract(y[:, :1], y[:, 0], out=across)  # no matrix products: their threads wait on each other when the
        np.subtract(y[:, 1:], y[:, 1], out=down)  # machine is busy, and take seconds for what takes a millisecond
        np.multiply(across, across, out=kernel)
        kernel += np.multiply(down, down, out=pull)
        kernel += 1
        np.reciprocal(kernel, out=kernel)
        np.fill_diagonal(kernel, 0)
        np.multiply(p, EXAGGERATION if turn < EARLY else 1.0, out=pull)
        pull -= kernel * (1 / kernel.sum())  # Eq. 4
        pull *= kernel
        across *= pull
        down *= pull
        gradient = 4 * np.stack([across.sum(axis=1), down.sum(axis=1)], axis=1)  # Eq. 5
        gains = np.maximum(np.where(gradient * step < 0, gains + 0.2, gains * 0.8), 0.01)
        step = (0.5 if turn < EARLY else 0.8) * step - rate * gains * gradient
        y += step
    return np.asarray(y - y.mean(axis=0))


def _check_finite(block: np.ndarray, start: int) -> None:
    """Raise where a row holds a value that is not finite, naming the first."""
    finite = np.isfinite(block).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"row {start + int(np.flatnonzero(~finite)[0])} holds a value that is not finite; map finite rows only"
        )
