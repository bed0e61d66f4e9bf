"""Selections and budgets: lifting, joining, and budgets met as closely as rows allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.partitions import Partition, proportional, within
from coretune.pickers import top, uniform
from coretune.selection import Budget, Selection, lift, union

COSTS = st.lists(st.integers(0, 60), min_size=1, max_size=60).map(lambda costs: np.array(costs, np.int64))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_selection_has_one_gain_and_one_weight_a_row_and_no_row_twice() -> None:
    made = Selection.of([4, 1, 3], np.array([3.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0]))
    assert (made.rows.dtype, made.gains.dtype, made.weights.dtype) == (np.int64, np.float32, np.float32)
    assert made.weights.tolist() == [0.5, 1.0, 1.5]
    plain = Selection.of([4, 1])
    assert np.isnan(plain.gains).all() and plain.weights.tolist() == [1, 1]
    assert made.head(2).rows.tolist() == [4, 1] and made.head(2).weights.mean() == 1
    with pytest.raises(ValueError, match="a row twice"):
        Selection.of([1, 1])
    with pytest.raises(ValueError, match="negative"):
        Selection.of([1, 2], weights=np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="3 rows, 2 gains"):
        Selection.of([1, 2, 3], np.zeros(2))
    assert len(Selection.of([])) == 0


@given(st.integers(0, 10**6))
def test_lift_names_the_rows_and_leaves_the_rest(seed: int) -> None:
    random = rng(seed)
    rows = np.sort(random.permutation(50)[: random.integers(1, 50)])
    local = Selection.of(random.permutation(len(rows)), random.normal(size=len(rows)), random.random(len(rows)))
    lifted = lift(local, rows)
    assert lifted.rows.tolist() == [int(rows[i]) for i in local.rows]
    assert lifted.gains is local.gains and lifted.weights is local.weights


@given(st.integers(0, 10**6))
def test_union_keeps_order_gains_and_proportions_of_weights(seed: int) -> None:
    random = rng(seed)
    rows = np.split(random.permutation(30), np.sort(random.integers(0, 31, size=2)))
    parts = [Selection.of(part, random.normal(size=len(part)), random.random(len(part)) + 0.1) for part in rows]
    joined = union(parts)
    assert joined.rows.tolist() == [row for part in parts for row in part.rows.tolist()]
    assert joined.gains.tobytes() == b"".join(part.gains.tobytes() for part in parts)
    assert joined.weights.mean() == pytest.approx(1, rel=1e-5)
    before = np.concatenate([part.weights for part in parts])
    assert joined.weights / before == pytest.approx(np.full(30, joined.weights[0] / before[0]), rel=1e-5)


def test_union_of_nothing_is_empty_and_shared_rows_are_an_error() -> None:
    assert len(union([])) == 0
    with pytest.raises(ValueError, match="a row twice"):
        union([Selection.of([1, 2]), Selection.of([2])])


@pytest.mark.parametrize(
    ("text", "share", "amount", "in_tokens"),
    [
        ("5%", 0.05, None, False),
        ("0.5%", 0.005, None, False),
        ("100%", 1.0, None, False),
        ("1000", None, 1000, False),
        ("1_000", None, 1000, False),
        ("2k", None, 2000, False),
        ("1.5k", None, 1500, False),
        ("5%-tokens", 0.05, None, True),
        ("200k-tokens", None, 200_000, True),
        ("1.5M-TOKENS", None, 1_500_000, True),
        (" 7-tokens ", None, 7, True),
    ],
)
def test_budgets_are_read(text: str, share: float | None, amount: int | None, in_tokens: bool) -> None:
    budget = Budget.parse(text)
    assert (budget.share, budget.amount, budget.in_tokens) == (share, amount, in_tokens)
    assert budget.asked == text.strip()


@pytest.mark.parametrize("text", ["", "five", "-3", "0", "0%", "101%", "1.5", "5 %", "5%tokens", "3g", "1e3", "nan"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"budget {text!r} is "):
        Budget.parse(text)


def test_a_share_is_of_the_whole_pool_and_never_more_than_may_be_chosen() -> None:
    assert Budget.parse("5%").on(1000, 900).rows == 50
    assert Budget.parse("95%").on(1000, 900).rows == 900
    assert Budget.parse("0.01%").on(1000, 900).rows == 1
    assert Budget.parse("900").on(1000, 900).rows == 900
    with pytest.raises(ValueError, match="901 rows; 900 of 1000 may be chosen"):
        Budget.parse("901").on(1000, 900)


def test_tokens_need_a_model_and_enough_of_them() -> None:
    with pytest.raises(ValueError, match="needs a model"):
        Budget.parse("10-tokens").on(10, 10)
    costs = np.full(10, 7)
    assert Budget.parse("50%-tokens").on(10, 10, costs).tokens == 35
    with pytest.raises(ValueError, match="71 answer tokens; the pool has 70"):
        Budget.parse("71-tokens").on(10, 10, costs)


def test_a_view_has_the_costs_of_its_own_rows() -> None:
    budget = Budget.parse("5-tokens").on(4, 2, np.array([1, 2, 3, 4]))
    assert budget.view(np.array([1, 3])).costs.tolist() == [2, 4]
    rows = Budget.parse("2").on(4, 2)
    assert rows.view(np.array([1, 3])) is rows


def test_rows_are_what_the_picker_gives_and_too_few_are_an_error() -> None:
    budget = Budget.parse("3").on(10, 10)
    made = budget.fill(lambda k, random: uniform(10, k, rng=random), rng(4))
    assert made.rows.tolist() == uniform(10, 3, rng=rng(4)).rows.tolist()
    with pytest.raises(ValueError, match="3 rows, but there are 2"):
        budget.fill(lambda k, rng: Selection.of(np.arange(min(k, 2))), rng())


@given(COSTS, st.floats(0.01, 1.0), st.integers(0, 99), st.booleans())
def test_token_budgets_are_met_from_below_until_close_or_nothing_more_fits(
    costs: np.ndarray, share: float, seed: int, by_score: bool
) -> None:
    n, tokens = len(costs), max(1, int(share * costs.sum()))
    if tokens > costs.sum():
        return
    budget = Budget.parse(f"{tokens}-tokens").on(n, n, costs)
    scores = rng(seed).normal(size=n)

    def choose(k: int, random: np.random.Generator) -> Selection:
        return top(scores, k) if by_score else uniform(n, k, rng=random)

    if costs.min() > tokens:
        with pytest.raises(ValueError, match=f"below the shortest answer, {costs.min()} tokens"):
            budget.fill(choose, rng(seed))
        return
    made = budget.fill(choose, rng(seed))
    missed = tokens - int(costs[made.rows].sum())
    left = np.setdiff1d(np.arange(n), made.rows)
    assert missed >= 0
    assert missed <= max(tokens / 100, np.median(costs) / 2) or not len(left) or costs[left].min() > missed
    place = {int(row): i for i, row in enumerate(choose(n, rng(seed)).rows)}
    places = [place[int(row)] for row in made.rows]
    assert places == sorted(places)  # rows that do not fit are passed over, and the order stays
    assert made.rows.tolist() == budget.fill(choose, rng(seed)).rows.tolist()


@given(st.integers(0, 10**6))
def test_token_budgets_are_met_closely_where_rows_are_many(seed: int) -> None:
    """Within max(1%, half a median answer)."""
    random = rng(seed)
    costs = random.integers(1, 200, size=400)
    budget = Budget.parse("20%-tokens").on(400, 400, costs)
    partition = Partition(random.integers(0, 5, size=400).astype(np.int32))

    def choose(k: int, random: np.random.Generator) -> Selection:
        quota = proportional(partition.sizes, k)
        return within(partition, quota, lambda rows, q, own: uniform(len(rows), q, rng=own), random)

    made = budget.fill(choose, random)
    missed = budget.tokens - int(costs[made.rows].sum())
    assert 0 <= missed <= max(0.01 * budget.tokens, np.median(costs) / 2)
    assert len(made) == len(set(made.rows.tolist()))


def test_rounds_grow_up_to_the_budget_in_equal_parts() -> None:
    budget = Budget.parse("50").on(200, 200)
    parts = budget.rounds(3)
    assert [part.rows for part in parts] == [17, 33, 50] and all(part.tokens is None for part in parts)


def test_rounds_of_so_many_rows_are_the_first_ones_of_a_larger_budget() -> None:
    costs = np.array([3, 5, 7, 9] * 50)
    small, large = (Budget.parse(f"{tokens}-tokens").on(200, 200, costs) for tokens in (400, 700))
    few, many = small.rounds(99, 20), large.rounds(99, 20)
    assert [part.tokens for part in few] == [120, 240, 360, 400]
    assert [part.tokens for part in many] == [120, 240, 360, 480, 600, 700]
    assert few[-1].asked == "400-tokens"
    assert [part.rows for part in Budget.parse("50").on(200, 200).rounds(1, 20)] == [20, 40, 50]


@pytest.mark.parametrize(("count", "rows"), [(0, None), (3, 0), (9, None)])
def test_rounds_that_mean_nothing_are_refused(count: int, rows: int | None) -> None:
    with pytest.raises(ValueError, match="rounds"):
        Budget.parse("8").on(200, 200).rounds(count, rows)
