"""Pickers that take a score beside rows: distance filter, sliding window, quality and coverage, middle."""

from __future__ import annotations

import logging
import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.distances import Cosines, Given, rows_of
from coretune.pickers import (
    distance_filter,
    facility_location,
    in_gains_of,
    k_center,
    middle,
    quality_and_coverage,
    sliding_window,
    top,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# distance filter


def scan(score: np.ndarray, x: np.ndarray, k: int, threshold: float) -> list[int]:
    """The twin: one row after the other, cosines in float64 in steps of 2^-23; then the best of those refused."""
    lengths = np.linalg.norm(x.astype(np.float64), axis=1)
    unit = x / np.where(lengths, lengths, 1)[:, None]
    order, taken = np.argsort(-score, kind="stable").tolist(), []
    for i in order:
        if all(np.rint(unit[i] @ unit[j] * 2**23) <= np.rint(threshold * 2**23) for j in taken):
            taken.append(i)
    return [*taken, *(i for i in order if i not in taken)][:k]


def test_a_row_refused_refuses_no_other() -> None:
    """cos(a, b) = cos(b, c) = .95 and cos(a, c) = .81: b goes, and c, like b alone, stays."""
    angles = np.arccos(0.95) * np.arange(3)
    x = np.c_[np.cos(angles), np.sin(angles)]
    picked = distance_filter(np.array([3.0, 2, 1]), x, 2)
    assert picked.rows.tolist() == [0, 2] and picked.gains.tolist() == [3, 1]


def test_rows_refused_follow_where_the_pool_ends(caplog: pytest.LogCaptureFixture) -> None:
    x = np.array([[1.0, 0], [1, 0.01], [0, 1], [1, 0.02], [0, 0]])
    with caplog.at_level(logging.WARNING):
        picked = distance_filter(np.array([5.0, 4, 1, 4.5, 0]), x, 5)
    assert picked.rows.tolist() == [0, 2, 4, 3, 1]
    assert picked.gains[:3].tolist() == [5, 1, 0] and np.isnan(picked.gains[3:]).all()
    assert "5 rows asked, 3 are no more alike than 0.9: the 2 best others follow" in caplog.text


def test_copies_are_alike_and_the_threshold_itself_is_allowed() -> None:
    x = rng().normal(size=(1, 300)).astype(np.float32).repeat(3, axis=0)
    assert np.isnan(distance_filter(np.zeros(3), x, 3).gains).tolist() == [False, True, True]
    assert not np.isnan(distance_filter(np.zeros(3), x, 3, threshold=1.0).gains).any()
    pair = np.array([[1.0, 0], [0.9, 0.19**0.5]])
    assert not np.isnan(distance_filter(np.zeros(2), pair, 2, threshold=0.9).gains).any()
    assert np.isnan(distance_filter(np.zeros(2), pair, 2, threshold=0.8999).gains[1])


@given(st.integers(0, 10**6), st.sampled_from([np.float16, np.float32, np.float64]), st.booleans())
def test_the_filter_is_the_scan(seed: int, dtype: type, small: bool) -> None:
    random = rng(seed)
    n, d = int(random.integers(1, 120)), int(random.integers(1, 6))
    x = random.integers(-3, 4, size=(n, d)).astype(dtype)
    score = random.integers(0, 9, size=n) / 4
    threshold = float(random.choice([-1, 0, 0.5, 0.8, 0.9, 1]))
    k = int(random.integers(n + 1))
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(sys.modules["coretune.pickers.distance_filter"], "BLOCK", 7)
            patch.setattr(sys.modules["coretune.pickers.distance_filter"], "SETTLED", 5)
        found = distance_filter(score, x, k, threshold=threshold)
    assert found.rows.tolist() == scan(score, x, k, threshold)


def test_the_filter_is_the_scan_on_many_rows_of_clusters() -> None:
    random = rng(3)
    x = (random.normal(size=(40, 64))[random.integers(40, size=3000)] + 0.35 * random.normal(size=(3000, 64))) * 2
    score = random.normal(size=3000)
    found = distance_filter(score, x.astype(np.float32), 1500)
    assert found.rows.tolist() == scan(score, x.astype(np.float32), 1500, 0.9)
    assert 500 < np.count_nonzero(~np.isnan(found.gains)) < 1500


def test_the_filter_refuses_what_it_cannot_do() -> None:
    x = rng().normal(size=(4, 2))
    with pytest.raises(ValueError, match=r"cosines are from -1 to 1"):
        distance_filter(np.zeros(4), x, 1, threshold=1.5)
    with pytest.raises(ValueError, match="found 4, 1 of them NaN"):
        distance_filter(np.array([0, np.nan, 1, 2]), x, 1)
    with pytest.raises(ValueError, match="found 3, 0"):
        distance_filter(np.zeros(3), x, 1)
    with pytest.raises(ValueError, match="row 0 has a value that is not finite"):
        distance_filter(np.zeros(4), np.where(np.eye(4, 2) == 1, np.nan, x), 1)


# sliding window


def window_by_loop(score: np.ndarray, x: np.ndarray, k: int, step: int, window: int) -> list[int]:
    """The twin: each batch is farthest-first by differences among the best `window` rows left."""
    order = np.argsort(-score, kind="stable").tolist()
    picks = order[:1]
    while len(picks) < k:
        ahead = sorted([i for i in order if i not in picks][:window])
        for _ in range(min(step, k - len(picks), len(ahead))):
            near = [min(((x[i] - x[j]) ** 2).sum() for j in picks) if i not in picks else -1 for i in ahead]
            picks.append(ahead[int(np.argmax(near))])
    return picks[:k]


@given(st.integers(0, 10**6))
def test_the_window_is_the_loop(seed: int) -> None:
    random = rng(seed)
    n = int(random.integers(1, 50))
    x = random.integers(-4, 5, size=(n, int(random.integers(1, 4)))).astype(np.float32)
    score = random.integers(0, 12, size=n).astype(np.float64)
    step = int(random.integers(1, 6))
    window, k = step + int(random.integers(0, 12)), int(random.integers(n + 1))
    found = sliding_window(score, x, k, step=step, window=window)
    assert found.rows.tolist() == window_by_loop(score, x.astype(np.float64), k, step, window)


def test_a_window_of_a_batch_is_the_best_rows_and_one_of_all_is_k_center() -> None:
    x, score = rng(1).normal(size=(400, 5)).astype(np.float32), rng(2).normal(size=400)
    for k in (1, 11, 101):
        assert set(sliding_window(score, x, k, step=10, window=10).rows.tolist()) == set(top(score, k).rows.tolist())
    every = sliding_window(score, x, 120, step=7, window=400)
    center = k_center(x, 120, start=int(score.argmax()))
    assert every.rows.tolist() == center.rows.tolist()
    assert every.gains == pytest.approx(center.gains, nan_ok=True)


def test_the_default_window_is_ten_batches() -> None:
    x, score = rng(1).normal(size=(600, 3)), rng(2).normal(size=600)
    assert sliding_window(score, x, 55).rows.tolist() == window_by_loop(score, x, 55, 50, 500)
    found = sliding_window(score, x, 20, step=5)
    assert found.rows.tolist() == window_by_loop(score, x, 20, 5, 50)
    assert np.isnan(found.gains[0]) and (np.diff(found.gains[1:6]) <= 0).all()


def test_the_window_refuses_what_it_cannot_do() -> None:
    x = rng().normal(size=(4, 2))
    for options in ({"step": 0}, {"step": 5, "window": 4}):
        with pytest.raises(ValueError, match="1 <= step <= window"):
            sliding_window(np.zeros(4), x, 2, **options)
    with pytest.raises(ValueError, match="1 of them NaN"):
        sliding_window(np.array([0, np.nan, 1, 2]), x, 2)


# quality and coverage

LIKENESS = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]])
QUALITY = np.array([0.9, 0.85, 0.3])


@pytest.mark.parametrize(("alpha", "rows"), [(0.0, {1, 2}), (0.5, {1, 2}), (0.8, {0, 1}), (1.0, {0, 1})])
def test_quality_and_coverage_by_hand(alpha: float, rows: set[int]) -> None:
    assert set(quality_and_coverage(Given(LIKENESS), QUALITY, 2, alpha=alpha).rows.tolist()) == rows


def value(s: np.ndarray, score: np.ndarray, picks: list[int], alpha: float) -> float:
    return (1 - alpha) * s[:, picks].max(axis=1).sum() + alpha * score[picks].sum()


def greedy(s: np.ndarray, score: np.ndarray, k: int, alpha: float) -> list[int]:
    """The twin: the value of every set with one row more."""
    picks: list[int] = []
    while len(picks) < k:
        found = [value(s, score, [*picks, i], alpha) if i not in picks else -np.inf for i in range(s.shape[1])]
        picks.append(int(np.argmax(found)))
    return picks


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_quality_and_coverage_is_the_loop_and_near_the_best(seed: int, alpha: float) -> None:
    random = rng(seed)
    s, score = random.random((14, 10)), random.random(10) * 5
    picked = quality_and_coverage(Given(s), score, 4, alpha=alpha)
    assert picked.rows.tolist() == greedy(s, score, 4, alpha)
    mine = value(s, score, picked.rows.tolist(), alpha)
    assert picked.gains.sum() == pytest.approx(mine, rel=1e-5)
    best = max(value(s, score, list(some), alpha) for some in combinations(range(10), 4))
    assert mine >= (1 - 1 / np.e) * best


def test_at_the_ends_it_is_facility_location_and_top() -> None:
    x, score = rng(1).normal(size=(150, 6)), rng(2).normal(size=150)
    one = quality_and_coverage(x, score, 40, alpha=0.0)
    assert one.rows.tolist() == facility_location(x, 40).rows.tolist()
    assert one.gains == pytest.approx(facility_location(x, 40).gains, rel=1e-6)
    assert quality_and_coverage(x, score, 40, alpha=1.0).rows.tolist() == top(score, 40).rows.tolist()
    assert quality_and_coverage(Cosines(rows_of(x)), score, 9, alpha=0.3).weights.tolist() == [1] * 9


def test_rescaled_scores_reach_what_coverage_reaches() -> None:
    x, score = rng(1).normal(size=(300, 4)), rng(2).random(300)
    coverage = facility_location(x, 30)
    rescaled = in_gains_of(coverage, score)
    assert top(rescaled, 30).gains.sum() == pytest.approx(coverage.gains.sum(), rel=1e-5)
    assert (np.argsort(rescaled) == np.argsort(score)).all()
    alike = quality_and_coverage(x, rescaled, 30, alpha=0.5).rows
    assert 0.6 < score[coverage.rows].mean() + 0.1 < score[alike].mean() < top(score, 30).gains.mean()
    with pytest.raises(ValueError, match="only a sum above 0"):
        in_gains_of(coverage, -score)


def test_quality_and_coverage_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        quality_and_coverage(Given(LIKENESS), QUALITY, 2, alpha=1.5)
    with pytest.raises(ValueError, match="3 rows need a finite score each; found 2"):
        quality_and_coverage(Given(LIKENESS), QUALITY[:2], 2, alpha=0.5)
    with pytest.raises(ValueError, match="finite score"):
        quality_and_coverage(Given(LIKENESS), np.array([0, np.inf, 1]), 2, alpha=0.5)


# middle


def test_the_middle_by_hand() -> None:
    score = np.array([50.0, 10, 40, 20, 30])
    assert middle(score, 5).rows.tolist() == [4, 3, 2, 1, 0]
    assert middle(score, 3).gains == pytest.approx([0, -0.2, -0.2])
    assert middle(score[:4], 2).rows.tolist() == [3, 2]  # ranks 10 20 | 40 50
    assert middle(np.zeros(5), 3).rows.tolist() == [2, 1, 3]
    with pytest.raises(ValueError, match="row 1 has no score"):
        middle(np.array([1.0, np.nan]), 1)


@given(st.integers(0, 10**6))
def test_the_middle_is_a_band_of_the_ranking_round_its_centre(seed: int) -> None:
    random = rng(seed)
    n = int(random.integers(1, 40))
    k = int(random.integers(1, n + 1))
    score = random.permutation(n)
    band = np.sort(score[middle(score, k).rows])
    assert (np.diff(band) == 1).all() and abs(int(band[0]) - (n - 1 - int(band[-1]))) <= 1
