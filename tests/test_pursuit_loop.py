"""The compiled loop of matching pursuit: it picks what numpy's does, and is loaded only where that pays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.distances.rows import ArrayRows
from coretune.pickers import _pursuit_loop, omp
from coretune.pickers.pursuit import Atoms, Rule, Run, pursue

PURSUIT = sys.modules["coretune.pickers.pursuit"]
KINDS = ["plain", "compiled"]


class Always:
    """One loop, whatever has been picked."""

    def __init__(self, walk: _pursuit_loop.Walk | None) -> None:
        self.walk = walk

    def loop(self, rows: ArrayRows, picks: int) -> _pursuit_loop.Walk | None:
        return self.walk if _pursuit_loop.suits(rows.x) else None


def loop_of(kind: str) -> _pursuit_loop.Walk:
    """As it is written, run by Python, or by numba."""
    if kind == "plain":
        return _pursuit_loop.walk
    pytest.importorskip("numba")
    found = _pursuit_loop.compiled_walk()
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing is loaded before, and nothing after."""
    _pursuit_loop.compiled_walk.cache_clear()
    yield
    _pursuit_loop.compiled_walk.cache_clear()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rows_near(n: int, d: int, seed: int = 0) -> np.ndarray:
    x = rng(seed).normal(size=(n, d)) + rng(seed + 1).normal(size=d)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def both(
    walk: _pursuit_loop.Walk, atoms: np.ndarray, target: np.ndarray, k: int, rule: Rule, free: np.ndarray | None = None
) -> tuple[Run, Run]:
    """What numpy's loop makes of it, and this one."""
    made = []
    for one in (None, walk):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PURSUIT, "ASKED", Always(one))
            every = np.ones(len(atoms), bool) if free is None else free
            made.append(pursue(Atoms.of(ArrayRows(atoms)), target / np.linalg.norm(target), every, k, rule))
    return made[0], made[1]


def alike(one: Run, other: Run) -> None:
    assert one.rows.tolist() == other.rows.tolist()
    assert other.lower == pytest.approx(one.lower, abs=1e-11)
    assert other.steps == pytest.approx(one.steps, abs=1e-11)
    assert other.residual == pytest.approx(one.residual, abs=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_run_is_that_of_numpy(kind: str, dtype: type, ridge: float, positive: bool) -> None:
    n, d, k = (60, 18, 15) if kind == "plain" else (700, 48, 40)
    atoms, free = rows_near(n, d).astype(dtype), np.arange(n) % 7 > 0
    target = atoms.mean(axis=0, dtype=np.float64) + 0.02 * rng(1).normal(size=d)
    one, other = both(loop_of(kind), atoms, target, k, Rule(ridge, positive), free)
    assert len(one.rows) == k and free[other.rows].all()
    alike(one, other)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10**6), ridge=st.sampled_from([0.0, 0.5]), positive=st.booleans())
def test_ties_go_to_the_lower_row_and_copies_stay_out_without_ridge(
    kind: str, seed: int, ridge: float, positive: bool
) -> None:
    random = rng(seed)
    atoms = random.integers(-1, 2, size=(int(random.integers(3, 40)), 4)).astype(np.float32)
    target = random.integers(-3, 4, size=4).astype(np.float64)
    if target.any():
        alike(*both(loop_of(kind), atoms, target, len(atoms), Rule(ridge, positive)))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_depends_on_how_wrong_float32_is(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """With an error so large that every row comes near, copies among them."""
    monkeypatch.setattr(PURSUIT, "slack", lambda rows, reach, *_: 10 * reach)
    atoms = np.repeat(rows_near(30, 12), 2, axis=0).astype(np.float32)
    alike(*both(loop_of(kind), atoms, atoms.mean(axis=0, dtype=np.float64), 20, Rule(0.2, False)))


@pytest.mark.parametrize("kind", KINDS)
def test_atoms_of_high_condition_stay_orthogonal_to_the_residual(kind: str) -> None:
    """One pass of Gram and Schmidt leaves 9e-14 here."""
    grid = np.linspace(0, 1, 100)
    atoms = np.exp(-np.square((grid - np.linspace(0, 1, 400)[:, None]) / 0.3))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    target = np.sin(9 * grid) + 0.3 * np.cos(31 * grid) + 0.5 * (grid > 0.5)
    one, run = both(loop_of(kind), atoms, target, 80, Rule(positive=False))
    assert run.rows.tolist() == one.rows.tolist() and np.linalg.cond(atoms[run.rows]) > 5e3
    assert np.abs(atoms[run.rows] @ run.residual).max() < 1e-14
    assert run.lower @ run.lower.T == pytest.approx(atoms[run.rows] @ atoms[run.rows].T, abs=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_a_selection_is_that_of_numpy_runs_and_rest_included(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    atoms = np.concatenate([rows_near(80, 6), np.zeros((1, 6)), -rows_near(9, 6)]).astype(np.float32)
    target, before = atoms[:80].mean(axis=0), atoms.copy()
    walk = loop_of(kind)
    for ridge in (0.0, 1.0):
        picked = []
        for one in (None, walk):
            monkeypatch.setattr(PURSUIT, "ASKED", Always(one))
            picked.append(omp(atoms, target, 85, ridge=ridge))
        assert picked[0].rows.tolist() == picked[1].rows.tolist()
        assert picked[1].weights == pytest.approx(picked[0].weights, abs=1e-5)
        assert picked[1].gains == pytest.approx(picked[0].gains, abs=1e-7)
    assert (atoms == before).all()


def test_it_is_compiled_once_for_each_type(monkeypatch: pytest.MonkeyPatch) -> None:
    walk = loop_of("compiled")
    monkeypatch.setattr(PURSUIT, "ASKED", Always(walk))
    for dtype in (np.float32, np.float64, np.float16):
        atoms = rows_near(50, 8).astype(dtype)
        expected = omp(atoms, np.ones(8), 6, ridge=1).rows.tolist()
        atoms.setflags(write=False)
        assert omp(atoms, np.ones(8, np.float32), 6, ridge=np.float32(1)).rows.tolist() == expected
        assert omp(np.asfortranarray(atoms), np.ones(16)[::2], 6, ridge=1.0).rows.tolist() == expected
    assert len(walk.signatures) == 2


# when it is loaded


def test_it_is_loaded_when_as_many_picks_are_asked_as_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    atoms, asked = rows_near(50, 8), _pursuit_loop.Asked()
    monkeypatch.setattr(PURSUIT, "ASKED", asked)
    monkeypatch.setattr(_pursuit_loop, "PAYS", 20)
    loaded = []
    for _ in range(3):
        omp(atoms, np.ones(8), 8, ridge=1.0)
        loaded.append(bool(_pursuit_loop.compiled_walk.cache_info().currsize))
    assert loaded == [False, False, True] and asked.count == 24
    assert _pursuit_loop.Asked().loop(ArrayRows(atoms), 1) is _pursuit_loop.compiled_walk()
    monkeypatch.setattr(_pursuit_loop, "SMALL", 399)
    assert asked.loop(ArrayRows(atoms), 1) is None and asked.count == 24


@pytest.mark.parametrize("without", ["numba", "a folder"])
def test_numpy_does_it_where_it_cannot_be_compiled_and_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, without: str
) -> None:
    atoms = rows_near(50, 8)
    expected = omp(atoms, np.ones(8), 8)
    if without == "numba":
        monkeypatch.setitem(sys.modules, "numba", None)
    else:
        numba = pytest.importorskip("numba")
        monkeypatch.setattr(numba, "njit", lambda **_: cannot_keep)
    monkeypatch.setattr(PURSUIT, "ASKED", _pursuit_loop.Asked())
    monkeypatch.setattr(_pursuit_loop, "PAYS", 0)
    with caplog.at_level("INFO", logger=_pursuit_loop.__name__):
        found = omp(atoms, np.ones(8), 8)
    assert _pursuit_loop.compiled_walk() is None and "stays with numpy" in caplog.text
    assert found.rows.tolist() == expected.rows.tolist() and found.weights.tolist() == expected.weights.tolist()


def cannot_keep(function: object) -> object:
    raise RuntimeError(f"cannot cache {function}: no locator available")


def test_a_few_picks_load_nothing() -> None:
    code = (
        "import sys, numpy as np; from coretune.pickers import omp; x = np.eye(30); omp(x, np.ones(30), 20); "
        "print(sorted({'numba', 'scipy', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
