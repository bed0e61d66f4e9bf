"""Pickers: worked numbers, naive twins, and what each promises beyond the laws of tests/laws/test_pickers.py."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.pickers import closest, drawn, k_center, top, uniform
from coretune.pickers.top import highest
from coretune.scores.draw_weights import linear_weights, softmax_weights

ANGLES = np.deg2rad([0, 5, 12, 20, 40])
TASK = np.c_[np.cos(ANGLES), np.sin(ANGLES)]
SCORES = np.array([36.0, 30.0, 25.0, 16.0, 9.0, 4.0])
QUALITY = np.array([0.30, 0.25, 0.208, 0.133, 0.075, 0.033])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# k-center


def farthest_first(x: np.ndarray, k: int, start: int | None = None, chosen: list[int] | None = None) -> list[int]:
    """The twin: the plain loop in float64, ties to the lower row."""
    x = x.astype(np.float64)
    picks = list(chosen or [])
    if start is not None or not picks:
        picks.append(int(((x - x.mean(axis=0)) ** 2).sum(axis=1).argmin()) if start is None else start)
    near = np.min([((x - x[row]) ** 2).sum(axis=1) for row in picks], axis=0)
    while len(picks) < k + len(chosen or []):
        near[picks] = -1
        picks.append(int(near.argmax()))
        near = np.minimum(near, ((x - x[picks[-1]]) ** 2).sum(axis=1))
    return picks[len(chosen or []) :]


def radius(x: np.ndarray, picks: list[int]) -> float:
    """The largest distance of any row to its nearest pick."""
    return float(np.sqrt(((x[:, None] - x[picks]) ** 2).sum(axis=2)).min(axis=1).max())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_k_center_worked_example(dtype: type) -> None:
    """The gain of a pick is the radius before it; the start has none."""
    picked = k_center(TASK.astype(dtype), 5, start=2)
    assert picked.rows.tolist() == [2, 4, 0, 3, 1]
    assert np.isnan(picked.gains[0])
    assert picked.gains[1:] == pytest.approx([0.4838, 0.2091, 0.1395, 0.0872], abs=5e-5)
    three = picked.rows[:3].tolist()
    assert radius(TASK, three) == pytest.approx(0.1395, abs=5e-5)
    best = min(combinations(range(5), 3), key=lambda rows: radius(TASK, list(rows)))
    assert best == (1, 3, 4) and radius(TASK, list(best)) == pytest.approx(0.1221, abs=5e-5)
    assert radius(TASK, [2, 3, 1]) == pytest.approx(0.3473, abs=5e-5)  # the three nearest the centre


def test_k_center_is_sequential() -> None:
    """The three rows farthest from row 0 are the near-duplicates 3, 4 and 2."""
    x = np.array([(0, 0), (1, 0), (8, 0), (8.2, 0), (8.1, 0.3), (0, 6), (-3, -3)], float)
    picked = k_center(x, 3, chosen=[0])
    assert picked.rows.tolist() == [3, 5, 6]
    assert picked.gains == pytest.approx([8.2, 6.0, 18**0.5])
    assert radius(x, [0, 3, 5, 6]) == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize(("n", "d", "k"), [(60, 3, 60), (3000, 8, 300), (6000, 2, 40)])
def test_k_center_is_the_plain_loop(n: int, d: int, k: int, dtype: type) -> None:
    x = (rng(n).normal(size=(n, d)) * [3.0] + 5).astype(dtype)
    picked = k_center(x, k)
    assert picked.rows.tolist() == farthest_first(x, k)
    wide = x.astype(np.float64)
    exact = [radius(wide, picked.rows[:i].tolist()) for i in (1, 2, k // 2)]
    assert picked.gains[[1, 2, k // 2]] == pytest.approx(exact)


@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.booleans())
def test_k_center_is_the_plain_loop_on_grids_full_of_ties(seed: int, starts: bool, far: bool, small: bool) -> None:
    """Ties within and between blocks, and, far from the origin, distances that float32 products cannot tell apart."""
    random = rng(seed)
    n = int(random.integers(2, 30))
    x = random.integers(0, 3, size=(n, 2)).astype(np.float32)
    x = 8192 + x * np.float32(2**-10) if far else x
    chosen = random.permutation(n)[: random.integers(0, n // 2)].tolist()
    free = [row for row in range(n) if row not in chosen]
    start = int(random.choice(free)) if starts else None
    k = int(random.integers(1, len(free) + 1))
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(sys.modules["coretune.pickers.k_center"], "BLOCK", 3)
            patch.setattr(sys.modules["coretune.pickers.k_center"], "CHUNK", 2)
        assert k_center(x, k, start=start, chosen=chosen).rows.tolist() == farthest_first(x, k, start, chosen)


def test_k_center_leaves_near_duplicates_for_last() -> None:
    """In float32 |a|^2 + |b|^2 - 2ab is negative for many of these pairs, and argmax picks the NaN of its root."""
    random = rng()
    base = random.normal(size=(60, 4096)).astype(np.float32) * 5.4
    twins = base + (random.normal(size=base.shape) * 1e-4 / 64).astype(np.float32)
    x = np.concatenate([base, twins])
    lengths = np.einsum("ij,ij->i", x, x)
    assert (lengths[:60] + lengths[60:] - 2 * np.einsum("ij,ij->i", base, twins) < 0).mean() > 0.2
    picked = k_center(x, 120)
    assert picked.rows.tolist() == farthest_first(x, 120)
    assert len(set((picked.rows[:60] % 60).tolist())) == 60
    assert np.isfinite(picked.gains[1:]).all()


def test_k_center_chooses_copies_of_a_chosen_row_last_and_lower_rows_first() -> None:
    x = np.repeat(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 7.0]]), 3, axis=0)
    picked = k_center(x, 9, start=4)
    assert picked.rows.tolist() == [4, 6, 0, 1, 2, 3, 5, 7, 8]
    assert picked.gains[3:].tolist() == [0] * 6


@pytest.mark.parametrize("copies", [1500, 5000])
def test_k_center_settles_more_ties_than_a_block_holds(copies: int) -> None:
    x = np.zeros((copies + 2, 3), np.float32)
    x[copies // 2] = 1
    x[copies + 1] = 2
    picked = k_center(x, 6, start=0)
    assert picked.rows.tolist() == [0, copies + 1, copies // 2, 1, 2, 3]


def test_k_center_radius_never_grows_and_every_pick_keeps_its_distance() -> None:
    x = rng(3).normal(size=(2500, 5)).astype(np.float32)
    picked = k_center(x, 400)
    assert (np.diff(picked.gains[1:]) <= 0).all()
    rows = x[picked.rows].astype(np.float64)
    away = np.sqrt(((rows[:, None] - rows) ** 2).sum(axis=2)) + np.eye(400) * 1e9
    assert away.min() >= radius(x.astype(np.float64), picked.rows.tolist())


@given(st.integers(0, 10**6))
def test_k_center_radius_is_at_most_twice_the_best(seed: int) -> None:
    x = rng(seed).normal(size=(9, 2))
    for k in (2, 3):
        best = min(radius(x, list(rows)) for rows in combinations(range(9), k))
        assert radius(x, k_center(x, k, start=seed % 9).rows.tolist()) <= 2 * best + 1e-12


def test_k_center_goes_on_from_what_is_chosen() -> None:
    """Rounds of an unchanged embedding are one run, whoever asks for them."""
    x = rng(8).normal(size=(1800, 6)).astype(np.float32)
    whole = k_center(x, 90).rows.tolist()
    assert k_center(x, 60, chosen=whole[:30]).rows.tolist() == whole[30:]
    assert k_center(x, 59, start=whole[30], chosen=np.array(whole[:30])).rows.tolist() == whole[30:89]


def test_k_center_takes_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(rng().normal(size=(2000, 16)).astype(np.float32))
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        rows = x.to(dtype)
        assert k_center(rows, 200).rows.tolist() == farthest_first(rows.double().numpy(), 200)


def test_k_center_refuses_what_it_cannot_do() -> None:
    x = rng().normal(size=(6, 2))
    with pytest.raises(ValueError, match="5 rows asked of 6 rows with 2 of them already chosen"):
        k_center(x, 5, chosen=[0, 1])
    with pytest.raises(ValueError, match="start 6"):
        k_center(x, 2, start=6)
    with pytest.raises(ValueError, match=r"start 1 .* not chosen"):
        k_center(x, 2, start=1, chosen=[1])
    with pytest.raises(ValueError, match="distinct"):
        k_center(x, 2, chosen=[1, 1])
    with pytest.raises(ValueError, match=r"found \(6,\)"):
        k_center(x[:, 0], 2)
    with pytest.raises(ValueError, match="int64"):
        k_center(np.zeros((3, 2), np.int64), 2)
    x[4, 1] = np.inf
    with pytest.raises(ValueError, match="row 4 has a value that is not finite"):
        k_center(x, 2)


# top, closest


def test_top_takes_the_highest_with_ties_to_the_lower_row() -> None:
    picked = top(np.array([1.0, 3.0, -np.inf, 3.0, 2.0]), 4)
    assert picked.rows.tolist() == [1, 3, 4, 0]
    assert picked.gains.tolist() == [3, 3, 2, 1]
    assert top(np.array([5, 7, 7], np.uint8), 2).rows.tolist() == [1, 2]
    with pytest.raises(ValueError, match="row 1 has no score"):
        top(np.array([1.0, np.nan]), 1)


@given(st.lists(st.integers(-3, 3), max_size=60), st.data())
def test_highest_is_a_stable_sort(keys: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(keys)))
    expected = sorted(range(len(keys)), key=lambda i: (-keys[i], i))[:k]
    assert highest(np.array(keys, dtype=data.draw(st.sampled_from(["i4", "f4", "f8"]))), k).tolist() == expected


def test_closest_takes_the_nearest_with_ties_to_the_lower_row() -> None:
    x = np.array([[0.0, 2.0], [3.0, 0.0], [0.0, -2.0], [0.5, 0.0]], np.float32)
    picked = closest(x, np.zeros(2), 3)
    assert picked.rows.tolist() == [3, 0, 2]
    assert picked.gains.tolist() == [-0.5, -2, -2]
    with pytest.raises(ValueError, match="2 finite numbers; found shape"):
        closest(x, np.zeros(3), 1)
    with pytest.raises(ValueError, match="row 0 has a value that is not finite"):
        closest(x * np.nan, np.zeros(2), 1)


def test_closest_takes_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = rng().normal(size=(50, 4)).astype(np.float32)
    assert closest(torch.from_numpy(x), x[0], 9).rows.tolist() == closest(x, x[0], 9).rows.tolist()


# drawn, uniform


def inclusion(p: np.ndarray, k: int) -> np.ndarray:
    """The twin: exact chances to be among `k` rows drawn one after the other without replacement."""
    found = np.zeros(len(p))
    for order in permutations(range(len(p)), k):
        chance, left = 1.0, p.sum()
        for row in order:
            chance, left = chance * p[row] / left, left - p[row]
        found[list(order)] += chance
    return found


def test_draws_are_sequential_draws_without_replacement() -> None:
    exact = inclusion(SCORES, 2)
    assert exact == pytest.approx([0.5598, 0.4903, 0.4232, 0.2854, 0.1660, 0.0753], abs=5e-5)
    random, runs = rng(), 20_000
    counts = Counter(row for _ in range(runs) for row in drawn(np.log(SCORES), 2, rng=random).rows.tolist())
    assert np.array([counts[row] for row in range(6)]) / runs == pytest.approx(exact, abs=0.015)


def test_worked_weights_by_softmax_and_in_proportion() -> None:
    """What each row's chance is in the first draw."""

    def first(log_weights: np.ndarray) -> np.ndarray:
        return np.exp(log_weights) / np.exp(log_weights).sum()

    assert first(softmax_weights(SCORES)) == pytest.approx([0.9975, 0.0025, 0, 0, 0, 0], abs=5e-5)
    assert first(softmax_weights(SCORES, temperature=5)) == pytest.approx(
        [0.696, 0.210, 0.077, 0.013, 0.003, 0.001], abs=5e-4
    )
    assert first(linear_weights(SCORES)) == pytest.approx(QUALITY, abs=5e-4)
    random, runs = rng(), 4000
    counts = Counter(int(drawn(softmax_weights(SCORES, temperature=5), 1, rng=random).rows[0]) for _ in range(runs))
    assert counts[0] / runs == pytest.approx(0.696, abs=0.03)


def test_huge_scores_do_not_overflow() -> None:
    """exp(720) is not a float."""
    picked = drawn(softmax_weights(np.array([720.0, 719.0, 0.0])), 3, rng=rng())
    assert np.isfinite(picked.gains).all() and set(picked.rows.tolist()) == {0, 1, 2}
    assert picked.rows[2] == 2


def test_rows_of_weight_zero_come_last_at_random_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    weights = np.array([-np.inf, 0.0, -np.inf, 1.0, -np.inf])
    with caplog.at_level(logging.WARNING):
        picks = [drawn(weights, 4, rng=rng(seed)) for seed in range(40)]
    assert all(set(each.rows[:2].tolist()) == {1, 3} for each in picks)
    assert {int(each.rows[2]) for each in picks} == {0, 2, 4}
    assert all(np.isnan(each.gains[2:]).all() and np.isfinite(each.gains[:2]).all() for each in picks)
    assert "4 rows asked, 2 have a weight above 0: 2 of weight 0 follow at random" in caplog.text
    caplog.clear()
    assert set(drawn(weights, 2, rng=rng()).rows.tolist()) == {1, 3} and not caplog.text
    assert len(drawn(np.full(3, -np.inf), 3, rng=rng())) == 3


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_named(wrong: float) -> None:
    with pytest.raises(ValueError, match=f"row 2 has log-weight {wrong}"):
        drawn(np.array([0.0, 1.0, wrong]), 1, rng=rng())


def test_equal_weights_of_any_size_are_a_uniform_draw() -> None:
    for weight in (0.0, -3.7, 900.0, 1e17):
        assert drawn(np.full(30, weight), 12, rng=rng(2)).rows.tolist() == uniform(30, 12, rng=rng(2)).rows.tolist()
    counts = np.bincount([row for seed in range(3000) for row in uniform(6, 2, rng=rng(seed)).rows], minlength=6)
    assert counts / 3000 == pytest.approx(np.full(6, 1 / 3), abs=0.04)
