"""Density: the kernel by its formula, the exact sum, the sketch against it, and the draw that it is for."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from coretune.pickers import drawn
from coretune.scores.density import collision, kernel_density, nearest_distance
from coretune.scores.density_sketch import Hashes, debiased, draw_hashes, sketch, sketched_density
from coretune.scores.draw_weights import inverse_weights

BLOBS = np.repeat([0, 1, 2], [900, 90, 10])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def three_blobs(seed: int = 0) -> np.ndarray:
    return np.array([[0.0, 0], [3, 3], [-3, 3]])[BLOBS] + rng(seed).normal(size=(1000, 2)) * 0.1


def by_formula(c: float, w: float) -> float:
    if c == 0:
        return 1.0
    t = w / c
    tail = 2 / (math.sqrt(2 * math.pi) * t) * (1 - math.exp(-(t**2) / 2))
    return 1 - math.erfc(t / math.sqrt(2)) - tail


def density_by_loop(x: np.ndarray, w: float) -> np.ndarray:
    """The twin: every pair by differences."""
    return np.array([sum(by_formula(float(np.linalg.norm(a - b)), w) for b in x) for a in x.astype(np.float64)])


def means(values: np.ndarray) -> np.ndarray:
    return np.bincount(BLOBS, values) / np.bincount(BLOBS)


# the kernel, exactly


def test_collision_by_hand() -> None:
    c = np.array([0, 0.25, 0.5, 1, 2, 4])
    assert collision(c, 1.0) == pytest.approx([1, 0.8005, 0.6095, 0.3687, 0.1954, 0.0992], abs=5e-5)
    assert collision(c, 2.0) == pytest.approx([1, 0.9003, 0.8005, 0.6095, 0.3687, 0.1954], abs=5e-5)


def test_collision_is_the_formula_at_any_distance() -> None:
    c = np.geomspace(1e-6, 1e3, 20_001)
    assert collision(c, 0.7) == pytest.approx([by_formula(one, 0.7) for one in c.tolist()], abs=1e-9)
    far = collision(np.array([1e5, 1e30, np.inf]), 1.0)
    assert far == pytest.approx([1e-5 / math.sqrt(2 * math.pi), 0, 0], rel=1e-4, abs=1e-25)
    assert (np.diff(collision(np.linspace(0, 9, 5000), 1.0)) < 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_exact_sum_is_the_loop_over_pairs(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    monkeypatch.setattr(sys.modules["coretune.scores.density"], "TILE", 16)
    x = (rng(3).normal(size=(70, 5)) + 4).astype(dtype)
    x[50:] = x[:20]
    found = kernel_density(x, 1.3)
    assert found == pytest.approx(density_by_loop(x, 1.3), abs=1e-7)
    assert found.min() >= 1
    order = rng(1).permutation(70)
    assert kernel_density(x[order], 1.3) == pytest.approx(found[order], abs=1e-9)


def test_copies_raise_the_exact_density_by_their_number() -> None:
    x = rng(4).normal(size=(40, 8)) + 100
    more = np.concatenate([x, np.repeat(x[7:8], 5, axis=0)])
    assert kernel_density(more, 0.5)[7] == pytest.approx(kernel_density(x, 0.5)[7] + 5, abs=1e-9)
    assert kernel_density(more, 0.5)[[7, 40, 44]] == pytest.approx([kernel_density(more, 0.5)[7]] * 3, abs=1e-9)


def test_equal_spacing_is_equal_density_away_from_the_ends() -> None:
    found = kernel_density(np.arange(400.0)[:, None], 1.0)
    assert np.ptp(found[150:250]) / found[200] < 0.01 < 1 - found[0] / found[200]


def test_the_width_is_the_median_distance_to_the_nearest_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["coretune.scores.density"], "TILE", 7)
    x = rng(5).normal(size=(60, 3))
    away = np.linalg.norm(x[:, None] - x, axis=2)
    np.fill_diagonal(away, np.inf)
    assert nearest_distance(x, rng()) == pytest.approx(np.median(away.min(axis=1)))
    twice = np.concatenate([x, x])
    assert nearest_distance(twice, rng()) == pytest.approx(np.median(away.min(axis=1)))  # copies are passed over
    drawn_rows = np.sort(rng(9).permutation(60)[:20])
    some = away[np.ix_(drawn_rows, drawn_rows)]
    assert nearest_distance(x, rng(9), sample=20) == pytest.approx(np.median(some.min(axis=1)))
    with pytest.raises(ValueError, match="no two of 4 rows differ"):
        nearest_distance(np.ones((4, 2)), rng())


@pytest.mark.parametrize("width", [0.0, -1.0, np.inf, np.nan])
def test_a_width_that_cannot_be_is_refused(width: float) -> None:
    for call in (
        lambda: collision(np.ones(2), width),
        lambda: kernel_density(np.ones((2, 2)), width),
        lambda: draw_hashes(3, width, rng()),
    ):
        with pytest.raises(ValueError, match="width"):
            call()


# the sketch


def buckets_by_loop(row: np.ndarray, hashes: Hashes) -> list[int]:
    """The twin: one line after the other, in Python's whole numbers."""
    found = []
    for r, direction in enumerate(hashes.directions.astype(np.float64)):
        piece = math.floor(float(direction @ (row.astype(np.float64) - hashes.center)) + hashes.offsets[r])
        added, factor = int(hashes.spread[0, r]), int(hashes.spread[1, r])
        found.append((((piece + added) * factor % 2**64 >> 32) * hashes.buckets) >> 32)
    return found


def test_the_sketch_is_the_loop_over_rows_and_lines() -> None:
    x = rng(2).normal(size=(60, 6)).astype(np.float32)
    hashes = draw_hashes(6, 0.8, rng(1), repeats=130, buckets=37, center=np.full(6, 0.2))
    counts = np.zeros((130, 37), np.int32)
    for row in x:
        counts[np.arange(130), buckets_by_loop(row, hashes)] += 1
    assert sketch([x], hashes).tolist() == counts.tolist()
    want = [np.mean(counts[np.arange(130), buckets_by_loop(row, hashes)]) for row in x]
    assert sketched_density([x], hashes, counts) == pytest.approx(want)


@pytest.mark.parametrize(("repeats", "most"), [(10, 0.14), (100, 0.05), (1000, 0.02), (4000, 0.01)])
def test_the_sketch_nears_the_exact_density(repeats: int, most: float) -> None:
    """Published for one draw: 7.8, 2.9, 1.24 and 0.64 % on average."""
    x = three_blobs()
    exact, errors = kernel_density(x, 1.0), []
    for seed in range(3 if repeats > 1000 else 12):
        hashes = draw_hashes(2, 1.0, rng(seed), repeats=repeats)
        errors.append(np.mean(np.abs(sketched_density([x], hashes, sketch([x], hashes)) / exact - 1)))
    assert most / 5 < np.mean(errors) < most


def test_the_error_falls_with_the_root_of_the_number_of_hashes() -> None:
    x = rng(8).normal(size=(200, 4))
    exact, error = kernel_density(x, 1.0), []
    for repeats in (40, 640):
        seen = []
        for seed in range(60):
            hashes = draw_hashes(4, 1.0, rng(seed), repeats=repeats)
            seen.append(((sketched_density([x], hashes, sketch([x], hashes)) - exact) ** 2).mean())
        error.append(np.sqrt(np.mean(seen)))
    assert 3.2 < error[0] / error[1] < 4.8


def test_densities_of_three_blobs_by_hand() -> None:
    x = three_blobs()
    hashes = draw_hashes(2, 1.0, rng(1))
    counts = sketch([x], hashes)
    assert (counts.sum(axis=1) == 1000).all() and counts.dtype == np.int32
    found = sketched_density([x], hashes, counts)
    assert means(found) == pytest.approx([787.6, 169.9, 95.4], rel=0.05)
    share = np.bincount(BLOBS, np.exp(inverse_weights(found)))
    assert share / share.sum() == pytest.approx([0.643, 0.298, 0.059], abs=0.02)
    draws = [np.bincount(BLOBS[drawn(inverse_weights(found), 30, rng=rng(i)).rows], minlength=3) for i in range(500)]
    assert np.mean(draws, axis=0) == pytest.approx([19.7, 8.6, 1.7], abs=0.6)


def test_sketches_add_up_whatever_the_blocks_and_the_order() -> None:
    x = rng(6).normal(size=(500, 33)).astype(np.float16)
    hashes = draw_hashes(33, 2.0, rng(1), repeats=150, buckets=300, center=x.mean(axis=0, dtype=np.float64))
    whole = sketch([x], hashes)
    assert (sketch([x[:123]], hashes) + sketch([x[123:]], hashes) == whole).all()
    order = rng(2).permutation(500)
    shuffled = x[order]
    assert (sketch((shuffled[i : i + 7] for i in range(0, 500, 7)), hashes) == whole).all()
    found = sketched_density([x], hashes, whole)
    again = sketched_density([shuffled[:1], shuffled[1:400], shuffled[400:]], hashes, whole)
    assert (again == found[order]).all()
    assert (found >= 1).all()
    assert (sketch([x], draw_hashes(33, 2.0, rng(1), repeats=150, buckets=300)) != whole).any()  # another centre


def test_rows_at_the_edge_of_a_piece_are_counted_where_they_are_looked_up() -> None:
    """On a grid as wide as a piece, products in float32 alone would put many rows to either side."""
    x = rng(7).integers(-40, 40, size=(300, 64)).astype(np.float32)
    hashes = draw_hashes(64, 1.0, rng(1), repeats=20)
    edge = Hashes(np.sign(hashes.directions) * np.float32(0.1), np.zeros(20), hashes.spread, hashes.center, 20_000)
    counts = sketch([x], edge)
    one_by_one = np.concatenate([sketched_density([row[None]], edge, counts) for row in x])
    assert (one_by_one == sketched_density([x], edge, counts)).all() and one_by_one.min() >= 1
    for row in x[:40]:
        assert (counts[np.arange(20), buckets_by_loop(row, edge)] >= 1).all()


def test_copies_raise_the_sketched_density_by_their_number() -> None:
    x = rng(4).normal(size=(300, 8))
    more = np.concatenate([x, np.repeat(x[7:8], 5, axis=0)])
    hashes = draw_hashes(8, 1.0, rng(), repeats=64)
    one = sketched_density([x], hashes, sketch([x], hashes))[7]
    assert sketched_density([more], hashes, sketch([more], hashes))[[7, 302]].tolist() == pytest.approx([one + 5] * 2)


def test_few_buckets_are_put_right() -> None:
    x = three_blobs()
    exact, hashes = kernel_density(x, 1.0), draw_hashes(2, 1.0, rng(3), repeats=3000, buckets=5)
    found = sketched_density([x], hashes, sketch([x], hashes))
    assert np.mean(found - exact) == pytest.approx(np.mean((1000 - exact) / 5), abs=6)
    assert np.mean(debiased(found, 1000, 5) - exact) == pytest.approx(0, abs=6)
    assert debiased(np.array([1.0, 500.0]), 1000, 5).tolist() == [1, 375]
    with pytest.raises(ValueError, match="1 bucket"):
        debiased(found, 1000, 1)


def test_what_cannot_be_hashed_is_refused() -> None:
    hashes = draw_hashes(3, 1.0, rng(), repeats=8, buckets=16)
    assert sketched_density([], hashes, sketch([], hashes)).tolist() == []
    with pytest.raises(ValueError, match="row 1 of a block has length inf"):
        sketch([np.array([[0, 0, 1], [np.inf, 0, 0]])], hashes)
    with pytest.raises(ValueError, match="row 0 of a block has length nan"):
        sketch([np.array([[0, 0, np.nan]])], hashes)
    with pytest.raises(ValueError, match="not as wide as the hashes, 3"):
        sketch([np.ones((2, 4))], hashes)
    with pytest.raises(ValueError, match=r"counts \(8, 15\) are not of 8 hashes by 16"):
        sketched_density([np.ones((2, 3))], hashes, np.zeros((8, 15), np.int32))


# the draw


def test_groups_of_copies_are_drawn_alike() -> None:
    """Theorem A.2 in small: with a width far below the distances, every group has the same weight in all."""
    group = np.repeat([0, 1, 2, 3], [1, 4, 15, 80])
    density = kernel_density(np.eye(4)[group], 1e-9)
    assert density == pytest.approx(np.bincount(group)[group], rel=1e-6)
    first = [group[drawn(inverse_weights(density), 1, rng=rng(seed)).rows[0]] for seed in range(4000)]
    counts = np.bincount(first, minlength=4)
    assert ((counts - 1000) ** 2 / 1000).sum() < 16.3  # chi squared with 3 degrees of freedom, one in a thousand


def test_inverse_weights_by_hand() -> None:
    density = np.array([1.0, 2.0, 4.0, 8.0])
    assert np.exp(inverse_weights(density)) == pytest.approx([1, 0.5, 0.25, 0.125])
    assert np.exp(inverse_weights(density, clip=2 / 3)) == pytest.approx([0.5, 0.5, 0.25, 0.125])
    assert sorted(drawn(inverse_weights(density), 4, rng=rng()).rows.tolist()) == [0, 1, 2, 3]
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="row 1 has density"):
            inverse_weights(np.array([1.0, bad]))
    with pytest.raises(ValueError, match="quantile from 0 to 1"):
        inverse_weights(density, clip=90.0)
