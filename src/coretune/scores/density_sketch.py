"""Density by counting: rows fall into buckets of many random hashes, and a row's density is how full its buckets are.

Two passes over the rows in blocks, of any number and in any order; sketches of parts of a pool add up to that of the
whole. See `scores.density` for the kernel that this estimates, and for sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from coretune.shapes import Float, Float32, Int, Int32

AT_A_TIME = 64  # hashes
ROWS = 8192  # hashed at a time
UNIT = 2.0**-24  # rounding of a product in float32, relative
ADDED = 256  # products added up in float32 before their sum joins the others: fewer roundings, fewer doubts
SETTLED = 1 << 22  # numbers multiplied again at a time


@dataclass(frozen=True)
class Hashes:
    """Lines cut into pieces of one width, and how each line's pieces are spread over its buckets.

    Row x is in piece floor(`directions`[r] . (x - `center`) + `offsets`[r]) of line r; directions are divided by the
    width. The bucket of a piece is the high bits of (piece + a number) times an odd number, in 64 bits.
    """

    directions: Float32[np.ndarray, "R d"]
    offsets: Float[np.ndarray, " R"]
    spread: np.ndarray
    """(2, R) uint64: the number added, the odd number multiplied by."""
    center: Float[np.ndarray, " d"]
    buckets: int


def draw_hashes(
    d: int,
    width: float,
    rng: np.random.Generator,
    *,
    repeats: int = 1000,
    buckets: int = 20_000,
    center: Float[np.ndarray, " d"] | None = None,
) -> Hashes:
    """`repeats` hashes for rows of `d` numbers into `buckets` each; the same for every part of a pool.

    `width`: the bandwidth of the kernel, in the unit of the rows; `nearest_distance` of `scores.density` finds one.
    `center` is what rows are taken relative to, their mean or something near it: it changes nothing that is estimated,
    and makes the work less where rows lie far from 0. Defaults: the paper's. Raises `ValueError` where a number is not
    above 0 or the width not finite.
    """
    if not 0 < width < np.inf or d < 1 or repeats < 1 or buckets < 1:
        raise ValueError(
            f"a width of {width}, {d} numbers a row, {repeats} hashes and {buckets} buckets asked; all must be above 0"
        )
    directions = (rng.standard_normal((repeats, d)) / width).astype(np.float32)
    spread = rng.integers(0, 2**64, size=(2, repeats), dtype=np.uint64)
    spread[1] |= np.uint64(1)
    middle = np.zeros(d) if center is None else np.array(center, dtype=np.float64)
    return Hashes(directions, rng.random(repeats), spread, middle, buckets)


def sketch(blocks: Iterable[Float[np.ndarray, "_ d"]], hashes: Hashes) -> Int32[np.ndarray, "R B"]:
    """How many rows are in each bucket of each hash; the sum of the sketches of any parts is that of all.

    `blocks`: rows in any order, float16 to float64 (`feature.blocks()`). n R d multiplications in float32. Memory:
    4 R B bytes, 80 MB with the defaults, and some 8,192 (12 d + 2 kB). Rows are counted alike in whatever block they
    come, bit for bit. Raises `ValueError` where a value is not finite or too large for the width, or the rows' width is
    another.
    """
    counts = np.zeros((len(hashes.directions), hashes.buckets), np.int32)
    for block in _small(blocks):
        for first, found in _hashed(block, hashes):
            for r, bucket in enumerate(found, first):
                counts[r] += np.bincount(bucket, minlength=hashes.buckets)
    return counts


def sketched_density(
    blocks: Iterable[Float[np.ndarray, "_ d"]], hashes: Hashes, counts: Int32[np.ndarray, "R B"]
) -> Float[np.ndarray, " n"]:
    """The mean number of rows in each row's buckets, itself included, from 1 to n, for rows of the sketch.

    Its mean over hashes is the exact `kernel_density` plus what `debiased` takes away; its error falls with the root of
    the number of hashes. Raises `ValueError` as `sketch` does, and where hashes and counts do not belong together.
    """
    if counts.shape != (len(hashes.directions), hashes.buckets):
        raise ValueError(
            f"counts {counts.shape} are not of {len(hashes.directions)} hashes by {hashes.buckets} buckets"
        )
    parts = [np.empty(0)]
    for block in _small(blocks):
        total = np.zeros(len(block), np.int64)
        for first, found in _hashed(block, hashes):
            for r, bucket in enumerate(found, first):
                total += counts[r][bucket]
        parts.append(total / len(counts))
    return np.concatenate(parts)


def debiased(density: Float[np.ndarray, " n"], rows: int, buckets: int) -> Float[np.ndarray, " n"]:
    """The density less the rows that share a bucket by chance: (B s - N) / (B - 1) for N `rows` in B `buckets`.

    Not below 1, which a row counts by itself. Matters where the density is not far above N / B. Raises `ValueError`
    where there are fewer than 2 buckets. Source: ideal hashing has E[s] = K + (N - K) / B.
    """
    if buckets < 2:
        raise ValueError(f"{buckets} bucket asked; rows are told apart by at least 2")
    return np.asarray(np.maximum((buckets * np.asarray(density, dtype=np.float64) - rows) / (buckets - 1), 1.0))


def _small(blocks: Iterable[Float[np.ndarray, "_ d"]]) -> Iterator[Float[np.ndarray, "b d"]]:
    """The same rows in blocks of at most `ROWS`."""
    for block in blocks:
        for start in range(0, len(block), ROWS):
            yield block[start : start + ROWS]


def _hashed(block: Float[np.ndarray, "b d"], hashes: Hashes) -> Iterator[tuple[int, Int[np.ndarray, "r b"]]]:
    """The rows' buckets, some hashes at a time, with the number of the first.

    Products in float32 say which piece a row is in where they are farther from the next than their error can be; the
    rest are taken again in float64, pair by pair, so that a piece does not depend on the block.
    """
    if block.ndim != 2 or block.shape[1] != hashes.directions.shape[1]:
        raise ValueError(f"rows {block.shape} are not as wide as the hashes, {hashes.directions.shape[1]}")
    away = block.astype(np.float64) - hashes.center
    lengths = np.sqrt(np.einsum("ij,ij->i", away, away))
    reach = np.linalg.norm(hashes.directions.astype(np.float64), axis=1)
    if len(away) and not float(lengths.max()) * float(reach.max()) < 2.0**22:
        bad = int(np.flatnonzero(~(lengths * float(reach.max()) < 2.0**22))[0])
        raise ValueError(
            f"row {bad} of a block has length {lengths[bad]:.3g}: not finite, or too long for this width; leave it out"
        )
    across = np.ascontiguousarray(away.T, dtype=np.float32)
    roundings = min(ADDED, block.shape[1]) + block.shape[1] // ADDED + 8
    error = (roundings * UNIT * lengths).astype(np.float32)
    for first in range(0, len(hashes.directions), AT_A_TIME):
        some = slice(first, first + AT_A_TIME)
        yield first, _buckets(hashes, some, _pieces(hashes, some, across, away, np.outer(reach[some], error)))


def _pieces(
    hashes: Hashes,
    some: slice,
    across: Float32[np.ndarray, "d b"],
    away: Float[np.ndarray, "b d"],
    error: Float[np.ndarray, "r b"],
) -> Float32[np.ndarray, "r b"]:
    """The number of each row's piece on these lines."""
    directions, offsets = hashes.directions[some], hashes.offsets[some]
    value = np.repeat(offsets.astype(np.float32)[:, None], across.shape[1], axis=1)
    for start in range(0, len(across), ADDED):
        value += directions[:, start : start + ADDED] @ across[start : start + ADDED]
    pieces = np.floor(value)
    value -= pieces
    error += 2 * UNIT * (np.abs(pieces) + 2)
    np.minimum(value, 1 - value, out=value)
    unsure = np.flatnonzero(value <= error)
    step = max(1, SETTLED // away.shape[1])
    for start in range(0, len(unsure), step):
        line, row = np.divmod(unsure[start : start + step], away.shape[0])
        exact = np.einsum("ij,ij->i", directions[line].astype(np.float64), away[row]) + offsets[line]
        pieces[line, row] = np.floor(exact)
    return np.asarray(pieces)


def _buckets(hashes: Hashes, some: slice, pieces: Float32[np.ndarray, "r b"]) -> Int[np.ndarray, "r b"]:
    """The bucket of each piece."""
    added, factor = hashes.spread[:, some, None]
    mixed = pieces.astype(np.int64).view(np.uint64)
    mixed += added
    mixed *= factor
    mixed >>= np.uint64(32)
    mixed *= np.uint64(hashes.buckets)
    mixed >>= np.uint64(32)
    return mixed.view(np.int64)
