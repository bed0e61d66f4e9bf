"""Orders of training: LEAD's worked numbers, its laws over made-up trainings, and going on from a state."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from coretune.orders import Chooser, Gradient, Order
from coretune.orders.highest_loss import HighestLoss
from coretune.orders.lead import APART, Lead, LeadChooser
from coretune.scores.bandit import exp3_probabilities, exp3_updated, normalised_reward
from coretune.scores.dynamic_uncertainty import beta_star, correction, cosine_between, smoothed, squared_length

# The worked numbers of the paper's formulas


@pytest.mark.parametrize(
    ("delta_k", "delta_1", "cosine", "beta", "bracket"),
    [
        (0.09, 0.04, 0.5, 0.142857, 0.038571),
        (0.09, 0.04, 0.0, 0.307692, 0.027692),
        (0.09, 0.04, 1.0, -2.0, 0.0),
        (0.04, 0.09, 1.0, 3.0, 0.0),
        (0.04, 0.04, 1.0, 0.0, 0.04),
        (0.09, 0.04, -1.0, 0.4, 0.0),
    ],
)
def test_beta_and_the_shortest_mix_as_worked_by_hand(
    delta_k: float, delta_1: float, cosine: float, beta: float, bracket: float
) -> None:
    assert beta_star(delta_k, delta_1, cosine) == pytest.approx(beta, abs=1e-6)
    assert squared_length(delta_k, delta_1, cosine, beta_star(delta_k, delta_1, cosine)) == pytest.approx(
        bracket, abs=1e-6
    )


def test_collinear_gradients_keep_a_correction_once_beta_is_clipped() -> None:
    assert correction(1.0, 0.09, 0.04, 1.0) == pytest.approx(-0.04)
    assert correction(1.0, 0.04, 0.09, 1.0) == pytest.approx(-0.04)


def test_the_mix_is_that_of_the_vectors_and_never_below_0_and_beta_is_what_a_search_finds() -> None:
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 1, 20_001)
    for _ in range(30):
        one, other = rng.normal(size=(2, 5)) * rng.uniform(0.1, 3, (2, 1))
        delta_k, delta_1, cosine = float(one @ one), float(other @ other), cosine_between(one, other)
        for beta in (-1.0, 0.0, 0.3, 1.0, 2.0):
            mix = beta * one + (1 - beta) * other
            assert squared_length(delta_k, delta_1, cosine, beta) == pytest.approx(
                float(mix @ mix), rel=1e-9, abs=1e-12
            )
        lengths = [squared_length(delta_k, delta_1, cosine, beta) for beta in grid]
        found = min(1.0, max(0.0, beta_star(delta_k, delta_1, cosine)))
        assert min(lengths) >= 0 and found == pytest.approx(grid[int(np.argmin(lengths))], abs=1e-4)
        assert correction(0.5, delta_k, delta_1, cosine) == pytest.approx(-0.5 * min(lengths), rel=1e-6)
        assert correction(0.5, delta_k, delta_1, cosine) <= 0
    with pytest.raises(ValueError, match="squared lengths"):
        correction(1.0, -0.1, 0.1, 0.0)


def test_a_small_step_down_a_quadratic_lowers_it_by_the_rate_times_the_squared_gradient() -> None:
    rng = np.random.default_rng(1)
    root = rng.normal(size=(6, 6))
    h, theta = root @ root.T, rng.normal(size=6)
    errors = []
    for rate in (1e-3, 1e-4):
        gradient = h @ theta
        after = theta - rate * gradient
        change = 0.5 * after @ h @ after - 0.5 * theta @ h @ theta
        squared = float(gradient @ gradient)
        errors.append(abs(change - correction(rate, squared, squared, 1.0)))
    assert errors[1] == pytest.approx(errors[0] / 100, rel=1e-3)  # the square of the rate


def test_smoothing_as_worked_by_hand() -> None:
    idu, seen = np.array([2.0]), []
    for loss in (1.5, 1.2, 1.0):
        idu = smoothed(idu, np.array([loss]), 0.0, 0.1)
        seen.append(float(idu[0]))
    assert seen == pytest.approx([1.55, 1.235, 1.0235])


def test_exp3_as_worked_by_hand() -> None:
    weights = np.ones(7)
    p = exp3_probabilities(weights, 0.1)
    assert p == pytest.approx([0.142857] * 7, abs=1e-6)
    weights = exp3_updated(weights, 2, 1.0, p[2], 0.1)
    assert weights[2] == pytest.approx(1.105171, abs=1e-6) and (np.delete(weights, 2) == 1).all()
    assert exp3_probabilities(weights, 0.1)[2] == pytest.approx(0.1543, abs=5e-5)
    for _ in range(19):
        weights = exp3_updated(weights, 2, 1.0, exp3_probabilities(weights, 0.1)[2], 0.1)
    p = exp3_probabilities(weights, 0.1)
    assert p[2] == pytest.approx(0.3455, abs=5e-5) and np.delete(p, 2) == pytest.approx([0.1091] * 6, abs=5e-5)
    assert p.sum() == pytest.approx(1.0) and p.min() >= 0.1 / 7
    with pytest.raises(ValueError, match="above 0"):
        exp3_probabilities(np.array([1.0, 0.0]), 0.1)


def test_rewards_lie_between_the_lowest_and_the_highest_so_far() -> None:
    assert normalised_reward(3.0, 1.0, 3.0) == 1 and normalised_reward(1.0, 1.0, 3.0) == -1
    assert normalised_reward(2.0, 1.0, 3.0) == 0 and normalised_reward(5.0, 1.0, 3.0) == 1
    assert normalised_reward(2.0, 2.0, 2.0) == 0


# Trainings without a model: losses fall with every visit


def lead(n: int = 60, *, clusters: int = 3, seed: int = 0, **options: Any) -> Lead:
    rng = np.random.default_rng(seed)
    cell = (np.arange(n) % clusters).astype(np.int32)
    task = rng.integers(0, 2, n).astype(np.int32)
    given = {"budget": 20, "share": 0.2, "costs": None, **options}
    return Lead(rng.uniform(1, 3, n).astype(np.float32), given.pop("cell", cell), given.pop("task", task), **given)


def teach(
    chooser: Chooser, watch: Callable[[int, np.ndarray], None] = lambda step, rows: None, until: int = 10**6
) -> list[tuple[int, ...]]:
    """Train with losses and gradients that follow from step and rows alone; gives the rows of each step."""
    steps: list[tuple[int, ...]] = []
    step = getattr(chooser, "step", 0)
    while not chooser.over and step < until:
        step += 1
        rows = chooser.rows(step)
        assert len(np.unique(rows)) == len(rows) and np.array_equal(rows, chooser.rows(step))
        watch(step, rows)
        rng = np.random.default_rng([step, *rows.tolist()])
        vector = rng.normal(size=8).astype(np.float32)
        squared = float(vector.astype(np.float64) @ vector) * 2
        chooser.seen(step, rows, rng.uniform(0.5, 2.5, len(rows)), Gradient(squared, vector, 1e-3))
        steps.append(tuple(rows.tolist()))
        assert step <= chooser.most_steps
    return steps


def start(order: Order, n: int, batch_rows: int = 4, seed: int = 0) -> Any:
    return order.start(np.ones(n, dtype=bool), batch_rows=batch_rows, seed=seed)


@pytest.mark.parametrize("budget", [1, 7, 59, 60])
@pytest.mark.parametrize("share", [0.015, 0.3, 1.0])
def test_the_budget_is_met_exactly_and_no_row_is_trained_more_than_four_times(budget: int, share: float) -> None:
    chooser = start(lead(budget=budget, share=share), 60)
    steps = teach(chooser)
    visits = np.concatenate([np.array(rows) for rows in steps])
    assert len(np.unique(visits)) == budget
    assert np.bincount(visits, minlength=60).max() <= 4
    np.testing.assert_array_equal(chooser.uses, np.bincount(visits, minlength=60))


def test_a_round_takes_each_tasks_least_certain_rows_of_one_cluster_and_leaves_all_others_as_they_were() -> None:
    order = lead(budget=40)
    chooser = start(order, 60, batch_rows=64)

    def watch(step: int, rows: np.ndarray) -> None:
        (cell,) = np.unique(order.cell[rows])
        wanted: list[int] = []  # the naive twin
        for task in (0, 1):
            candidates = [i for i in range(60) if order.cell[i] == cell and order.task[i] == task]
            candidates = [i for i in candidates if chooser.uses[i] < 4]
            take = max(1, int(0.2 * len(candidates)))
            wanted += sorted(candidates, key=lambda i: (-chooser.idu[i], i))[:take]
        left = 40 - int((chooser.uses > 0).sum())
        if len(wanted) <= left:
            assert sorted(rows.tolist()) == sorted(wanted)
        assert set(rows.tolist()) <= set(wanted)
        untouched = np.delete(np.arange(60), rows)
        said.append((chooser.idu[untouched].tobytes(), untouched, chooser.weights.copy(), int(cell)))

    said: list[Any] = []
    steps, seen = [], 0
    while not chooser.over:
        steps += teach(chooser, watch, until=chooser.step + 1)
        idu, untouched, weights, cell = said[seen]
        assert chooser.idu[untouched].tobytes() == idu  # to the last bit
        assert np.array_equal(np.delete(chooser.weights, cell), np.delete(weights, cell))
        seen += 1
    p = chooser.state()["round_probabilities"]
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert p.min() >= 0.1 / 3 and len(p) == len(steps) > 3


def test_a_round_is_written_down_as_it_was_worked_out_by_hand() -> None:
    order = Lead(
        np.array([2.0, 3.0], np.float32), np.zeros(2, np.int32), np.zeros(2, np.int32), budget=2, share=1.0, most_uses=2
    )
    chooser = start(order, 2, batch_rows=2)
    queue = chooser.rows(1)
    losses = np.array([1.5, 2.0])[queue]
    chooser.seen(1, queue, losses, Gradient(0.5, np.array([3.0, 4.0], np.float32), 0.1))
    assert chooser.over  # both rows were trained
    np.testing.assert_allclose(chooser.idu, [0.1 * 2 + 0.9 * 1.5, 0.1 * 3 + 0.9 * 2.0])  # nothing is known before
    state = chooser.state()
    assert state["round_reward"][0] == pytest.approx(((2 - 1.55) + (3 - 2.1)) / 2)
    assert state["round_weights"][0, 0] == pytest.approx(np.exp(0.1 * 0.675))  # the first reward as it is, p = 1
    assert state["round_end"].tolist() == [1] and sorted(state["visit_row"].tolist()) == [0, 1]


def test_the_correction_takes_the_round_before_and_the_clusters_own_last_round() -> None:
    order = lead(60, budget=60, share=1.0, clusters=2)
    chooser = start(order, 60, batch_rows=64)
    gradients: dict[int, tuple[float, np.ndarray]] = {}
    rounds: list[tuple[float, np.ndarray]] = []
    while not chooser.over:
        step = chooser.step + 1
        rows = chooser.rows(step)
        vector = np.random.default_rng(step).normal(size=4).astype(np.float32)
        cell = int(order.cell[rows[0]])
        squared = float(step)
        chooser.seen(step, rows, np.ones(len(rows)), Gradient(squared, vector, 0.5))
        if not rounds:
            expected = 0.0
        elif cell not in gradients:
            expected = -0.5 * rounds[-1][0]
        else:
            cosine = cosine_between(gradients[cell][1], rounds[-1][1])
            expected = correction(0.5, gradients[cell][0], rounds[-1][0], cosine)
        assert chooser.rounds["change"][-1] == pytest.approx(expected)
        rounds.append((squared, vector))
        gradients[cell] = rounds[-1]
    assert len(rounds) > 2


def test_several_steps_of_a_round_count_as_their_mean() -> None:
    chooser = start(lead(12, clusters=1, share=1.0, budget=12, task=np.zeros(12, np.int32)), 12, batch_rows=6)
    for step, (squared, vector) in enumerate([(1.0, [1.0, 0.0]), (3.0, [0.0, 2.0])], start=1):
        rows = chooser.rows(step)
        chooser.seen(step, rows, np.ones(6), Gradient(squared, np.array(vector, np.float32), 0.1))
    assert chooser.delta[-1] == 2.0
    np.testing.assert_allclose(chooser.vectors[-1], [0.5, 1.0])


def test_one_cluster_all_rows_no_memory_and_no_gradient_train_the_rows_of_highest_loss() -> None:
    n, k = 30, 12
    losses = np.random.default_rng(0).permutation(n).astype(np.float32)
    zeros = np.zeros(n, np.int32)
    chooser = start(Lead(losses, zeros, zeros, budget=k, share=1.0, memory=0.0), n, batch_rows=64)
    rows = chooser.rows(1)
    assert set(rows.tolist()) == set(np.argsort(-losses)[:k].tolist())
    seen = np.arange(k, dtype=np.float64)
    chooser.seen(1, rows, seen, Gradient(0.0, np.zeros(2, np.float32), 1.0))
    np.testing.assert_array_equal(chooser.idu[rows], seen)  # nothing but the loss just seen


def test_rows_apart_come_only_when_nothing_else_is_left() -> None:
    cell = np.array([0, 0, APART, 1, APART, 1], dtype=np.int32)
    losses = np.array([1, 1, 9, 1, 9, 1], dtype=np.float32)
    order = Lead(losses, cell, np.zeros(6, np.int32), budget=6, share=1.0)
    steps = teach(start(order, 6, batch_rows=8))
    first = next(place for place, rows in enumerate(steps) if {2, 4} & set(rows))
    before = [row for rows in steps[:first] for row in rows]
    assert np.bincount(before, minlength=6).tolist() == [4, 4, 0, 4, 0, 4]  # all that could be trained was
    few = Lead(losses, cell, np.zeros(6, np.int32), budget=4, share=1.0)
    assert {row for rows in teach(start(few, 6)) for row in rows} == {0, 1, 3, 5}


def test_rows_that_cannot_be_learned_are_never_chosen() -> None:
    learned = np.arange(60) % 5 > 0
    chooser = lead(budget=60).start(learned, batch_rows=4, seed=0)
    visits = {row for rows in teach(chooser) for row in rows}
    assert visits == set(np.flatnonzero(learned).tolist())


def test_costs_are_never_above_the_budget_and_end_within_the_slack() -> None:
    costs = np.random.default_rng(3).integers(5, 50, 60)
    for budget, slack in ((400, 4), (401, 0), (90, 10)):
        chooser = start(lead(budget=budget, slack=slack, costs=costs), 60)
        teach(chooser)
        spent = int(costs[chooser.uses > 0].sum())
        unused = costs[chooser.uses == 0]
        assert spent <= budget and (budget - spent <= slack or unused.min() > budget - spent)


def test_the_rounds_can_be_limited_and_the_weights_after_each_kept() -> None:
    chooser, kept = start(lead(budget=60, most_rounds=3, keep_rounds=True), 60), []
    while not chooser.over:
        teach(chooser, until=chooser.step + 1)
        kept += [chooser.step] if chooser.keep else []
    assert kept == chooser.state()["round_end"].tolist() and len(kept) == 3
    never = start(lead(), 60)
    teach(never)
    assert not never.keep


def test_the_rate_falls_every_eight_steps() -> None:
    chooser = start(lead(), 60)
    assert [chooser.rate(step) for step in (1, 8, 9, 17)] == pytest.approx([1, 1, 0.995, 0.995**2])


def through_a_file(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    file = io.BytesIO()
    np.savez(file, **state)  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file, allow_pickle=False) as held:
        return {name: held[name] for name in held.files}


@pytest.mark.parametrize("order", [lead(budget=50, share=0.4), HighestLoss(20)], ids=["lead", "highest_loss"])
def test_from_a_state_it_goes_on_as_if_it_had_never_stopped(order: Order) -> None:
    assert isinstance(order, Order)
    whole = start(order, 60)
    assert isinstance(whole, Chooser)
    steps = teach(whole)
    for at in (0, 1, 2, 5, len(steps)):
        part, other = start(order, 60), start(order, 60)
        first = teach(part, until=at)
        other.restore(through_a_file(part.state()))
        teach(part, until=at + 2)  # what it holds is its own
        assert first + teach(other) == steps
        for name, values in whole.state().items():
            np.testing.assert_array_equal(other.state()[name], values)


def test_another_seed_is_another_order() -> None:
    order = lead(budget=40)
    assert teach(start(order, 60, seed=0)) == teach(start(order, 60, seed=0)) != teach(start(order, 60, seed=1))


def test_what_means_nothing_is_refused() -> None:
    for wrong in ({"share": 0.0}, {"budget": 0}, {"memory": 1.0}, {"most_uses": 0}, {"exploration": 1.5}):
        with pytest.raises(ValueError, match="asked of lead"):
            lead(**wrong)
    with pytest.raises(ValueError, match="one of each a row"):
        lead(cell=np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="not finite"):
        Lead(np.array([np.nan], np.float32), np.zeros(1, np.int32), np.zeros(1, np.int32), budget=1)
    with pytest.raises(ValueError, match="60 rows was given to a training of 3"):
        start(lead(), 3)
    chooser = start(lead(), 60)
    with pytest.raises(ValueError, match="1 is the next one"):
        chooser.rows(2)
    with pytest.raises(ValueError, match="other rows than were chosen"):
        chooser.seen(1, chooser.rows(1)[::-1], np.ones(4), Gradient(1.0, np.ones(2, np.float32), 0.1))


# The plainest order by loss


def test_unseen_rows_come_first_then_the_highest_losses_and_some_at_random() -> None:
    chooser = start(HighestLoss(40, at_random=0.25), 16, batch_rows=4)
    first: list[int] = []
    for step in range(1, 30):
        rows = chooser.rows(step)
        unseen = np.flatnonzero(np.isinf(chooser.last))
        best = chooser.last[rows[:3]].min()
        assert set(rows[:3].tolist()) <= set(unseen.tolist()) if len(unseen) >= 3 else True
        assert (np.delete(chooser.last, rows[:3]) <= best).all()
        first += rows.tolist()
        chooser.seen(step, rows, 10.0 - np.arange(4) - step / 10, None)
    assert set(first) == set(range(16)) and chooser.rate(3) is None
    assert not isinstance(chooser, LeadChooser) and not chooser.wants_gradient


def test_a_step_is_never_larger_than_what_can_be_learned() -> None:
    chooser = HighestLoss(3).start(np.array([True, False, True]), batch_rows=8, seed=0)
    assert sorted(chooser.rows(1).tolist()) == [0, 2]
    with pytest.raises(ValueError, match="give 1 or more"):
        HighestLoss(3).start(np.zeros(3, dtype=bool), batch_rows=8, seed=0)
    with pytest.raises(ValueError, match="0 steps"):
        HighestLoss(0)
