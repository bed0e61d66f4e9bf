"""Distances: products within their stated error, nearest centres as float64 has them, numpy and torch alike."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.distances import blocks, centred, nearest, rows_of, slack, squared_distances
from coretune.distances.rows import ArrayRows


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(
    st.integers(0, 10**6),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.sampled_from([1e-3, 1.0, 300.0]),
    st.sampled_from([0.0, 1.0, 100.0]),
)
def test_products_are_within_their_slack(seed: int, dtype: type, scale: float, shift: float) -> None:
    random = rng(seed)
    x = (scale * (random.normal(size=(40, 200)) + shift)).astype(dtype)
    vectors = scale * (random.normal(size=(7, 200)) + shift)
    offsets = (vectors**2).sum(axis=1) / 2
    rows = rows_of(x)
    exact = x.astype(np.longdouble) @ vectors.astype(np.longdouble).T - offsets
    bound = slack(
        rows,
        np.linalg.norm(x.astype(np.float64), axis=1),
        float(np.linalg.norm(vectors, axis=1).max()),
        float(offsets.max()),
    )
    which, first, second = rows.best_two(None, vectors, offsets)
    ranked = np.sort(exact, axis=1)
    assert (np.abs(first - ranked[:, -1]) <= bound / 2).all()
    assert (np.abs(second - ranked[:, -2]) <= bound / 2).all()
    assert (ranked[:, -1] - exact[np.arange(40), which] <= bound).all()
    assert (rows.best(None, vectors, offsets) == first).all()
    alone = rows.best(np.array([3, 1]), vectors[:1], offsets[:1])
    assert (np.abs(alone - exact[[3, 1], 0]) <= bound[[3, 1]] / 2).all()


@given(st.integers(0, 10**6), st.sampled_from([np.float32, np.float64]))
def test_nearest_is_what_differences_in_float64_give(seed: int, dtype: type) -> None:
    random = rng(seed)
    x = (random.integers(0, 4, size=(50, 3)) + 1000 * (seed % 2)).astype(dtype)
    centers = x[random.permutation(50)[:9]].astype(np.float64) + random.choice([0, 0.5, 1e-9], size=(9, 1))
    rows = rows_of(x)
    cell, squared = nearest(rows, centers, *centred(rows))
    away = ((x.astype(np.float64)[:, None] - centers) ** 2).sum(axis=2)
    assert cell.tolist() == away.argmin(axis=1).tolist()
    assert squared == pytest.approx(away.min(axis=1), rel=1e-12, abs=1e-300)


def test_the_mean_and_the_distances_to_it_are_in_float64() -> None:
    x = (rng().normal(size=(3000, 5)) + 1e4).astype(np.float32)
    mean, spread = centred(rows_of(x))
    assert mean == pytest.approx(x.astype(np.float64).mean(axis=0), rel=1e-13)
    assert spread == pytest.approx(((x.astype(np.float64) - mean) ** 2).sum(axis=1), rel=1e-12)
    assert squared_distances(rows_of(x), x[7].astype(np.float64))[7] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e16])
def test_values_that_products_cannot_take_are_named(value: float) -> None:
    x = np.zeros((2000, 3), np.float32)
    x[1500, 1] = value
    with pytest.raises(ValueError, match="row 1500 has a value that is not finite or above 1e"):
        centred(rows_of(x))


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((3, 2), np.int32), np.zeros((0, 2)), np.zeros((2, 0))])
def test_what_is_no_matrix_of_numbers_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"must be \(n, d\) floating numbers, not empty; found"):
        rows_of(wrong)


def test_sums_of_cells() -> None:
    x = rng().normal(size=(30, 4)).astype(np.float32)
    cell = rng(1).integers(0, 5, size=30).astype(np.int32)
    cell[cell == 3] = 0
    expected = np.stack([x[cell == j].sum(axis=0, dtype=np.float64) for j in range(6)])
    assert rows_of(x).totals(None, cell, 6) == pytest.approx(expected)
    some = np.array([4, 2, 29])
    part = rows_of(x).totals(some, cell[some], 6)
    assert part.sum(axis=0) == pytest.approx(x[some].sum(axis=0, dtype=np.float64))


def test_torch_rows_are_numpy_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from coretune.distances import tensors

    monkeypatch.setattr(tensors, "SUMMED", 7)
    monkeypatch.setattr(tensors, "PRODUCTS", 64)
    x, some = rng().normal(size=(200, 6)).astype(np.float32), np.array([5, 1, 150])
    vectors, offsets = rng(1).normal(size=(4, 6)), rng(2).normal(size=4)
    cell = rng(3).integers(0, 5, size=200).astype(np.int32)
    here, there = rows_of(x), rows_of(torch.from_numpy(x))
    for rows in (None, some):
        own = cell if rows is None else cell[rows]
        assert there.totals(rows, own, 6) == pytest.approx(here.totals(rows, own, 6), abs=1e-12)
        assert there.best(rows, vectors, offsets) == pytest.approx(here.best(rows, vectors, offsets), abs=1e-6)
        for one, other in zip(
            there.best_two(rows, vectors, offsets), here.best_two(rows, vectors, offsets), strict=True
        ):
            assert one.dtype == other.dtype and one == pytest.approx(other, abs=1e-6)
    assert (there.take(some) == here.take(some)).all() and there.take(slice(3, 5)).dtype == np.float64
    assert there.part(some).take(np.array([0])).tolist() == here.take(np.array([5])).tolist()
    with pytest.raises(ValueError, match=r"found \(2, 2\) torch.int64"):
        rows_of(torch.zeros((2, 2), dtype=torch.int64))


def test_a_caller_who_lets_cuda_round_is_given_a_wider_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from coretune.distances.tensors import TensorRows

    class OnCuda:
        """What `TensorRows` asks of a tensor, on a device that this machine need not have."""

        shape, dtype, is_cuda = (2, 2), torch.float32, True

        def detach(self) -> OnCuda:
            return self

    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert TensorRows(OnCuda()).unit == 2.0**-9
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "highest")
    assert TensorRows(OnCuda()).unit == 2.0**-24


def test_numpy_rows_load_no_torch() -> None:
    code = (
        "import sys, numpy as np; from coretune.partitions import kmeans; from coretune.pickers import k_center; "
        "x = np.eye(4); k_center(x, 2); kmeans(x, 2, np.random.default_rng(0)); "
        "print(sorted({'torch', 'numba', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_blocks_cover_everything_once() -> None:
    assert [(place.start, place.stop) for place in blocks(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert list(blocks(0, 3)) == []
    assert isinstance(rows_of(np.eye(2)), ArrayRows)
