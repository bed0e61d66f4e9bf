"""Partitions: cells, quotas and picking within cells, against worked numbers and naive twins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.partitions import (
    Partition,
    by_column,
    by_quantile,
    equal,
    nearest_center,
    proportional,
    split,
    within,
)
from coretune.pickers import drawn, top, uniform
from coretune.selection import Selection


def cells(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


# Partition


def test_sizes_and_members_count_empty_cells_and_leave_out_rows_outside() -> None:
    partition = Partition(cells(2, -1, 0, 2, 0, 0), count=4)
    assert len(partition) == 4
    assert partition.sizes.tolist() == [3, 0, 2, 0]
    assert [partition.members(c).tolist() for c in range(4)] == [[2, 4, 5], [], [0, 3], []]
    with pytest.raises(ValueError, match=r"cell 4 asked .* 0\.\.3"):
        partition.members(4)


def test_lift_leaves_other_rows_outside_and_keeps_everything_else() -> None:
    centers = np.zeros((3, 2), np.float32)
    lifted = Partition(cells(1, 0, 1), centers, 2.5, {"passes": 3}).lift(np.array([4, 1, 2]), 6)
    assert lifted.cell.tolist() == [-1, 0, 1, -1, 1, -1]
    assert len(lifted) == 3 and lifted.inertia == 2.5 and lifted.notes == {"passes": 3}
    assert lifted.centers is centers
    with pytest.raises(ValueError, match="2 rows given for a partition of 3"):
        Partition(cells(0, 0, 0)).lift(np.array([0, 1]), 6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cell": np.array([0, 1])}, "int32"),
        ({"cell": np.zeros((2, 2), np.int32)}, "one-dimensional"),
        ({"cell": cells(0, -2)}, r"-1\.\.0; found -2"),
        ({"cell": cells(0, 3), "count": 3}, r"-1\.\.2; found 0\.\.3"),
        ({"cell": cells(0), "centers": np.zeros((1, 2))}, "float32"),
        ({"cell": cells(0), "centers": np.zeros((1, 2), np.float32), "count": 2}, "2 cells and 1 centres"),
        ({"cell": cells(0), "inertia": -1.0}, "inertia"),
        ({"cell": cells(0), "inertia": float("nan")}, "inertia"),
    ],
)
def test_a_partition_that_contradicts_itself_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Partition(**wrong)


def test_a_partition_of_nothing_has_no_cells() -> None:
    assert len(Partition(np.zeros(0, np.int32))) == 0


# by_column, by_quantile


def test_by_column_numbers_values_by_first_appearance_with_one_cell_for_all_missing() -> None:
    partition = by_column(np.array(["qa", None, "open", "qa", float("nan"), "sum"], dtype=object))
    assert partition.cell.tolist() == [0, 1, 2, 0, 1, 3]
    assert partition.notes["names"] == ["qa", "", "open", "sum"]
    assert by_column(np.array([1.5, np.nan, 1.5, np.nan])).cell.tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="does not make cells"):
        by_column([["a"], ["b"]])


def test_by_quantile_makes_equal_cells_and_keeps_equal_values_together() -> None:
    partition = by_quantile(np.array([5.0, 1.0, 4.0, 2.0, 3.0, 6.0]), 3)
    assert partition.cell.tolist() == [2, 0, 1, 0, 1, 2]
    assert partition.notes["edges"] == [3.0, 5.0]
    tied = by_quantile(np.array([7.0] * 8 + [9.0, 1.0]), 4)
    assert tied.sizes.tolist() == [1, 0, 8, 1]  # the tie's middle rank is 5 of 10: the third quarter starts there
    with pytest.raises(ValueError, match="row 1 has no finite value"):
        by_quantile(np.array([1.0, np.nan]), 2)
    with pytest.raises(ValueError, match="0 cells"):
        by_quantile(np.array([1.0]), 0)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40), st.integers(1, 6), st.randoms())
def test_by_quantile_is_ordered_by_value_and_follows_a_permutation(values: list[int], c: int, random: Any) -> None:
    array = np.array(values, float)
    cell = by_quantile(array, c).cell
    assert all(cell[i] <= cell[j] for i, j in product(range(len(array)), repeat=2) if array[i] <= array[j])
    order = np.array(random.sample(range(len(array)), len(array)))
    assert by_quantile(array[order], c).cell.tolist() == cell[order].tolist()


# Quotas


def test_worked_quotas() -> None:
    assert proportional((500, 300, 150, 40, 10), 47).tolist() == [24, 14, 7, 2, 0]
    assert proportional((40, 5, 40), 30, weights=(0.2686, 0.1629, 0.5685)).tolist() == [8, 5, 17]
    assert equal([5, 1, 9], 10).tolist() == [5, 1, 4]  # 4, 3, 3; the two that cell 1 cannot take go one each
    assert equal([4, 0, 4], 5).tolist() == [3, 0, 2]


def test_equal_remainders_go_to_the_lower_cell() -> None:
    # Shares 7.35, 0.35 and 27.3: in floats 7.35 % 1 is less than 0.35.
    assert proportional([21, 1, 78], 35).tolist() == [8, 0, 27]
    assert proportional([1, 1, 1, 1], 2).tolist() == [1, 1, 0, 0]


def test_weights_of_any_scale_are_shared_out_alike() -> None:
    for scale in (1e-300, 1.0, 1e300):
        assert proportional([9, 9, 9], 10, weights=[3 * scale, 1 * scale, 1 * scale]).tolist() == [6, 2, 2]


def twin(sizes: list[int], k: int, weights: list[int]) -> list[int]:
    """Largest remainder with capacities, in fractions."""
    quota, share = [0] * len(sizes), [Fraction(weight) for weight in weights]
    while (left := min(k, sum(sizes)) - sum(quota)) > 0:
        room = [size - has for size, has in zip(sizes, quota, strict=True)]
        share = [each if free else Fraction(0) for each, free in zip(share, room, strict=True)]
        share = share if any(share) else [Fraction(free) for free in room]
        exact = [left * each / sum(share) for each in share]
        more = [int(each) for each in exact]
        by_rest = sorted((j for j in range(len(sizes)) if share[j]), key=lambda j: (-(exact[j] % 1), j))
        for j in by_rest[: left - sum(more)]:
            more[j] += 1
        quota = [has + min(extra, free) for has, extra, free in zip(quota, more, room, strict=True)]
    return quota


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), min_size=1, max_size=8),
    st.integers(0, 150),
    st.booleans(),
)
def test_quotas_are_those_of_the_twin(cells: list[tuple[int, int]], k: int, weighted: bool) -> None:
    sizes, weights = [size for size, _ in cells], [weight for _, weight in cells]
    quota = proportional(sizes, k, weights=weights if weighted else None)
    assert quota.dtype == np.int64
    assert quota.sum() == min(k, sum(sizes)) and (quota <= sizes).all() and (quota >= 0).all()
    assert quota.tolist() == twin(sizes, k, weights if weighted else sizes)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 150))
def test_equal_quotas_differ_by_one_at_most_where_there_is_room(sizes: list[int], k: int) -> None:
    quota = equal(sizes, k)
    assert quota.sum() == min(k, sum(sizes)) and (quota <= sizes).all()
    open_cells = quota[quota < sizes]
    assert not len(open_cells) or quota.max() - open_cells.min() <= 1


@pytest.mark.parametrize(
    ("sizes", "k", "weights"),
    [([1, -1], 1, None), ([1], -1, None), ([1, 2], 1, [1.0]), ([1, 2], 1, [1.0, -1.0]), ([1, 2], 1, [1.0, np.inf])],
)
def test_quotas_refuse_what_makes_no_sense(sizes: list[int], k: int, weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match=r"must be|may be"):
        proportional(sizes, k, weights=weights)


# within

PARTITION = Partition(cells(0, 1, 2, 1, 1, 0, 2, 1, 1, 1), count=4)


def first(rows: np.ndarray, quota: int, rng: np.random.Generator) -> Selection:
    """The first rows, with falling gains and weights 1, 2, ..."""
    return Selection.of(np.arange(quota), np.arange(quota, 0, -1.0), np.arange(1.0, quota + 1))


def test_within_orders_by_place_over_quota_with_ties_to_the_lower_cell() -> None:
    made = within(PARTITION, np.array([2, 4, 1, 0]), first, np.random.default_rng(0))
    # (place + 1/2) / quota: cell 0 at 1/4, 3/4; cell 1 at 1/8, 3/8, 5/8, 7/8; cell 2 at 1/2
    assert made.rows.tolist() == [1, 0, 3, 2, 4, 5, 7]
    assert made.gains.tolist() == [4, 2, 3, 1, 2, 1, 1]
    even = within(PARTITION, np.array([2, 2, 2, 0]), first, np.random.default_rng(0))
    assert even.rows.tolist() == [0, 1, 2, 5, 3, 6]


def test_within_weights_have_mean_one_and_stand_for_mass_where_asked() -> None:
    quota = np.array([1, 3, 2, 0])
    plain = within(PARTITION, quota, first, np.random.default_rng(0))
    assert plain.weights.mean() == pytest.approx(1)
    by_row = dict(zip(plain.rows.tolist(), plain.weights.tolist(), strict=True))
    assert [by_row[row] for row in (1, 3, 4)] == pytest.approx([0.5, 1.0, 1.5])
    heavy = within(PARTITION, quota, first, np.random.default_rng(0), mass=PARTITION.sizes)
    share = np.bincount(PARTITION.cell[heavy.rows], heavy.weights, minlength=4) / heavy.weights.sum()
    assert share == pytest.approx(np.array([2, 6, 2, 0]) / 10)


def drawing(rows: np.ndarray, quota: int, rng: np.random.Generator) -> Selection:
    return uniform(len(rows), quota, rng=rng)


def test_within_does_not_depend_on_the_order_in_which_cells_are_done_nor_on_other_quotas() -> None:
    def backwards(fn: Callable[..., Selection], *inputs: Iterable[Any]) -> list[Selection]:
        return [fn(*each) for each in list(zip(*inputs, strict=True))[::-1]][::-1]

    quota = np.array([1, 3, 2, 0])
    plain = within(PARTITION, quota, drawing, np.random.default_rng(5))
    other = within(PARTITION, quota, drawing, np.random.default_rng(5), map=backwards)
    assert plain.rows.tolist() == other.rows.tolist() and plain.gains.tolist() == other.gains.tolist()
    fewer = within(PARTITION, np.array([0, 3, 0, 0]), drawing, np.random.default_rng(5))
    assert fewer.rows.tolist() == [row for row in plain.rows.tolist() if PARTITION.cell[row] == 1]
    another = [within(PARTITION, np.array([0, 3, 0, 0]), drawing, np.random.default_rng(s)).rows for s in range(20)]
    assert len({tuple(rows.tolist()) for rows in another}) > 5


def test_within_refuses_impossible_quotas_and_pickers_that_do_not_deliver() -> None:
    rng = np.random.default_rng(0)
    for quota in ([3, 0, 0, 0], [-1, 0, 0, 0], [1, 1]):
        with pytest.raises(ValueError, match="quotas must be"):
            within(PARTITION, np.array(quota), first, rng)
    with pytest.raises(ValueError, match="cell 1 was to give 2 rows, and 1 were picked"):
        within(PARTITION, np.array([0, 2, 0, 0]), lambda rows, quota, rng: first(rows, 1, rng), rng)
    assert len(within(PARTITION, np.zeros(4, np.int64), first, rng)) == 0


def test_one_cell_is_plain_picking_and_constant_quality_is_a_uniform_draw() -> None:
    quality = np.random.default_rng(1).normal(size=30)
    one = Partition(np.zeros(30, np.int32))
    made = within(one, np.array([7]), lambda rows, quota, _: top(quality[rows], quota), np.random.default_rng(0))
    assert made.rows.tolist() == top(quality, 7).rows.tolist()
    flat = np.full(30, 0.37)
    three = Partition(np.arange(30, dtype=np.int32) % 3)
    quota = proportional(three.sizes, 11)
    by_quality = within(three, quota, lambda rows, k, rng: drawn(flat[rows], k, rng=rng), np.random.default_rng(4))
    at_random = within(three, quota, drawing, np.random.default_rng(4))
    assert by_quality.rows.tolist() == at_random.rows.tolist()


def test_any_beginning_of_the_order_is_nearly_proportional() -> None:
    partition = Partition(np.repeat(np.arange(4, dtype=np.int32), [50, 30, 15, 5]))
    quota = proportional(partition.sizes, 40)
    order = partition.cell[within(partition, quota, first, np.random.default_rng(0)).rows]
    for k in range(1, 41):
        assert np.abs(np.bincount(order[:k], minlength=4) - k * quota / 40).max() <= 1


def test_nearest_center_sends_ties_to_the_lower_centre() -> None:
    x = np.array([[0.0], [1.0], [2.0], [5.0]], np.float32)
    assert nearest_center(x, np.array([[0.0], [2.0], [2.0]], np.float32)).tolist() == [0, 0, 1, 1]


def test_a_partition_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PARTITION.inertia = 1.0  # type: ignore[misc]


def test_cells_above_a_size_are_split_into_nearly_equal_parts_in_their_place() -> None:
    whole = Partition(np.array([0] * 3 + [1] * 11 + [-1] + [2] * 4, np.int32))
    parts = split(whole, 4, np.random.default_rng(0))
    assert parts.sizes.tolist() == [3, 4, 4, 3, 4]
    assert (parts.cell == -1).nonzero()[0].tolist() == [14]
    for old, new in ((0, [0]), (1, [1, 2, 3]), (2, [4])):
        assert set(np.unique(parts.cell[whole.cell == old])) == set(new)
    assert parts.members(1).tolist() != [3, 4, 5, 6]  # at random
    assert split(whole, 11, np.random.default_rng(0)) is whole
    with pytest.raises(ValueError, match="at most 0 rows"):
        split(whole, 0, np.random.default_rng(0))
