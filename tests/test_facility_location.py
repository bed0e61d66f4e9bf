"""Facility location: worked numbers, the plain loop, another program's picks, and its three routes to one sum."""

from __future__ import annotations

import sys
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coretune.distances import Closeness, Cosines, Given, Neighbours, neighbours, rows_of
from coretune.pickers import facility_location, stochastic_facility_location

TOY = np.array([(0, 0), (1, 0), (0, 1), (10, 0), (10, 1), (5, 8)], float)

# (1 + cosine) / 2 of these rows: picks and gains of submodlib-py 0.0.3, NaiveGreedy, dense
OTHER_ROWS = np.round(np.random.default_rng(5).normal(size=(40, 4)), 2)
OTHER_PICKS = [39, 33, 19, 1, 37]
OTHER_GAINS = [24.064905, 5.863167, 1.968995, 1.767506, 1.090837]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def steps_of(source: Any) -> np.ndarray:
    """The whole matrix (rows, candidates), in steps, in float64."""
    if isinstance(source, Neighbours):
        found = np.zeros((source.n, source.n))
        np.put_along_axis(found, source.which.astype(np.int64), source.steps.astype(float), axis=1)
        return found
    return source.between(slice(None), slice(None)).astype(float)


def plain_loop(s: np.ndarray, k: int) -> tuple[list[int], list[float]]:
    """The twin: every gain from scratch for every pick, ties to the lower row."""
    best, picks, gains = np.zeros(len(s)), [], []
    for _ in range(k):
        adds = np.maximum(s - best[:, None], 0).sum(axis=0)
        adds[picks] = -1
        picks.append(int(adds.argmax()))
        gains.append(float(adds.max()))
        best = np.maximum(best, s[:, picks[-1]])
    return picks, gains


def value(s: np.ndarray, picks: Any) -> float:
    return float(s[:, list(picks)].max(axis=1).sum())


@pytest.fixture(params=["held", "lists", "tiles"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small inputs through all that large ones go through."""
    serving = sys.modules["coretune.pickers.serving"]
    if request.param != "held":
        monkeypatch.setattr(serving, "SPARSE", 1)
        monkeypatch.setattr(serving, "PRODUCTS", 1)
        monkeypatch.setattr(serving, "TILE", 1)
    if request.param == "tiles":
        monkeypatch.setattr(serving, "HELD", 0)
        monkeypatch.setattr(serving, "LISTED", 2000)
    return str(request.param)


def test_worked_example() -> None:
    """s = max(0, 10 - distance): the greedy picks are not the best three."""
    source = Closeness(rows_of(TOY), reach=10)
    picked = facility_location(source, 3)
    assert picked.rows.tolist() == [1, 4, 5]
    first = 9 + 10 + (10 - 2**0.5) + 1 + (10 - 82**0.5) + (10 - 80**0.5)
    assert picked.gains == pytest.approx([first, 17.397, 8.602], abs=5e-4)
    assert first == pytest.approx(30.586, abs=5e-4) and picked.gains.sum() == pytest.approx(56.5855, abs=5e-4)
    assert picked.weights == pytest.approx(np.array([3, 2, 1]) / 2)
    s = steps_of(source) * source.step
    best = max(value(s, rows) for rows in combinations(range(6), 3))
    assert best == pytest.approx(57.0) and value(s, (0, 4, 5)) == pytest.approx(57.0)


def test_picks_and_gains_of_another_program() -> None:
    picked = facility_location(OTHER_ROWS, 5)
    assert picked.rows.tolist() == OTHER_PICKS
    assert picked.gains == pytest.approx(OTHER_GAINS, rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_it_is_the_plain_loop(route: str, dtype: type) -> None:
    x = rng(3).normal(size=(150, 6)).astype(dtype)
    source = Cosines(rows_of(x))
    s = steps_of(source)
    picks, gains = plain_loop(s, 150)
    picked = facility_location(x, 150)
    assert picked.rows.tolist() == picks
    assert picked.gains.tolist() == (np.array(gains) * source.step).astype(np.float32).tolist()
    assert picked.gains.sum(dtype=float) == pytest.approx(value(s, picks) * source.step, rel=1e-6)
    unrounded = x.astype(float) / np.linalg.norm(x.astype(float), axis=1)[:, None]
    assert picked.rows[:40].tolist() == plain_loop((1 + unrounded @ unrounded.T) / 2, 40)[0]


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(["cosine", "closeness", "far", "given"]))
def test_it_is_the_plain_loop_on_grids_full_of_ties(seed: int, kind: str) -> None:
    """Equal rows, equal gains, rows of zeros, and rows far from the origin; every size of list."""
    random = rng(seed)
    n = int(random.integers(1, 25))
    x = random.integers(-1, 2, size=(n, 2)).astype(np.float32)
    x = 4096 + x * np.float32(2**-10) if kind == "far" else x
    sources = {
        "cosine": lambda: Cosines(rows_of(x)),
        "given": lambda: Given(random.integers(0, 3, size=(int(random.integers(1, 9)), n)).astype(float)),
    }
    source = sources.get(kind, lambda: Closeness(rows_of(x), random.choice([None, 2.0**-9])))()
    with pytest.MonkeyPatch.context() as patch:
        serving = sys.modules["coretune.pickers.serving"]
        patch.setattr(serving, "SPARSE", int(random.integers(1, 4)))
        patch.setattr(serving, "HELD", int(random.choice([0, 1 << 20])))
        patch.setattr(serving, "PRODUCTS", 1)
        picked = facility_location(source, n)
    assert picked.rows.tolist() == plain_loop(steps_of(source), n)[0]


def test_equal_distances_are_equal_similarities() -> None:
    """On a grid far from the origin, and in another order: products cannot tell, differences can."""
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    order = rng().permutation(25)
    plain = Closeness(rows_of(grid + 1e6), 8.0).between(slice(None), slice(None)).astype(float)
    moved = Closeness(rows_of(grid[order] + 1e6), 8.0).between(slice(None), slice(None)).astype(float)
    assert (moved == plain[np.ix_(order, order)]).all()
    distances = np.sqrt(((grid[:, None] - grid) ** 2).sum(axis=2))
    assert plain * 8 / 2**24 == pytest.approx(np.maximum(0, 8 - distances), abs=8 / 2**24)


def test_at_least_as_good_as_greedy_must_be() -> None:
    for seed in range(6):
        source = Cosines(rows_of(rng(seed).normal(size=(11, 3))))
        s = steps_of(source)
        for k in (2, 3, 4):
            best = max(value(s, rows) for rows in combinations(range(11), k))
            assert value(s, facility_location(source, k).rows) >= (1 - 1 / np.e) * best


def test_near_duplicates_come_last_and_weights_count_rows_served(route: str) -> None:
    base = rng().normal(size=(40, 20)).astype(np.float32)
    x = np.concatenate([base, base, base * (1 + np.float32(1e-6))])
    picked = facility_location(x, 60)
    assert sorted((picked.rows[:40] % 40).tolist()) == list(range(40))
    assert picked.gains[40:] == pytest.approx(0, abs=1e-4)
    few = facility_location(x, 7)
    s = steps_of(Cosines(rows_of(x)))[:, few.rows]
    served = np.bincount(s.argmax(axis=1), minlength=7)
    assert few.weights == pytest.approx(served / served.mean())
    assert served.sum() == len(x)


def test_rows_and_candidates_may_be_others() -> None:
    s = rng().random((30, 70))
    picked = facility_location(Given(s), 9)
    assert picked.rows.tolist() == plain_loop(s, 9)[0]
    assert picked.gains == pytest.approx(plain_loop(s, 9)[1])
    assert picked.weights.sum() == pytest.approx(9)


def test_closeness_without_reach_leaves_no_pair_at_nothing() -> None:
    """The picks are then those of greedy k-medoids, whatever the reach above the largest distance."""
    x = rng().normal(size=(50, 3))
    steps = steps_of(Closeness(rows_of(x)))
    assert steps.min() > 0
    assert (
        facility_location(Closeness(rows_of(x)), 9).rows.tolist()
        == plain_loop(100 - np.sqrt(((x[:, None] - x) ** 2).sum(axis=2)), 9)[0]
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Given(np.array([[-1.0]])), "not negative; found -1 to -1"),
        (lambda: Given(np.array([[np.nan]])), "found nan"),
        (lambda: Given(np.ones(3)), r"found \(3,\) float64"),
        (lambda: Closeness(rows_of(TOY), reach=0), "reach must be above 0 and finite; found 0"),
        (lambda: Cosines(rows_of(np.array([[1.0], [np.inf]]))), "row 1 has a value that is not finite"),
        (lambda: neighbours(rows_of(np.array([[1.0], [np.nan]])), 1), "row 1 has a value that is not finite"),
        (lambda: neighbours(rows_of(TOY), 0), "0 asked"),
        (lambda: stochastic_facility_location(TOY, 1, rng=rng(), epsilon=1.0), "found 1.0"),
    ],
)
def test_what_cannot_be_compared_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# neighbours


def nearest(x: np.ndarray, t: int) -> tuple[np.ndarray, np.ndarray]:
    """The twin: the whole matrix, sorted."""
    steps = steps_of(Cosines(rows_of(x)))
    order = np.argsort(-steps, axis=1, kind="stable")[:, :t]
    return order, np.take_along_axis(steps, order, axis=1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize(("n", "t"), [(1, 1), (40, 40), (300, 7), (300, 500)])
@pytest.mark.parametrize("tile", [32, 2048])
def test_neighbours_are_the_whole_matrix_sorted(n: int, t: int, tile: int, dtype: type) -> None:
    x = rng(n).normal(size=(n, 5)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["coretune.distances.neighbours"], "TILE", tile)
        patch.setattr(sys.modules["coretune.distances.neighbours"], "WAITING", 3)
        found = neighbours(rows_of(x), t)
    order, steps = nearest(x, t)
    assert (found.which == order).all() and (found.steps == steps).all()


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_neighbours_among_equal_rows_are_the_lowest(seed: int) -> None:
    """More copies than neighbours, and near-copies that float32 cannot tell from them."""
    random = rng(seed)
    x = random.integers(-1, 2, size=(60, 3)) + random.choice([0, 3e-8, 3e-7]) * random.normal(size=(60, 3))
    t = int(random.integers(1, 20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["coretune.distances.neighbours"], "TILE", 16)
        patch.setattr(sys.modules["coretune.distances.neighbours"], "WAITING", int(random.integers(1, 9)))
        found = neighbours(rows_of(x), t)
    order, steps = nearest(x, t)
    assert (found.which == order).all() and (found.steps == steps).all()


def test_all_rows_as_neighbours_are_no_restriction() -> None:
    x = rng(8).normal(size=(120, 6)).astype(np.float32)
    whole, sparse = facility_location(x, 60), facility_location(neighbours(rows_of(x), 120), 60)
    assert sparse.rows.tolist() == whole.rows.tolist()
    assert sparse.gains.tolist() == whole.gains.tolist() and sparse.weights.tolist() == whole.weights.tolist()


def test_few_neighbours_are_the_plain_loop_on_what_is_left_and_nearly_as_good() -> None:
    centers = rng().normal(size=(12, 8))
    x = (centers[rng(1).integers(0, 12, 400)] + 0.4 * rng(2).normal(size=(400, 8))).astype(np.float32)
    graph = neighbours(rows_of(x), 40)
    picked = facility_location(graph, 40)
    assert picked.rows.tolist() == plain_loop(steps_of(graph), 40)[0]
    s = steps_of(Cosines(rows_of(x)))
    assert value(s, picked.rows) > 0.995 * value(s, facility_location(x, 40).rows)
    assert value(s, picked.rows) > 1.01 * value(s, rng().choice(400, 40, replace=False))


# stochastic


@pytest.mark.parametrize("sparse", [False, True])
def test_a_sample_of_all_is_the_plain_loop(sparse: bool) -> None:
    x = rng(4).normal(size=(90, 5))
    source = neighbours(rows_of(x), 12) if sparse else x
    picked = stochastic_facility_location(source, 20, rng=rng(), epsilon=1e-300)
    whole = facility_location(source, 20)
    assert picked.rows.tolist() == whole.rows.tolist()
    assert picked.gains.tolist() == whole.gains.tolist() and picked.weights.tolist() == whole.weights.tolist()


@pytest.mark.parametrize("sparse", [False, True])
def test_small_samples_are_nearly_as_good(sparse: bool) -> None:
    centers = rng().normal(size=(20, 6))
    x = centers[rng(1).integers(0, 20, 500)] + 0.3 * rng(5).normal(size=(500, 6))
    source = neighbours(rows_of(x), 60) if sparse else x
    s = steps_of(Cosines(rows_of(x)))
    whole = value(s, facility_location(source, 25).rows)
    drawn = [stochastic_facility_location(source, 25, rng=rng(seed)) for seed in range(5)]
    assert min(value(s, picked.rows) for picked in drawn) > 0.97 * whole
    assert np.mean([value(s, rng(seed).choice(500, 25, replace=False)) for seed in range(5)]) < 0.98 * whole
    if not sparse:
        assert [p.gains.sum() for p in drawn] == pytest.approx([value(s, p.rows) / 2**24 for p in drawn])


def test_stochastic_serves_rows_that_are_not_candidates() -> None:
    s = rng().random((30, 70))
    picked = stochastic_facility_location(Given(s), 9, rng=rng(), epsilon=1e-300)
    assert picked.rows.tolist() == plain_loop(s, 9)[0]
