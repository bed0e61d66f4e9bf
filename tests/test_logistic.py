"""Logistic regression against scikit-learn and its own conditions; the area under the curve against all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from coretune.scores.logistic import Logistic, auc, balanced, balanced_accuracy, fit


def made(n: int, d: int, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and labels that a direction and noise give; both labels occur."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) + 0.3
    return x, x @ rng.normal(size=d) + noise * rng.normal(size=n) > 0.5


def plain_descent(x: np.ndarray, y: np.ndarray, ridge: float, mass: np.ndarray) -> tuple[np.ndarray, float]:
    """The naive twin: many small steps down the slope."""
    w, bias = np.zeros(x.shape[1]), 0.0
    rate = 1.0 / (0.25 * float(mass.sum() * ((x**2).sum(axis=1).max() + 1)) + ridge)
    for _ in range(60_000):
        left = mass * (1 / (1 + np.exp(-(x @ w + bias))) - y)
        w, bias = w - rate * (x.T @ left + ridge * w), bias - rate * float(left.sum())
    return w, bias


def test_the_fit_is_where_plain_descent_ends() -> None:
    x, y = made(24, 3)
    for mass in (np.ones(24), balanced(y)):
        w, bias = plain_descent(x, y.astype(float), 0.5, mass)
        found = fit(x, y, ridge=0.5, row_weights=mass)
        np.testing.assert_allclose(found.weights, w, atol=1e-6)
        assert found.bias == pytest.approx(bias, abs=1e-6)
        np.testing.assert_allclose(found.probabilities(x), 1 / (1 + np.exp(-(x @ w + bias))), atol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(200, 5), (60, 59), (40, 300), (500, 60)])
@pytest.mark.parametrize("ridge", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("even", [False, True])
def test_scikit_learn_agrees(n: int, d: int, ridge: float, even: bool) -> None:
    from sklearn.linear_model import LogisticRegression

    x, y = made(n, d, seed=n + d)
    peer = LogisticRegression(C=1 / ridge, class_weight="balanced" if even else None, tol=1e-12, max_iter=20_000)
    peer.fit(x, y)
    found = fit(x, y, ridge=ridge, row_weights=balanced(y) if even else None)
    np.testing.assert_allclose(found.weights, peer.coef_[0], atol=2e-4, rtol=2e-3)
    np.testing.assert_allclose(found.probabilities(x), peer.predict_proba(x)[:, 1], atol=2e-4)
    assert loss_of(found, x, y, ridge, even) <= loss_of(
        Logistic(peer.coef_[0], float(peer.intercept_[0])), x, y, ridge, even
    ) * (1 + 1e-12)


def loss_of(found: Logistic, x: np.ndarray, y: np.ndarray, ridge: float, even: bool) -> float:
    mass = balanced(y) if even else np.ones(len(y))
    logit = x @ found.weights + found.bias
    return float((mass * (np.logaddexp(0, logit) - y * logit)).sum() + ridge / 2 * (found.weights**2).sum())


@pytest.mark.parametrize(("n", "d"), [(50, 4), (30, 200)])
def test_no_slope_is_left(n: int, d: int) -> None:
    x, y = made(n, d, seed=1)
    found = fit(x, y, ridge=1e-4)
    left = found.probabilities(x) - y
    np.testing.assert_allclose(x.T @ left + 1e-4 * found.weights, 0, atol=1e-8)
    assert left.sum() == pytest.approx(0, abs=1e-8)


def test_labels_that_a_plane_separates_have_a_fit() -> None:
    x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    y = np.array([False, False, True, True])
    for ridge in (1.0, 1e-6, 1e-12):
        found = fit(x, y, ridge=ridge)
        assert np.isfinite(found.weights).all() and found.bias == pytest.approx(0, abs=1e-6)
        assert ((found.probabilities(x) > 0.5) == y).all()
    assert fit(x, y, ridge=1e-6).weights[0] > fit(x, y, ridge=1.0).weights[0]
    far = fit(1e4 * x + 1e6, y, ridge=1e-3)  # and far from the origin, in large units
    assert ((far.probabilities(1e4 * x + 1e6) > 0.5) == y).all()


def test_a_rare_label_counts_as_much_as_the_other() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(400) < 12
    x = (rng.normal(size=400) + 1.5 * y)[:, None]
    even, plain = fit(x, y, row_weights=balanced(y)), fit(x, y)
    assert (plain.probabilities(x) > 0.5).mean() < y.mean() < (even.probabilities(x) > 0.5).mean()
    assert balanced(y)[y].sum() == pytest.approx(balanced(y)[~y].sum()) == pytest.approx(200)
    twice = fit(np.vstack([x, x[y]]), np.append(y, y[y]))  # a weight of 2 is the row twice
    np.testing.assert_allclose(fit(x, y, row_weights=1.0 + y).weights, twice.weights, rtol=1e-8)


def test_the_fit_is_the_same_every_time_and_for_float32() -> None:
    x, y = made(80, 20)
    np.testing.assert_array_equal(fit(x, y).weights, fit(x.copy(), y.copy()).weights)
    narrow = x.astype(np.float32)
    np.testing.assert_array_equal(fit(narrow, y).weights, fit(narrow.astype(np.float64), y).weights)
    assert fit(narrow, y).probabilities(narrow).dtype == np.float64


def test_what_has_no_fit_is_refused() -> None:
    x, y = made(10, 2)
    with pytest.raises(ValueError, match="rows of both kinds"):
        fit(x, np.ones(10, bool))
    with pytest.raises(ValueError, match="ridge of 0"):
        fit(x, y, ridge=0.0)
    with pytest.raises(ValueError, match="do not belong together"):
        fit(x, y[:9])
    with pytest.raises(ValueError, match="not finite"):
        fit(np.where(x > 0, x, np.nan), y)
    with pytest.raises(ValueError, match="nothing to balance"):
        balanced(np.zeros(3, bool))


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    assert auc(np.array([3.0, 1.0, 1.0, 0.0]), np.array([True, True, False, False])) == 0.875
    rng = np.random.default_rng(2)
    scores, y = rng.integers(0, 6, 50).astype(float), rng.random(50) < 0.3
    gaps = scores[y][:, None] - scores[~y]
    assert auc(scores, y) == pytest.approx(float(((gaps > 0) + 0.5 * (gaps == 0)).mean()), abs=1e-12)
    assert auc(-scores, y) == pytest.approx(1 - auc(scores, y), abs=1e-12)
    assert auc(np.zeros(50), y) == 0.5 and np.isnan(auc(scores, np.zeros(50, bool)))
    with pytest.raises(ValueError, match="NaN"):
        auc(np.array([0.0, np.nan]), np.array([True, False]))


def test_balanced_accuracy_by_hand() -> None:
    p, y = np.array([0.9, 0.2, 0.6, 0.1, 0.4]), np.array([True, True, False, False, False])
    assert balanced_accuracy(p, y) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert np.isnan(balanced_accuracy(p, np.zeros(5, bool)))
