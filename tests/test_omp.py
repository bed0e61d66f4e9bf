"""Matching pursuit: worked numbers, naive twins, and what each of its pickers promises beyond the laws."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.distances import rows_of
from coretune.partitions import by_column, within
from coretune.pickers import nonnegative_omp, omp, omp_restarts
from coretune.pickers.omp_restarts import a_round
from coretune.pickers.pursuit import Atoms, Rule, Run, pursue
from coretune.pickers.support import Support
from coretune.pickers.weights import nonnegative, nonnegative_refit, refit

PURSUIT = sys.modules["coretune.pickers.pursuit"]
FOUR = np.array([(1, 0, 0), (0.8, 0.6, 0), (0, 0.6, 0.8), (0, 0, 1)])  # specification of gradients, 4.9
MEAN = np.array([0.45, 0.30, 0.45])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def unit_rows(n: int, d: int, seed: int = 0, common: float = 0.3) -> np.ndarray:
    """Unit rows in a few clusters, with a direction that all share."""
    random = rng(seed)
    centers = random.normal(size=(5, d))
    x = centers[random.integers(0, 5, n)] + 1.5 * random.normal(size=(n, d)) + common * random.normal(size=d)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def least_squares(atoms: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    """Weights of any sign, by the normal equations as an overdetermined system."""
    k = len(atoms)
    wide = np.concatenate([atoms.T, np.sqrt(ridge) * np.eye(k)])
    return np.linalg.lstsq(wide, np.concatenate([target, np.zeros(k)]), rcond=None)[0]


def refitting(atoms: np.ndarray, target: np.ndarray, k: int, ridge: float = 0.0, positive: bool = True) -> list[int]:
    """The twin: the residual by a fresh refit before each pick, in float64, ties to the lower row."""
    atoms, target, picks = atoms.astype(np.float64), target.astype(np.float64), []
    for _ in range(k):
        scores = atoms @ (target - atoms[picks].T @ least_squares(atoms[picks], target, ridge))
        scores = scores if positive else np.abs(scores)
        scores[picks] = -np.inf
        picks.append(int((scores >= scores.max() - 1e-13).argmax()))
    return picks


def objective(atoms: np.ndarray, target: np.ndarray, weights: np.ndarray, ridge: float) -> float:
    return float(((atoms.T @ weights - target) ** 2).sum() + ridge * (weights**2).sum())


def run_of(atoms: np.ndarray, target: np.ndarray, k: int, ridge: float = 0.0, positive: bool = True) -> Run:
    free = np.ones(len(atoms), bool)
    return pursue(Atoms.of(rows_of(atoms)), target / np.linalg.norm(target), free, k, Rule(ridge, positive))


# the worked example


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_worked_example_without_ridge(dtype: type) -> None:
    picked = omp(FOUR.astype(dtype), MEAN, 3)
    assert picked.rows.tolist() == [1, 3, 0]
    assert picked.weights == pytest.approx(np.array([0.5, 0.45, 0.05]) * 3, abs=1e-5)
    residuals = [
        np.linalg.norm(MEAN - FOUR[rows].T @ refit(FOUR, MEAN, np.array(rows))) for rows in ([1], [1, 3], [1, 3, 0])
    ]
    assert residuals == pytest.approx([0.451, 0.03, 0], abs=5e-4)
    left = 1 - np.cumsum(picked.gains)
    assert left == pytest.approx(np.square(residuals) / (MEAN @ MEAN), abs=1e-6)
    assert refit(FOUR, MEAN, np.array([1])) == pytest.approx([0.54])
    assert refit(FOUR, MEAN, np.array([1, 3])) == pytest.approx([0.54, 0.45])


def test_worked_example_with_ridge() -> None:
    picked = omp(FOUR, MEAN, 3, ridge=1.0)
    assert picked.rows.tolist() == [1, 3, 2]
    weights = refit(FOUR, MEAN, picked.rows, ridge=1.0)
    assert weights == pytest.approx([0.2407, 0.1599, 0.1627], abs=5e-5)
    assert np.linalg.norm(MEAN - FOUR[picked.rows].T @ weights) == pytest.approx(0.3085, abs=5e-5)
    assert picked.weights == pytest.approx(weights / weights.mean(), rel=1e-6)
    assert refit(FOUR, MEAN, np.array([1]), ridge=1.0) == pytest.approx([0.27])
    assert refit(FOUR, MEAN, np.array([1, 3]), ridge=1.0) == pytest.approx([0.27, 0.225])


def test_worked_example_of_the_authors_rule() -> None:
    found = a_round(FOUR, MEAN, 4, np.ones(4, bool), ridge=1.0, tolerance=1e-4)
    assert found.rows.tolist() == [1, 3] and found.ended == "picked again"
    assert found.weights == pytest.approx([0.27, 0.225])


# exact picks


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize(("n", "d", "k"), [(90, 40, 35), (1500, 48, 40)])
def test_picks_are_those_of_a_refit_before_each(
    monkeypatch: pytest.MonkeyPatch, n: int, d: int, k: int, dtype: type, ridge: float, positive: bool
) -> None:
    atoms = unit_rows(n, d, n).astype(dtype)
    target = atoms.mean(axis=0, dtype=np.float64) + 0.02 * rng(1).normal(size=d)
    expected = refitting(atoms, target, k, ridge, positive)
    monkeypatch.setattr(PURSUIT, "FEW", 10_000)
    assert omp(atoms, target, k, ridge=ridge, positive=positive).rows.tolist() == expected
    assert omp(atoms, 300 * target, k, ridge=ridge, positive=positive).rows.tolist() == expected


@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_picks_are_exact_with_ties_whatever_the_block(seed: int, ridged: bool, positive: bool) -> None:
    """Small whole numbers tie within and between blocks; copies stay out without ridge and may come with it."""
    random = rng(seed)
    atoms = random.integers(-1, 2, size=(int(random.integers(3, 40)), 4)).astype(np.float32)
    target = random.integers(-3, 4, size=4).astype(np.float64)
    ridge = 0.5 if ridged else 0.0
    whole = run_of(atoms, target, len(atoms), ridge, positive) if target.any() else None
    if whole is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PURSUIT, "FEW", 0)
        patch.setattr(PURSUIT, "FEWEST", 2)
        patch.setattr(PURSUIT, "block_size", lambda n: 3)
        blocks = run_of(atoms, target, len(atoms), ridge, positive)
    assert blocks.rows.tolist() == whole.rows.tolist()
    assert whole.rows.tolist() == refitting(atoms, target / np.linalg.norm(target), len(whole.rows), ridge, positive)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_more_copies_than_a_block_holds_come_from_the_lowest_up(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    monkeypatch.setattr(PURSUIT, "FEW", 0)
    atoms = np.repeat(unit_rows(4, 6, 1), 1500, axis=0)[rng(2).permutation(6000)].astype(dtype)
    target = atoms.mean(axis=0, dtype=np.float64)
    picked = omp(atoms, target, 24, ridge=1.0).rows.tolist()
    assert picked == refitting(atoms, target, 24, 1.0)
    copies = {tuple(row): [i for i in picked if tuple(atoms[i]) == tuple(row)] for row in atoms[picked].tolist()}
    assert all(rows == sorted(rows) for rows in copies.values())


@pytest.mark.parametrize("few", [0, 1 << 21])
@pytest.mark.parametrize("positive", [True, False])
def test_nothing_depends_on_how_wrong_float32_is(monkeypatch: pytest.MonkeyPatch, few: int, positive: bool) -> None:
    """With an error so large that every row comes near, and with guesses from scores of noise."""
    atoms = unit_rows(700, 12)
    target = atoms.mean(axis=0)
    expected = omp(atoms, target, 12, positive=positive).rows.tolist()
    monkeypatch.setattr(PURSUIT, "FEW", few)
    monkeypatch.setattr(PURSUIT, "slack", lambda rows, reach, *_: 10 * reach)
    assert omp(atoms, target, 12, positive=positive).rows.tolist() == expected
    random = rng(1)
    monkeypatch.setattr(PURSUIT.Guesses, "_highest", lambda self, scores, places: free_of(places, scores, random))
    assert omp(atoms, target, 12, positive=positive).rows.tolist() == expected


def free_of(places: list[int], scores: np.ndarray, random: np.random.Generator) -> int:
    return int(random.choice(np.setdiff1d(np.arange(len(scores)), places)))


@pytest.mark.parametrize("ridge", [0.0, 1e-12, 0.3])
def test_products_known_of_few_atoms_are_forgotten_and_found_again(
    monkeypatch: pytest.MonkeyPatch, ridge: float
) -> None:
    monkeypatch.setattr(PURSUIT, "FEW", 0)
    atoms = unit_rows(900, 80, 3).astype(np.float32)
    target = atoms.mean(axis=0) + 0.02 * rng(1).normal(size=80).astype(np.float32)
    expected = refitting(atoms, target, 60, ridge)
    assert omp(atoms, target, 60, ridge=ridge).rows.tolist() == expected
    monkeypatch.setattr(sys.modules["coretune.pickers.guesses"], "KNOWN", 1)
    assert omp(atoms, target, 60, ridge=ridge).rows.tolist() == expected


def test_orthonormal_atoms_come_by_their_products_alone() -> None:
    atoms = np.linalg.qr(rng(3).normal(size=(50, 50)))[0]
    target = rng(4).normal(size=50)
    order = np.argsort(-np.abs(atoms @ target))
    assert omp(atoms, target, 20, positive=False).rows.tolist() == order[:20].tolist()
    by_value = np.argsort(-(atoms @ target))
    assert omp(atoms, target, 15, ridge=1.0).rows.tolist() == by_value[:15].tolist()


def test_picks_are_those_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    atoms = unit_rows(1200, 64, 8)
    target = rng(9).normal(size=64)
    theirs = linear_model.orthogonal_mp_gram(atoms @ atoms.T, atoms @ target, n_nonzero_coefs=40)
    ours = omp(atoms, target, 40, positive=False).rows
    assert sorted(ours.tolist()) == np.flatnonzero(theirs).tolist()
    assert refit(atoms, target, ours) == pytest.approx(theirs[ours])
    ridged = linear_model.orthogonal_mp_gram(atoms @ atoms.T + np.eye(1200), atoms @ target, n_nonzero_coefs=40)
    picked = omp(atoms, target, 40, ridge=1.0, positive=False).rows
    assert sorted(picked.tolist()) == np.flatnonzero(ridged).tolist()


def test_moved_rows_move_the_picks() -> None:
    atoms = unit_rows(900, 32, 5).astype(np.float32)
    target, order = atoms.mean(axis=0), rng(6).permutation(900)
    plain, moved = omp(atoms, target, 60, ridge=1.0), omp(atoms[order], target, 60, ridge=1.0)
    assert order[moved.rows].tolist() == plain.rows.tolist()
    assert moved.weights == pytest.approx(plain.weights, rel=1e-5)


# what a run keeps


@pytest.mark.parametrize("few", [0, 1 << 21])
@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_the_factor_the_steps_and_the_residual_belong_together(
    monkeypatch: pytest.MonkeyPatch, ridge: float, few: int
) -> None:
    monkeypatch.setattr(PURSUIT, "FEW", few)
    atoms = unit_rows(800, 60, 2)
    target = atoms.mean(axis=0)
    target /= np.linalg.norm(target)
    run = run_of(atoms, target, 30, ridge)
    chosen = atoms[run.rows]
    assert (np.triu(run.lower, 1) == 0).all()
    assert run.lower @ run.lower.T == pytest.approx(chosen @ chosen.T + ridge * np.eye(30), abs=1e-12)
    weights = least_squares(chosen, target, ridge)
    assert run.lower.T @ weights == pytest.approx(run.steps, abs=1e-9)
    assert run.residual == pytest.approx(target - chosen.T @ weights, abs=1e-12)
    assert chosen @ run.residual == pytest.approx(ridge * weights, abs=1e-6)
    left = [1.0, *(1 - np.cumsum(run.steps**2))]
    assert all(after <= before for before, after in pairwise(left))
    assert left[-1] == pytest.approx(objective(chosen, target, weights, ridge), abs=1e-12)


def test_gains_are_the_fall_of_the_objective() -> None:
    atoms = unit_rows(400, 30, 12)
    target = atoms.mean(axis=0)
    picked = omp(atoms, target, 20, ridge=0.5)
    for k in (1, 7, 20):
        chosen = atoms[picked.rows[:k]]
        left = objective(chosen, target, least_squares(chosen, target, 0.5), 0.5) / (target @ target)
        assert 1 - picked.gains[:k].sum() == pytest.approx(left, abs=1e-6)


@pytest.mark.parametrize("few", [0, 1 << 21])
def test_nearly_equal_atoms_keep_the_factor_exact(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(PURSUIT, "FEW", few)
    base = unit_rows(300, 64, 7)
    atoms = np.concatenate([base, base + 1e-4 * rng(1).normal(size=base.shape) / 8])
    target = atoms[:300].mean(axis=0) + 0.05 * (atoms[5] - atoms[305])
    run = run_of(atoms, target, 64)
    chosen = atoms[run.rows]
    assert np.abs(chosen @ run.residual).max() < 1e-9
    assert run.rows.tolist() == refitting(atoms, target, len(run.rows))


@pytest.mark.parametrize("few", [0, 1 << 21])
def test_smooth_atoms_of_high_condition_stay_orthogonal_to_the_residual(
    monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """One pass of Gram and Schmidt leaves 9e-14 here."""
    monkeypatch.setattr(PURSUIT, "FEW", few)
    grid = np.linspace(0, 1, 100)
    atoms = np.exp(-np.square((grid - np.linspace(0, 1, 400)[:, None]) / 0.3))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    run = run_of(atoms, np.sin(9 * grid) + 0.3 * np.cos(31 * grid) + 0.5 * (grid > 0.5), 80, positive=False)
    assert np.linalg.cond(atoms[run.rows]) > 5e3
    assert np.abs(atoms[run.rows] @ run.residual).max() < 1e-14


# when a run ends


def test_a_zero_row_and_a_copy_come_last() -> None:
    atoms = np.concatenate([np.zeros((1, 6)), np.eye(6), np.eye(6)])
    picked = omp(atoms, np.arange(6, 0, -1.0), 13)
    assert picked.rows.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0]
    assert picked.gains[:6] == pytest.approx(picked.gains[6:12]) and picked.gains[12] == 0
    assert picked.weights[:6] == pytest.approx(picked.weights[6:12]) and picked.weights[12] == 0


def test_weights_of_a_run_count_by_its_share_of_the_picks() -> None:
    """Six rows match the target, and three of the next run: two thirds of the weight and one."""
    picked = omp(np.concatenate([np.eye(6), np.eye(6)]), np.arange(6, 0, -1.0), 9)
    assert picked.rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert picked.weights[6:] == pytest.approx(picked.weights[:3] / 2)
    rounds = rounds_of(FOUR, MEAN, 3)
    assert [len(one.rows) for one in rounds] == [2, 1]
    expected = np.concatenate([2 * rounds[0].weights, rounds[1].weights])
    assert omp_restarts(FOUR, MEAN, 3).weights == pytest.approx(expected / expected.mean())


def test_more_rows_than_the_rank_still_match_the_target() -> None:
    atoms = unit_rows(500, 8, 1)
    target = atoms.mean(axis=0)
    picked = omp(atoms, target, 60)
    weighted = (picked.weights[:, None] * atoms[picked.rows]).sum(axis=0)
    cosine = weighted @ target / np.linalg.norm(weighted) / np.linalg.norm(target)
    assert cosine > 0.999
    assert len(set(picked.rows.tolist())) == 60


def test_rows_that_no_run_takes_follow_by_their_product() -> None:
    atoms = np.array([[-1.0, 0], [1, 0], [-0.5, 1], [-2, 0], [0, 1]])
    picked = omp(atoms, np.array([2.0, 0]), 5)
    assert picked.rows.tolist() == [1, 4, 2, 0, 3]
    assert picked.gains.tolist() == [1, 0, 0, 0, 0] and picked.weights.tolist() == [5, 0, 0, 0, 0]


@pytest.mark.parametrize("pick", [omp, nonnegative_omp, omp_restarts])
def test_a_target_of_zeros_gives_the_first_rows_with_equal_weights(pick) -> None:
    picked = pick(FOUR, np.zeros(3), 2)
    assert picked.rows.tolist() == [0, 1] and picked.weights.tolist() == [1, 1]


@pytest.mark.parametrize("scale", [1e-300, 1e12])
def test_the_unit_of_the_target_is_free(scale: float) -> None:
    atoms = unit_rows(600, 24).astype(np.float32)
    target = atoms.mean(axis=0, dtype=np.float64)
    plain, scaled = omp(atoms, target, 30, ridge=1.0), omp(atoms, scale * target, 30, ridge=1.0)
    assert scaled.rows.tolist() == plain.rows.tolist()
    assert scaled.gains == pytest.approx(plain.gains) and scaled.weights == pytest.approx(plain.weights)


@pytest.mark.parametrize("pick", [omp, nonnegative_omp, omp_restarts])
def test_what_does_not_fit_is_refused(pick) -> None:
    with pytest.raises(ValueError, match="the target must be"):
        pick(FOUR, np.ones(4), 2)
    with pytest.raises(ValueError, match="the target must be"):
        pick(FOUR, np.array([1, np.nan, 0]), 2)
    with pytest.raises(ValueError, match="5 rows asked of 4"):
        pick(FOUR, MEAN, 5)


@pytest.mark.parametrize("pick", [omp, nonnegative_omp])
def test_rows_that_are_not_finite_and_odd_options_are_refused(pick) -> None:
    with pytest.raises(ValueError, match="row 1 is not finite"):
        pick(np.array([[1.0, 0], [np.inf, 0]]), np.ones(2), 1)
    with pytest.raises(ValueError, match="ridge must be 0 or more"):
        pick(FOUR, MEAN, 1, ridge=-1)
    with pytest.raises(ValueError, match="tolerance more than 0"):
        pick(FOUR, MEAN, 1, tolerance=0.0)


@pytest.mark.parametrize("few", [0, 1 << 21])
def test_tensors_give_the_same_picks(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(PURSUIT, "FEW", few)
    atoms = unit_rows(700, 20).astype(np.float32)
    target = atoms.mean(axis=0)
    plain, tensor = omp(atoms, target, 25, ridge=1.0), omp(torch.from_numpy(atoms), target, 25, ridge=1.0)
    assert tensor.rows.tolist() == plain.rows.tolist() and tensor.weights.tolist() == plain.weights.tolist()
    half = torch.from_numpy(atoms).half()
    assert omp(half, target, 25, ridge=1.0).rows.tolist() == omp(half.numpy(), target, 25, ridge=1.0).rows.tolist()


def test_float16_too_large_to_widen_gives_the_same_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = unit_rows(600, 20).astype(np.float16)
    target = atoms.mean(axis=0, dtype=np.float64)
    expected = omp(atoms, target, 30, ridge=1.0).rows.tolist()
    monkeypatch.setattr(sys.modules["coretune.pickers.omp"], "WIDENED", 0)
    assert omp(atoms, target, 30, ridge=1.0).rows.tolist() == expected


# weights


def test_a_negative_weight_is_replaced_by_the_best_without_any(caplog: pytest.LogCaptureFixture) -> None:
    atoms = np.array([[1.0, 0, 0], [0.9, 0.43588989, 0], [0.5, -0.3, 0.8124]])
    target = np.array([1.0, -0.05, 0.4])
    with caplog.at_level("INFO", logger="coretune.pickers.omp"):
        seen = False
        for seed in range(200):
            atoms = unit_rows(30, 6, seed)
            target = rng(seed).normal(size=6)
            picked = omp(atoms, target, 5)
            if (refit(atoms, target, picked.rows) < 0).any() and (picked.gains > 0).all():
                best = nonnegative_refit(atoms, target, picked.rows)
                assert (best == 0).any()
                seen = True
    assert seen and "refitted weights are negative" in caplog.text


@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_nonnegative_weights_meet_the_conditions_of_the_optimum(ridge: float) -> None:
    for seed in range(30):
        atoms, target = rng(seed).normal(size=(12, 30)), rng(seed + 100).normal(size=30)
        weights = nonnegative_refit(atoms, target, np.arange(12), ridge=ridge)
        slope = atoms @ (target - weights @ atoms) - ridge * weights
        assert (weights >= 0).all() and (weights == 0).any()
        assert np.abs(slope[weights > 0]).max(initial=0) < 1e-6 and (slope[weights == 0] < 1e-6).all()


def test_nonnegative_weights_are_those_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    for seed in range(20):
        atoms, target = rng(seed).normal(size=(40, 60)), rng(seed + 50).normal(size=60)
        expected = optimize.nnls(atoms.T, target)[0]
        assert nonnegative(atoms @ atoms.T, atoms @ target) == pytest.approx(expected, abs=1e-9)
        monkeypatch.setattr(sys.modules["coretune.pickers.weights"], "EXCHANGES", 0 if seed % 2 else 50)


def test_weights_of_equal_rows_exist() -> None:
    twice = np.repeat(np.eye(3), 2, axis=0)
    assert refit(twice, np.ones(3), np.arange(6)) == pytest.approx(np.full(6, 0.5))
    assert nonnegative_refit(twice, np.ones(3), np.arange(6)) == pytest.approx(np.full(6, 0.5), abs=1e-3)
    assert nonnegative_refit(twice, np.ones(3), np.arange(0)).tolist() == []


def test_weights_are_scaled_by_what_a_cell_stands_for() -> None:
    atoms = unit_rows(90, 10)
    cells = by_column(np.repeat([0, 1], [60, 30]))
    targets = np.stack([atoms[:60].mean(axis=0), atoms[60:].mean(axis=0)])
    chosen = within(
        cells,
        np.array([6, 3]),
        lambda rows, k, _: omp(atoms[rows], targets[cells.cell[rows[0]]], k, ridge=1.0),
        rng(),
        mass=cells.sizes,
    )
    sums = [chosen.weights[cells.cell[chosen.rows] == c].sum() for c in (0, 1)]
    assert sums[0] == pytest.approx(2 * sums[1])


def test_a_support_keeps_the_best_weights_as_atoms_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["coretune.pickers.support"], "REFRESH", 3)
    atoms, target = unit_rows(40, 25, 2), rng(3).normal(size=25)
    for ridge in (0.0, 0.7):
        support = Support(target, 12, ridge)
        for step, row in enumerate(rng(4).permutation(40)[:24].tolist()):
            assert support.add(row, atoms[row])
            if step % 3 == 2 or len(support) == 12:
                support.drop(int(rng(step).integers(len(support))))
            weights = support.weights()
            assert weights == pytest.approx(least_squares(atoms[support.rows], target, ridge))
            assert support.residual(weights) == pytest.approx(target - weights @ atoms[support.rows])
        row = support.rows[2]
        assert support.add(row, atoms[row]) == bool(ridge)


# non-negative throughout


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_nonnegative_omp_ends_at_the_optimum(ridge: float) -> None:
    """With k beyond what is needed: no weight below zero, and no row outside the first run that would help."""
    for seed in range(10):
        atoms, target = rng(seed).normal(size=(40, 25)), rng(seed + 7).normal(size=25)
        picked = nonnegative_omp(atoms, target, 40, ridge=ridge, tolerance=1e-9)
        best = nonnegative_refit(atoms, target, np.arange(40), ridge=ridge)
        first = set(picked.rows[: int((best > 0).sum())].tolist())
        assert first == set(np.flatnonzero(best).tolist())


def test_nonnegative_omp_refits_at_every_step() -> None:
    atoms, target = unit_rows(200, 30, 4), rng(5).normal(size=30)
    for k in (1, 5, 12):
        picked = nonnegative_omp(atoms, target, k)
        best = nonnegative_refit(atoms, target, picked.rows)
        assert (picked.weights > 0).all()
        assert picked.weights == pytest.approx(best / best.mean(), rel=1e-4)
        left = objective(atoms[picked.rows], target, best, 0.0) / (target @ target)
        assert 1 - picked.gains.sum() == pytest.approx(left, abs=1e-6)


def test_nonnegative_omp_is_omp_where_no_weight_turns_negative() -> None:
    atoms = unit_rows(500, 40, 3).astype(np.float32)
    target = atoms.mean(axis=0)
    one, other = omp(atoms, target, 25, ridge=1.0), nonnegative_omp(atoms, target, 25, ridge=1.0)
    assert one.rows.tolist() == other.rows.tolist()
    assert one.weights == pytest.approx(other.weights, rel=1e-4)


def test_nonnegative_omp_reaches_a_mean_with_few_rows() -> None:
    atoms = unit_rows(300, 10, 9)
    target = atoms.mean(axis=0)
    picked = nonnegative_omp(atoms, target, 10)
    weighted = picked.weights @ atoms[picked.rows]
    assert weighted / np.linalg.norm(weighted) == pytest.approx(target / np.linalg.norm(target), abs=2e-3)


# the authors' rule


def literal(
    atoms: np.ndarray, target: np.ndarray, budget: int, ridge: float = 1.0, tolerance: float = 1e-4
) -> tuple[list[list[int]], list[list[float]]]:
    """The twin: rounds as in the specification of gradients, 1.3, steps 11 and 12, with a fresh solve every time."""
    left = list(range(len(atoms)))
    rounds, all_weights = [], []
    while budget > 0:
        a = atoms[left].astype(np.float64)
        chosen, weights, residual = [], np.empty(0), target.astype(np.float64)
        for _ in range(budget):
            if np.linalg.norm(residual) / np.linalg.norm(target) < tolerance:
                break
            j = int((a @ residual).argmax())
            if j in chosen:
                break
            chosen.append(j)
            newest = False
            if len(chosen) == 1:
                weights = np.array([a[j] @ residual / (a[j] @ a[j])])
            else:
                weights = solve(a[chosen], target, ridge)
                while weights.min() < 0:
                    worst = int(weights.argmin())
                    del chosen[worst]
                    newest = worst == len(chosen)
                    if newest:
                        break
                    weights = solve(a[chosen], target, ridge)
            if newest:
                break
            residual = target - a[chosen].T @ weights
        some = [(j, w) for j, w in zip(chosen, weights, strict=False) if w != 0]
        if not some:
            break
        rounds.append([left[j] for j, _ in some])
        all_weights.append([w for _, w in some])
        budget -= len(some)
        left = [row for row in left if row not in rounds[-1]]
    return rounds, all_weights


def solve(atoms: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    return np.linalg.lstsq(atoms @ atoms.T + ridge * np.eye(len(atoms)), atoms @ target, rcond=None)[0]


def rounds_of(atoms: np.ndarray, target: np.ndarray, k: int, ridge: float = 1.0) -> list:
    free, found = np.ones(len(atoms), bool), []
    while k > 0:
        one = a_round(atoms, target, k, free, ridge=ridge, tolerance=1e-4)
        if not len(one.rows):
            break
        free[one.rows] = False
        k -= len(one.rows)
        found.append(one)
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ridge", [0.05, 1.0])
@pytest.mark.parametrize("mean", [True, False])
def test_the_authors_rounds_are_those_of_the_literal_rule(seed: int, ridge: float, mean: bool) -> None:
    atoms = unit_rows(150, 16, seed, common=0.0)
    target = atoms.mean(axis=0) if mean else rng(seed).normal(size=16)
    expected, weights = literal(atoms, target, 40, ridge)
    found = rounds_of(atoms, target, 40, ridge)
    assert [one.rows.tolist() for one in found] == expected
    for one, theirs in zip(found, weights, strict=True):
        assert one.weights == pytest.approx(theirs)
    picked = omp_restarts(atoms, target, 40, ridge=ridge)
    assert picked.rows[: sum(map(len, expected))].tolist() == [row for rows in expected for row in rows]


def test_every_way_for_a_round_to_end() -> None:
    """Over many small problems, all endings but that of an atom without direction, which has its own below."""
    seen = set()
    for seed in range(60):
        atoms, target = rng(seed).normal(size=(12, 4)), rng(seed + 999).normal(size=4)
        seen |= {one.ended for ridge in (1e-6, 0.05, 1.0) for one in rounds_of(atoms, target, 8, ridge)}
    assert seen >= {"budget", "matched", "picked again", "newest deleted"}


def test_the_first_weight_has_no_ridge() -> None:
    found = a_round(FOUR, MEAN, 1, np.ones(4, bool), ridge=1.0, tolerance=1e-4)
    assert found.weights == pytest.approx([0.54]) and found.ended == "budget"


def test_a_round_that_picks_nothing_is_the_last() -> None:
    """Where the authors' program would not end: rows of zeros alone are left."""
    atoms = np.array([[0.0, 0], [1, 0], [0, 0]])
    assert (
        a_round(atoms, np.ones(2), 2, np.array([True, False, True]), ridge=1.0, tolerance=1e-4).ended == "no direction"
    )
    picked = omp_restarts(atoms, np.ones(2), 3)
    assert picked.rows.tolist() == [1, 0, 2] and picked.weights.tolist() == [3, 0, 0]


def test_absolute_products_keep_weights_of_both_signs() -> None:
    atoms = np.eye(3)
    found = a_round(atoms, np.array([1.0, -3, 2]), 3, np.ones(3, bool), ridge=1.0, tolerance=1e-4, positive=False)
    assert found.rows.tolist()[0] == 1 and found.weights[0] < 0
    assert (omp_restarts(atoms, np.array([1.0, -3, 2]), 3, positive=False).weights >= 0).all()
