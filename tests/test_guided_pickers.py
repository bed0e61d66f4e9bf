"""Facility location for a target, beyond what is known, and again and again: worked numbers, the plain loop, laws."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coretune.distances import Cosines, Given, beyond, capped, rows_of, weighted
from coretune.pickers import (
    conditional_facility_location,
    facility_location,
    query_facility_location,
    repeated_facility_location,
    saturating_facility_location,
)
from coretune.selection import Selection

S = np.array([[1, 0.8, 0.1, 0], [0.7, 1, 0.2, 0.1], [0, 0.1, 1, 0.3], [0.1, 0, 0.4, 1]])
RELEVANCE = np.array([0.1, 0.2, 0.9, 0.6])
TARGET = np.array([[0.1, 0.2, 0.9, 0.5], [0, 0.1, 0.4, 0.6]])
KNOWN = np.array([0.9, 0.8, 0.1, 0.2])

Value = Callable[[list[int]], float]


def covered(s: np.ndarray, picks: list[int]) -> np.ndarray:
    return s[:, picks].max(axis=1) if picks else np.zeros(len(s))


def functions(s: np.ndarray, row: np.ndarray, eta: float, weights: np.ndarray) -> dict[str, tuple[Value, Selection]]:
    """The set functions as they are written, and all candidates in the order in which each picker takes them."""
    n, source = s.shape[1], Given(s)
    return {
        "saturating": (
            lambda picks: float(np.minimum(covered(s, picks), eta * row).sum()),
            saturating_facility_location(source, row, n, eta=eta),
        ),
        "conditional": (
            lambda picks: float(np.maximum(covered(s, picks) - eta * row, 0).sum()),
            conditional_facility_location(source, row, n, nu=eta),
        ),
        "query": (
            lambda picks: float(weights @ covered(s, picks) + eta * s[:, picks].max(axis=0).sum()),
            query_facility_location(source, n, eta=eta, weights=weights),
        ),
    }


def plain_loop(value: Value, n: int, k: int) -> tuple[list[int], list[float]]:
    """The twin: every gain from scratch for every pick, ties to the lower row."""
    picks: list[int] = []
    gains: list[float] = []
    for _ in range(k):
        adds = [-np.inf if j in picks else value([*picks, j]) - value(picks) for j in range(n)]
        picks.append(int(np.argmax(adds)))
        gains.append(max(adds))
    return picks, gains


def test_worked_numbers() -> None:
    """Of four rows: what each adds first, and what they add in turn."""
    plain = facility_location(Given(S), 3)
    assert S.sum(axis=0) == pytest.approx([1.8, 1.9, 1.7, 1.4])
    assert plain.rows.tolist() == [1, 2, 3] and plain.gains == pytest.approx([1.9, 1.3, 0.6])
    singles = np.minimum(S, RELEVANCE[:, None]).sum(axis=0)
    saturating = saturating_facility_location(Given(S), RELEVANCE, 4)
    assert singles == pytest.approx([0.4, 0.4, 1.6, 1.0])
    assert saturating.rows.tolist()[:2] == [2, 3] and saturating.gains == pytest.approx([1.6, 0.2, 0, 0], abs=1e-6)
    query = query_facility_location(Given(TARGET), 3)
    assert TARGET.sum(axis=0) + TARGET.max(axis=0) == pytest.approx([0.2, 0.5, 2.2, 1.7])
    assert query.rows.tolist() == [2, 3, 1] and query.gains == pytest.approx([2.2, 0.8, 0.2])
    conditional = conditional_facility_location(Given(S), KNOWN, 3)
    assert np.maximum(S - KNOWN[:, None], 0).sum(axis=0) == pytest.approx([0.1, 0.2, 1.1, 1.0])
    assert conditional.rows.tolist() == [2, 3, 1] and conditional.gains == pytest.approx([1.1, 0.6, 0.2])


def test_picks_and_gains_of_another_program() -> None:
    """Those of submodlib-py 0.0.3, LazyGreedy, for these numbers."""
    random = np.random.default_rng(5)
    s, query = np.round(random.random((30, 30)) ** 3, 3), np.round(random.random((30, 4)) ** 2, 3)
    found = (
        saturating_facility_location(Given(s), query.max(axis=1), 6, eta=1.5),
        query_facility_location(Given(query.T.copy()), 6, eta=0.5),
        conditional_facility_location(Given(s), query.max(axis=1), 6, nu=0.5),
    )
    want = (
        ([14, 16, 26, 23, 9, 8], [10.76, 4.7355, 3.481, 2.215, 1.232, 1.214]),
        ([11, 14, 15, 5, 10, 18], [3.0565, 1.4485, 0.848, 0.5375, 0.484, 0.482]),
        ([21, 2, 23, 15, 8, 14], [4.0565, 3.3565, 2.1935, 1.816, 1.1735, 0.87]),
    )
    for picked, (rows, gains) in zip(found, want, strict=True):
        assert picked.rows.tolist() == rows and picked.gains == pytest.approx(gains, abs=2e-6)


@settings(max_examples=50)
@given(st.integers(0, 10**6))
def test_they_are_the_plain_loop_on_numbers_full_of_ties(seed: int) -> None:
    """In quarters, and weights in powers of 2, so that sums are exact in the twin too; every size of list."""
    random = np.random.default_rng(seed)
    m, n = (int(random.integers(1, 8)) for _ in range(2))
    s, row = random.integers(0, 5, (m, n)) / 4, random.integers(0, 4, m) / 4
    s[0, 0] = 1
    weights, eta = 2.0 ** random.integers(-2, 3, m), float(random.choice([0, 0.5, 1, 2]))
    with pytest.MonkeyPatch.context() as patch:
        serving = sys.modules["coretune.pickers.serving"]
        patch.setattr(serving, "SPARSE", int(random.integers(1, 4)))
        patch.setattr(serving, "HELD", int(random.choice([0, 1 << 20])))
        for value, picked in functions(s, row, eta, weights).values():
            picks, gains = plain_loop(value, n, n)
            assert picked.rows.tolist() == picks
            assert picked.gains == pytest.approx(gains, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_greedy_reaches_its_share_of_the_best_choice_and_gains_shrink(seed: int) -> None:
    """At least 1 - 1/e of the best three of nine; a pick adds no more to a larger set: monotone and submodular."""
    random = np.random.default_rng(seed)
    s, row = random.random((6, 9)) ** 3, random.random(6) ** 2
    for value, picked in functions(s, row, 0.7, random.random(6)).values():
        best = max(value(list(rows)) for rows in combinations(range(9), 3))
        reached = float(picked.gains[:3].sum(dtype=float))
        assert reached == pytest.approx(value(picked.rows[:3].tolist()), rel=1e-5)
        assert best * (1 - 1 / np.e) <= reached <= best * (1 + 1e-6)
        for _ in range(50):
            order = random.permutation(9).tolist()
            small, large = order[: int(random.integers(1, 4))], order[: int(random.integers(4, 9))]
            first = value([*small, order[8]]) - value(small)
            later = value([*large, order[8]]) - value(large)
            assert first >= later - 1e-9 and later >= -1e-9


def test_they_meet_facility_location_at_their_ends() -> None:
    """No known rows, no limit, no relevance: the same picks and gains, weights too where there are any."""
    x = np.random.default_rng(2).normal(size=(40, 5))
    source, plain = Cosines(rows_of(x)), facility_location(x, 40)
    for picked in (
        conditional_facility_location(x, np.zeros(40), 40),
        conditional_facility_location(source, np.ones(40), 40, nu=0.0),
        saturating_facility_location(x, np.zeros(40), 40, eta=np.inf),
        saturating_facility_location(source, np.full(40, 2.0), 40),
    ):
        assert picked.rows.tolist() == plain.rows.tolist() and picked.gains.tolist() == plain.gains.tolist()
        assert picked.weights.tolist() == plain.weights.tolist()
    assert query_facility_location(source, 40, eta=0.0).rows.tolist() == plain.rows.tolist()
    same = query_facility_location(source, 40, weights=np.full(40, 3.0))
    assert same.rows.tolist() == query_facility_location(source, 40, eta=1 / 3).rows.tolist()


def test_a_copy_waits_until_nothing_else_adds() -> None:
    random = np.random.default_rng(3)
    s = random.random((12, 8))
    s = np.concatenate([s, s[:, :1]], axis=1)
    picked = facility_location(Given(s), 9)
    places = [picked.rows.tolist().index(row) for row in (0, 8)]
    assert places[0] < places[1] and picked.gains[places[1]] == 0
    assert (picked.gains[: places[1]] >= 0).all() and (picked.gains[places[1] :] == 0).all()


def test_adjusted_similarities_are_the_arithmetic_they_say() -> None:
    row = np.array([0.5, 0.25, 1.0, 0.0])
    whole = (slice(None), slice(None))
    for made, want in (
        (capped(Given(S), row), np.minimum(S, row[:, None])),
        (beyond(Given(S), row), np.maximum(S - row[:, None], 0)),
        (weighted(Given(S), 3 * row), 3 * row[:, None] * S),
    ):
        np.testing.assert_allclose(made.between(*whole) * made.step, want, atol=3e-7)
        steps = made.between(np.array([2, 0]), np.array([1]))
        np.testing.assert_array_equal(steps, made.between(*whole)[[2, 0]][:, [1]])
        assert (made.between(*whole) % 1 == 0).all() and made.between(*whole).max() <= 2**24


def test_it_begins_anew_where_plain_greedy_would_take_the_lowest_rows() -> None:
    """Two rows to serve: a cover by 2 and 4, one by 1 and 3, one by 5; and 0, which serves none."""
    s = np.array([[0, 0.8, 1, 0.1, 0, 0.3], [0, 0.1, 0.1, 0.6, 0.9, 0.2]])
    picked = repeated_facility_location(Given(s), 6)
    assert picked.rows.tolist() == [2, 4, 1, 3, 5, 0]
    assert picked.gains == pytest.approx([1.1, 0.8, 0.9, 0.5, 0.5, 0])
    assert facility_location(Given(s), 6).rows.tolist() == [2, 4, 0, 1, 3, 5]


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_beginning_anew_is_facility_location_among_the_rest(seed: int) -> None:
    """The twin: covers one after the other, each by facility location among the rows that are left."""
    random = np.random.default_rng(seed)
    s = random.choice([0, 0.25, 0.5, 1], (int(random.integers(1, 5)), int(random.integers(1, 15))))
    left, want = np.arange(s.shape[1]), []
    while len(left):
        cover = facility_location(Given(s[:, left]), len(left))
        take = cover.rows[cover.gains > 0] if (cover.gains > 0).any() else cover.rows
        want += left[take].tolist()
        left = np.delete(left, take)
    assert repeated_facility_location(Given(s), s.shape[1]).rows.tolist() == want


@pytest.mark.parametrize("bad", [np.full(4, -0.1), np.full(4, np.nan), np.zeros(3)])
def test_numbers_that_mean_nothing_are_refused(bad: np.ndarray) -> None:
    for call in (
        lambda: conditional_facility_location(Given(S), bad, 2),
        lambda: saturating_facility_location(Given(S), bad, 2),
        lambda: query_facility_location(Given(S), 2, weights=bad),
        lambda: conditional_facility_location(Given(S), KNOWN, 2, nu=-1.0),
        lambda: saturating_facility_location(Given(S), KNOWN, 2, eta=float("nan")),
        lambda: query_facility_location(Given(S), 2, eta=float("inf")),
        lambda: query_facility_location(Given(S), 2, weights=np.zeros(4)),
    ):
        with pytest.raises(ValueError, match=r"found|asked"):
            call()
