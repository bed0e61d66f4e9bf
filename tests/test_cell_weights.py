"""Weights of cells from round to round: the worked numbers of the paper's rules, and what holds for any scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coretune.partitions import proportional
from coretune.scores.cell_weights import carried_over, cell_means, softmax_of, standardised

GOLD, GEN = np.array([3, 2.5, 1, 0.5, 2, 2]), np.array([2, 2.5, 1.4, 0.1, 0.5, 1])
CELLS = np.array([0, 0, 1, 1, 2, 2])
THIRDS = np.full(3, 1 / 3)
COUNT = 6
NUMBERS = st.one_of(st.floats(-1e6, -1e-6), st.floats(1e-6, 1e6), st.just(0.0), st.just(float("nan")))
scores = arrays(np.float64, COUNT, elements=NUMBERS)
weights = arrays(np.float64, COUNT, elements=st.floats(0, 1e3)).filter(lambda each: each.sum() > 1e-3)


def test_the_worked_example() -> None:
    means = cell_means(GOLD - GEN, CELLS, 3)
    assert means == pytest.approx([0.5, 0, 1.25])
    once = carried_over(THIRDS, means)
    assert once == pytest.approx([0.2857, 0, 0.7143], abs=5e-5)
    assert softmax_of(means) == pytest.approx([0.2686, 0.1629, 0.5685], abs=5e-5)
    assert softmax_of(10 * means) == pytest.approx([0.0006, 0, 0.9994], abs=5e-5)
    # eq. 6 as printed: shares of the scores times the weights, which sum to 1/3
    printed = means / means.sum() * THIRDS
    assert printed == pytest.approx([0.0952, 0, 0.2381], abs=5e-5)
    assert once == pytest.approx(printed / printed.sum())


def test_two_identical_rounds_with_a_memory_and_without() -> None:
    means = cell_means(GOLD - GEN, CELLS, 3)
    assert carried_over(carried_over(THIRDS, np.exp(means)), np.exp(means)) == pytest.approx(
        [0.1710, 0.0629, 0.7662], abs=5e-5
    )
    twice = carried_over(carried_over(THIRDS, means), means)
    assert twice == pytest.approx(np.array([0.25, 0, 1.5625]) / 1.8125)


@pytest.mark.parametrize("negative", [(0.5, -0.4, 1.25), (0.3, -0.35, 0.02)])
def test_negative_scores_count_as_nothing(negative: tuple[float, ...]) -> None:
    found = carried_over(THIRDS, np.array(negative))
    assert found == pytest.approx(np.maximum(negative, 0) / np.maximum(negative, 0).sum())
    assert np.array_equal(carried_over(np.array([0.2, 0.3, 0.5]), np.array([-1.0, 0.0, -3.0])), [0.2, 0.3, 0.5])


def test_a_cell_at_nothing_comes_back_only_with_a_floor() -> None:
    bad, good = np.array([1.0, -1.0, 1.0]), np.array([1.0, 5.0, 1.0])
    assert carried_over(carried_over(THIRDS, bad), good)[1] == 0
    low = carried_over(THIRDS, bad, floor=1e-3 / 3)
    assert low[1] == pytest.approx(1e-3 / 3, rel=1e-3)
    assert carried_over(low, good, floor=1e-3 / 3)[1] == pytest.approx(5 * low[1], rel=1e-2)


def test_a_cell_without_a_score_is_neutral() -> None:
    means = cell_means(np.array([1.0, np.nan, 3.0, np.nan]), np.array([0, 0, 2, 1]), 4)
    assert np.array_equal(np.isnan(means), [False, True, False, True])
    before = np.array([0.1, 0.2, 0.3, 0.4])
    after = carried_over(before, means)
    assert after == pytest.approx([0.04, 0.2, 0.36, 0.4])  # 1 x 0.1 and 3 x 0.3 share 0.4
    assert carried_over(before, np.array([-2.0, np.nan, -1.0, np.nan])) == pytest.approx(before)
    assert softmax_of(np.array([1.0, np.nan, 3.0])) == pytest.approx(softmax_of(np.array([1.0, 2.0, 3.0])))
    assert softmax_of(np.full(4, np.nan)) == pytest.approx(np.full(4, 0.25))


def test_means_are_those_of_a_loop(rng: np.random.Generator) -> None:
    values, cells = rng.normal(size=200), rng.integers(0, 9, 200)
    values[rng.random(200) < 0.3] = np.nan
    twin = [values[(cells == cell) & ~np.isnan(values)] for cell in range(10)]
    means = cell_means(values, cells, 10)
    assert means[:9] == pytest.approx([each.mean() for each in twin[:9]])
    assert np.isnan(means[9])


@given(before=weights, said=scores)
def test_weights_are_shares(before: np.ndarray, said: np.ndarray) -> None:
    for found in (carried_over(before, said), carried_over(before, said, floor=0.01), softmax_of(said)):
        assert (found >= 0).all()
        assert found.sum() == pytest.approx(1)
    assert (carried_over(before, said)[before == 0] == 0).all()


@given(before=weights, same=st.floats(1e-6, 1e6))
def test_equal_scores_change_nothing_or_make_all_equal(before: np.ndarray, same: float) -> None:
    assert carried_over(before, np.full(COUNT, same)) == pytest.approx(before / before.sum())
    assert softmax_of(np.full(COUNT, same)) == pytest.approx(np.full(COUNT, 1 / COUNT))


@given(before=weights, said=scores, unit=st.floats(1e-3, 1e3))
def test_the_rule_with_a_memory_does_not_depend_on_the_unit(before: np.ndarray, said: np.ndarray, unit: float) -> None:
    assert carried_over(before, unit * said) == pytest.approx(carried_over(before, said), abs=1e-9)


def test_scores_of_any_size_are_safe() -> None:
    assert np.array_equal(softmax_of(np.array([1e300, -1e300, 0.0])), [1, 0, 0])
    assert carried_over(THIRDS, np.array([1e308, 1e308, 0.0])) == pytest.approx([0.5, 0.5, 0])
    assert softmax_of(np.array([720.0, 710.0])).sum() == pytest.approx(1)


@pytest.mark.parametrize("floor", [0.0, 0.02])
def test_junk_whose_answers_the_model_betters_loses_weight_in_every_round(floor: float) -> None:
    rng = np.random.default_rng(0)
    cells = np.repeat(np.arange(4), 25)
    kept, soft = np.full(4, 0.25), np.full(4, 0.25)
    for _ in range(4):
        gen = rng.normal(size=100)
        gold = gen + np.where(cells == 2, -1.0, 1.0 + rng.random(100))
        means = cell_means(gold - gen, cells, 4)
        after = carried_over(kept, means, floor=floor)
        assert after[2] < kept[2] or after[2] == pytest.approx(floor, abs=1e-3)
        kept = after
        soft = softmax_of(cell_means(standardised(gold - gen), cells, 4))
        assert soft[2] < 0.25 and soft.argmin() == 2
    assert kept.argmin() == 2


def test_a_cell_that_is_only_worse_loses_weight_strictly_in_every_round() -> None:
    weights = np.full(4, 0.25)
    for _ in range(5):
        after = carried_over(weights, np.array([1.0, 1.2, 0.3, 0.9]))
        assert 0 < after[2] < weights[2]
        weights = after


def test_standard_scores_do_not_depend_on_the_unit(rng: np.random.Generator) -> None:
    values = rng.normal(size=50)
    values[3] = np.nan
    found = standardised(values)
    assert np.isnan(found[3]) and np.nanmean(found) == pytest.approx(0) and np.nanstd(found) == pytest.approx(1)
    assert standardised(7 * values + 2) == pytest.approx(found, nan_ok=True)
    assert np.array_equal(standardised(np.full(3, 2.5)), np.zeros(3))
    assert np.isnan(standardised(np.full(2, np.nan))).all()


def test_rows_by_weights_within_what_is_left_of_the_cells() -> None:
    shares = softmax_of(np.array([0.5, 0, 1.25]))
    assert proportional([40, 5, 40], 30, weights=shares).tolist() == [8, 5, 17]
    assert proportional([500, 300, 150, 40, 10], 47).tolist() == [24, 14, 7, 2, 0]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: carried_over(np.zeros(3), np.ones(3)), "not all 0"),
        (lambda: carried_over(np.array([1.0, -0.1]), np.ones(2)), "from 0"),
        (lambda: carried_over(THIRDS, np.ones(2)), "3 weights and 2 scores"),
        (lambda: carried_over(THIRDS, np.array([1.0, np.inf, 0.0])), "finite"),
        (lambda: carried_over(THIRDS, np.ones(3), floor=0.5), "floor of 0.5"),
        (lambda: softmax_of(np.array([np.inf, 1.0])), "finite"),
        (lambda: softmax_of(np.empty(0)), "finite"),
        (lambda: cell_means(np.ones(2), np.array([0, 3]), 3), "there are 3 cells"),
        (lambda: cell_means(np.array([1.0, np.inf]), np.array([0, 1]), 2), "row 1 has an infinite"),
    ],
)
def test_what_means_nothing_is_refused(wrong, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        wrong()
