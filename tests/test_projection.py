"""The map's layout: neighbours stay neighbours, fast paths equal naive twins, odd inputs end well or are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coretune import projection
from coretune.projection import affinities, embed, lay_out, place


def clouds(rng: np.random.Generator, n: int = 900, groups: int = 9, d: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Rows around a few middles, and which middle each belongs to."""
    kind = rng.integers(0, groups, n)
    return (rng.normal(size=(groups, d))[kind] * 3 + rng.normal(size=(n, d))).astype(np.float32), kind


def divergence(p: np.ndarray, y: np.ndarray) -> float:
    """KL(P || Q) of a layout, straight from Eq. 2 and 4."""
    kernel = 1 / (1 + ((y[:, None].astype(np.float64) - y[None]) ** 2).sum(axis=2))
    np.fill_diagonal(kernel, 0)
    q, off = kernel / kernel.sum(), ~np.eye(len(y), dtype=bool)
    known = off & (p > 0)
    return float((p[known] * np.log(p[known] / q[known])).sum())


def test_neighbours_on_the_map_are_neighbours_in_the_data(rng: np.random.Generator) -> None:
    manifold = pytest.importorskip("sklearn.manifold")
    digits = pytest.importorskip("sklearn.datasets").load_digits().data[:1200].astype(np.float32)
    layout = lay_out(digits, rng)
    assert layout.shape == (1200, 2) and layout.dtype == np.float32 and np.isfinite(layout).all()
    kept = manifold.trustworthiness(digits, layout, n_neighbors=10)
    chance = manifold.trustworthiness(digits, rng.normal(size=(1200, 2)), n_neighbors=10)
    assert chance < 0.55 and kept > 0.97  # 0.99 here


def test_groups_stay_together(rng: np.random.Generator) -> None:
    x, kind = clouds(rng)
    layout = lay_out(x, rng)
    distances = ((layout[:, None] - layout[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (kind[distances.argmin(axis=1)] == kind).mean() > 0.98


def test_layout_is_as_good_as_the_oracle(rng: np.random.Generator) -> None:
    manifold = pytest.importorskip("sklearn.manifold")
    x, _ = clouds(rng, n=160)
    p = affinities(x, 30.0).astype(np.float64)
    oracle = manifold.TSNE(method="exact", init="pca", perplexity=30, random_state=0).fit_transform(x)
    assert divergence(p, embed(x, rng)) < 1.05 * divergence(p, oracle)


def test_affinities_against_a_naive_twin(rng: np.random.Generator) -> None:
    x, perplexity = rng.normal(size=(30, 5)).astype(np.float32), 7.0
    expected = np.zeros((30, 30))
    for i in range(30):
        others = [j for j in range(30) if j != i]
        squared = ((x[others].astype(np.float64) - x[i]) ** 2).sum(axis=1)
        low, high = 1e-6, 1e6
        while high / low > 1 + 1e-12:
            weights = np.exp(-np.sqrt(low * high) * squared)
            share = weights / weights.sum() if weights.sum() else np.eye(29)[squared.argmin()]
            entropy = -sum(value * np.log(value) for value in share if value > 0)
            low, high = (np.sqrt(low * high), high) if entropy > np.log(perplexity) else (low, np.sqrt(low * high))
        expected[i, others] = share
    np.testing.assert_allclose(affinities(x, perplexity), (expected + expected.T) / 60, rtol=1e-4, atol=1e-9)


def test_placing_against_a_naive_twin(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "BLOCK", 7)  # blocks must not show
    x, centers, spots = (rng.normal(size=shape).astype(np.float32) for shape in ((40, 6), (12, 6), (12, 2)))
    squared = ((x.astype(np.float64)[:, None] - centers) ** 2).sum(axis=2)
    near = np.argsort(squared, axis=1)[:, :5]
    for i, placed in enumerate(place(x, centers, spots)):
        own, others = near[i, 0], near[i, 1:]
        excess = squared[i, others] - squared[i, others[0]]
        side = np.exp(-2 * excess / excess.mean()) @ (spots[others] - spots[own])
        disc = [j for j in range(40) if near[j, 0] == own]
        inside = sorted(disc, key=lambda j: squared[j, near[j, 0]] - squared[j, near[j, 1]]).index(i)
        reach = np.sort(np.linalg.norm(spots - spots[own], axis=1))[1:4].mean() / 2
        expected = spots[own] + reach * np.sqrt((inside + 0.5) / len(disc)) * side / np.linalg.norm(side)
        np.testing.assert_allclose(placed, expected, atol=1e-4)


def test_placing_by_hand() -> None:
    """Two rows of the middle centre, both nearest the right one next: to its side, the nearer the middle the nearer."""
    centers = np.array([[0, 0], [2, 0], [-6, 0], [0, 6], [0, -6]], dtype=np.float32)
    spots = np.array([[0, 0], [4, 0], [-4, 0], [0, 4], [0, -4]], dtype=np.float32)
    placed = place(np.array([[0.5, 0], [0.1, 0]], dtype=np.float32), centers, spots)
    np.testing.assert_allclose(placed[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(placed[:, 0], [2 * np.sqrt(0.75), 2 * np.sqrt(0.25)], rtol=1e-6)


def test_equal_rows_are_drawn_apart(rng: np.random.Generator) -> None:
    centers, spots = rng.normal(size=(12, 4)).astype(np.float32), rng.normal(size=(12, 2)).astype(np.float32)
    assert len(np.unique(place(np.ones((9, 4)), centers, spots), axis=0)) == 9


def test_same_seed_same_map_and_arguments_untouched(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "CENTERS", 40)
    monkeypatch.setattr(projection, "SAMPLE", 150)
    x, _ = clouds(rng, n=300)
    before = x.copy()
    first = lay_out(x, np.random.default_rng(3))
    np.testing.assert_array_equal(first, lay_out(x, np.random.default_rng(3)))
    np.testing.assert_array_equal(x, before)
    assert not np.array_equal(first, lay_out(x, np.random.default_rng(4)))


def test_memory_mapped_half_floats_give_the_map_of_their_values(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "CENTERS", 40)
    x = clouds(rng, n=300)[0].astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        lay_out(mapped, np.random.default_rng(0)), lay_out(x.astype(np.float32), np.random.default_rng(0))
    )


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_few_rows(n: int, rng: np.random.Generator) -> None:
    layout = lay_out(rng.normal(size=(n, 4)), rng)
    assert layout.shape == (n, 2) and layout.dtype == np.float32 and np.isfinite(layout).all()
    assert len(np.unique(layout, axis=0)) == n


def test_two_kinds_of_equal_rows_part(rng: np.random.Generator) -> None:
    layout = lay_out(np.repeat(np.array([[0.0, 0, 1], [50, 0, 0]]), 25, axis=0), rng)
    distances = ((layout[:, None] - layout[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    assert ((distances.argmin(axis=1) < 25) == (np.arange(50) < 25)).all()


@pytest.mark.parametrize("kinds", [1, 2, 3, 600])
def test_many_equal_rows_are_laid_out(kinds: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=(kinds, 3))[rng.integers(0, kinds, 700)]
    assert np.isfinite(lay_out(x, rng)).all()


def test_one_direction_only(rng: np.random.Generator) -> None:
    layout = lay_out(np.arange(80, dtype=np.float64)[:, None], rng)
    assert np.isfinite(layout).all()


@pytest.mark.parametrize("n", [60, 900])
def test_value_that_is_not_finite_is_refused_with_its_row(n: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=(n, 3))
    x[n - 2, 1] = np.nan
    with pytest.raises(ValueError, match=rf"row {n - 2} holds a value that is not finite"):
        lay_out(x, rng)


def test_other_shapes_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match=r"\(n, d\).*\(5,\)"):
        lay_out(np.ones(5), rng)
