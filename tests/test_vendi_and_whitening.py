"""The Vendi score and whitening: worked numbers, both Gram matrices, and what whitening leaves of the variance."""

from __future__ import annotations

import numpy as np
import pytest

from coretune.scores.vendi import vendi
from coretune.scores.whitening import whitened


def test_vendi_of_four_rows_by_hand() -> None:
    assert vendi(np.eye(4)) == pytest.approx(4)
    assert vendi(np.ones((4, 3))) == pytest.approx(1)
    assert vendi(np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])) == pytest.approx(2)
    assert vendi(np.array([[5.0, 0], [0.1, 0], [0, 2]])) == pytest.approx(np.exp(np.log(3) - 2 / 3 * np.log(2)))


def test_vendi_looks_at_directions_alone_and_takes_the_smaller_gram_matrix() -> None:
    rng = np.random.default_rng(0)
    for n, d in ((5, 30), (300, 6), (5000, 3)):
        x = rng.normal(size=(n, d)).astype(np.float32)
        units = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        values = np.linalg.eigvalsh(units @ units.T / n) if n < 1000 else np.linalg.eigvalsh(units.T @ units / n)
        values = values[values > 1e-12]
        want = np.exp(-(values * np.log(values)).sum())
        assert vendi(x) == pytest.approx(want, rel=1e-6)
        assert vendi(x * rng.uniform(0.1, 9, size=(n, 1)).astype(np.float32)) == pytest.approx(want, rel=1e-5)
        assert 1 <= vendi(x) <= min(n, d) + 1e-9


def test_vendi_refuses_rows_without_a_direction() -> None:
    with pytest.raises(ValueError, match=r"row 1 has length 0\.0"):
        vendi(np.array([[1.0, 0], [0, 0]]))
    with pytest.raises(ValueError, match="row 0 has length nan"):
        vendi(np.array([[np.nan, 0], [0, 1]]))
    with pytest.raises(ValueError, match="no rows"):
        vendi(np.empty((0, 3)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_whitening_is_the_textbook_s(dtype: type) -> None:
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(200, 6)) * [9, 4, 2, 1, 0.5, 0.2] @ rng.normal(size=(6, 6)) + 3).astype(dtype)
    wide = x.astype(np.float64)
    away = wide - wide.mean(axis=0)
    left, _, _ = np.linalg.svd(away, full_matrices=False)
    want = left[:, :4] / np.linalg.norm(left[:, :4], axis=1, keepdims=True)
    got = whitened(x, 4)
    assert got.shape == (200, 4) and got.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(got @ got.T, want @ want.T, atol=1e-5)  # up to the signs of components


def test_whitening_takes_away_what_dominates() -> None:
    """One huge dimension decides which rows are near; whitened, it counts as much as the other."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(500, 2)) * [1000, 1]
    share = np.square(whitened(x, 2)).mean(axis=0)
    np.testing.assert_allclose(share, 0.5, atol=0.05)


def test_whitening_refuses_directions_that_are_not_there() -> None:
    x = np.random.default_rng(3).normal(size=(3, 8))
    with pytest.raises(ValueError, match="whitening to 3 dimensions asked; 3 rows differ in 2 directions: give 1 to 2"):
        whitened(x, 3)
    with pytest.raises(ValueError, match="whitening to 0 dimensions"):
        whitened(x, 0)
    assert whitened(x, 2).shape == (3, 2)
    at_the_mean = np.array([[3.0, 1], [-3, -1], [1, 2], [-1, -2], [0, 0]])
    assert not whitened(at_the_mean, 2)[-1].any()
