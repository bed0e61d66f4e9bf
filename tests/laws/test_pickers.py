"""Laws over every picker in the room: exact budget, no repeats, same seed same rows, permutation, prefix, arguments.

A picker is a public function of a module of `coretune.pickers` with the module's name. A new one needs an example in
`EXAMPLES`, and then every law holds for it or fails.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from coretune import pickers
from coretune.distances import Given
from coretune.selection import Selection

N = 61

SERVED = np.random.default_rng(7).normal(size=(200, 4))
LABELS = pickers.LabelGraph.of(np.eye(80) + 0.9 * np.eye(80, k=1) + 0.9 * np.eye(80, k=-1))

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Example:
    """How to call a picker: arrays with one row an example `(n, ...)`, and the call itself.

    `random`: it draws, and the noise belongs to places, so that permuted rows give other picks. `greedy`: k picks are
    the first of k + 1. `falling`: no gain is above the one before. `filling`: rows that only fill up have gain NaN.
    """

    arrays: Callable[[np.random.Generator], Arrays]
    call: Callable[[Arrays, int, np.random.Generator], Selection]
    random: bool = False
    greedy: bool = True
    falling: bool = True
    filling: bool = False


def points(rng: np.random.Generator) -> Arrays:
    return {"x": rng.normal(size=(N, 4)).astype(np.float32)}


def scored(rng: np.random.Generator) -> Arrays:
    return {**points(rng), "scores": rng.normal(size=N)}


def served(a: Arrays, m: int = len(SERVED)) -> Given:
    """How well each row serves the first `m` of some others."""
    return Given(1 + np.tanh(SERVED[:m] @ a["x"].T))


def tagged(rng: np.random.Generator) -> Arrays:
    """Scores, and for each row a number of tags that no other has."""
    return {"scores": rng.random(N), "has": rng.permuted(np.tri(N, 80, 3), axis=1)[rng.permutation(N)]}


def lists(has: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.nonzero(has)[1], np.concatenate([[0], np.cumsum(np.count_nonzero(has, axis=1))])


EXAMPLES = {
    "closest": Example(points, lambda a, k, rng: pickers.closest(a["x"], np.full(4, 0.1), k)),
    "conditional_facility_location": Example(
        points, lambda a, k, rng: pickers.conditional_facility_location(served(a), np.linspace(0, 1.5, 200), k)
    ),
    "distance_filter": Example(scored, lambda a, k, rng: pickers.distance_filter(a["scores"], a["x"], k), filling=True),
    "drawn": Example(
        lambda rng: {"log_weights": rng.normal(size=N)},
        lambda a, k, rng: pickers.drawn(a["log_weights"], k, rng=rng),
        random=True,
    ),
    "facility_location": Example(  # rows served are others: two rows that serve only each other are a tie
        points, lambda a, k, rng: pickers.facility_location(served(a), k)
    ),
    "k_center": Example(points, lambda a, k, rng: pickers.k_center(a["x"], k)),
    "middle": Example(lambda rng: {"scores": rng.normal(size=N)}, lambda a, k, rng: pickers.middle(a["scores"], k)),
    "mig": Example(
        tagged, lambda a, k, rng: pickers.mig(*lists(a["has"]), a["scores"], k, shares=pickers.propagation(LABELS))
    ),
    "quality_and_coverage": Example(
        scored, lambda a, k, rng: pickers.quality_and_coverage(a["x"], a["scores"], k, alpha=0.9)
    ),
    "query_facility_location": Example(
        points, lambda a, k, rng: pickers.query_facility_location(served(a), k, eta=0.5, weights=np.arange(1.0, 201))
    ),
    "repeated_facility_location": Example(
        points, lambda a, k, rng: pickers.repeated_facility_location(served(a, 9), k), falling=False
    ),
    "round_robin": Example(
        lambda rng: {"scores": rng.normal(size=(N, 3))}, lambda a, k, rng: pickers.round_robin(a["scores"], k)
    ),
    "nonnegative_omp": Example(
        points, lambda a, k, rng: pickers.nonnegative_omp(a["x"], np.full(4, 0.1), k), greedy=False, falling=False
    ),
    "omp": Example(points, lambda a, k, rng: pickers.omp(a["x"], np.full(4, 0.1), k, ridge=0.5), falling=False),
    "omp_restarts": Example(
        points, lambda a, k, rng: pickers.omp_restarts(a["x"], np.full(4, 0.1), k), greedy=False, falling=False
    ),
    "saturating_facility_location": Example(
        points, lambda a, k, rng: pickers.saturating_facility_location(served(a), np.linspace(1.5, 9, 200), k)
    ),
    "sliding_window": Example(
        scored, lambda a, k, rng: pickers.sliding_window(a["scores"], a["x"], k, step=3), falling=False
    ),
    "stochastic_facility_location": Example(
        points,
        lambda a, k, rng: pickers.stochastic_facility_location(a["x"], k, rng=rng),
        random=True,
        greedy=False,
        falling=False,
    ),
    "tag_coverage": Example(tagged, lambda a, k, rng: pickers.tag_coverage(*lists(a["has"]), k), falling=False),
    "top": Example(lambda rng: {"scores": rng.normal(size=N)}, lambda a, k, rng: pickers.top(a["scores"], k)),
    "uniform": Example(
        lambda rng: {"n": np.zeros(N)}, lambda a, k, rng: pickers.uniform(len(a["n"]), k, rng=rng), random=True
    ),
}


def pickers_in_the_room() -> dict[str, Callable[..., Any]]:
    """Every public function of `coretune.pickers` that its own module is named after."""
    found = {}
    for each in pkgutil.iter_modules(pickers.__path__):
        module = importlib.import_module(f"{pickers.__name__}.{each.name}")
        function = getattr(module, each.name, None)
        if inspect.isfunction(function) and function.__module__ == module.__name__:
            found[each.name] = function
    return found


NAMES = sorted(pickers_in_the_room())


@pytest.fixture(params=NAMES)
def example(request: pytest.FixtureRequest) -> Example:
    assert request.param in EXAMPLES, f"declare an example call of the picker {request.param} in EXAMPLES"
    return EXAMPLES[request.param]


def those(holds: Callable[[Example], bool]) -> list[str]:
    """The pickers for which a law is meant; one without an example counts, and fails."""
    return [name for name in NAMES if name not in EXAMPLES or holds(EXAMPLES[name])]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_room_gives_its_pickers_as_functions() -> None:
    assert {"closest", "drawn", "k_center", "top", "uniform"} <= set(NAMES)
    for name, function in pickers_in_the_room().items():
        assert getattr(pickers, name) is function, f"import {name} eagerly in pickers/__init__.py"
        assert name in pickers.__all__


@pytest.mark.parametrize("k", [0, 1, 17, N])
def test_exactly_k_distinct_rows_with_gains_and_equal_or_scaled_weights(example: Example, k: int) -> None:
    picked = example.call(example.arrays(rng(1)), k, rng())
    assert isinstance(picked, Selection)
    assert len(picked.rows) == len(set(picked.rows.tolist())) == k
    assert picked.rows.dtype == np.int64 and picked.gains.dtype == picked.weights.dtype == np.float32
    assert ((picked.rows >= 0) & (picked.rows < N)).all()
    assert (picked.weights >= 0).all() and (not k or picked.weights.mean() == pytest.approx(1))
    finite = picked.gains[~np.isnan(picked.gains)]
    assert (example.filling or len(finite) >= k - 1) and (not example.falling or (np.diff(finite) <= 0).all())


@pytest.mark.parametrize("k", [-1, N + 1])
def test_a_k_that_cannot_be_is_refused_with_both_numbers(example: Example, k: int) -> None:
    with pytest.raises(ValueError, match=rf"{k} rows asked of {N}"):
        example.call(example.arrays(rng(1)), k, rng())


def test_the_same_seed_gives_the_same_rows(example: Example) -> None:
    one, other = (example.call(example.arrays(rng(1)), 20, rng(6)) for _ in range(2))
    assert one.rows.tolist() == other.rows.tolist()
    assert one.gains.tobytes() == other.gains.tobytes() and one.weights.tobytes() == other.weights.tobytes()


def test_another_seed_gives_other_rows_only_where_it_draws(example: Example) -> None:
    chosen = {tuple(example.call(example.arrays(rng(1)), 20, rng(seed)).rows.tolist()) for seed in range(5)}
    assert len(chosen) == (5 if example.random else 1)


@pytest.mark.parametrize("example", those(lambda one: not one.random), indirect=True)
def test_a_permutation_of_the_rows_permutes_the_picks(example: Example) -> None:
    arrays, order = example.arrays(rng(1)), rng(2).permutation(N)
    plain = example.call(arrays, 20, rng())
    moved = example.call({name: array[order] for name, array in arrays.items()}, 20, rng())
    assert order[moved.rows].tolist() == plain.rows.tolist()
    assert moved.gains == pytest.approx(plain.gains, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("example", those(lambda one: one.greedy), indirect=True)
def test_fewer_picks_are_the_first_of_more(example: Example) -> None:
    arrays = example.arrays(rng(1))
    whole = example.call(arrays, N, rng(3))
    for k in (1, 2, 20):
        part = example.call(arrays, k, rng(3))
        assert part.rows.tolist() == whole.rows[:k].tolist()
        assert part.gains.tobytes() == whole.gains[:k].tobytes()


def test_arguments_stay_as_they_are(example: Example) -> None:
    arrays = example.arrays(rng(1))
    copies = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.setflags(write=False)
    example.call(arrays, 20, rng())
    assert all((arrays[name] == copies[name]).all() for name in arrays)
