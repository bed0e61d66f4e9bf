"""Laws over every feature: frozen data with a steady address, and values that depend on the row alone."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pickle
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coretune import features
from coretune.engines.processes import processes
from coretune.engines.threads import threads
from coretune.features import FeatureSpec, Measured, Ragged, Texts
from coretune.lab import Lab, release
from coretune.lab.shards import loaded
from coretune.pool import Pool
from coretune.store.digests import address
from tests.laws.feature_examples import Case, examples, varied_pool

CASES = [pytest.param(case, id=case.name, marks=[pytest.mark.models] if case.models else []) for case in examples()]
Values = tuple[np.ndarray | Ragged | Texts, dict[str, np.ndarray], dict[str, np.ndarray]]


def features_in_the_room() -> list[type]:
    """Every feature that a module of `coretune.features` defines."""
    found = []
    for each in pkgutil.iter_modules(features.__path__):
        module = importlib.import_module(f"{features.__name__}.{each.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__ and hasattr(kind, "resolved") and hasattr(kind, "load"):
                found.append(kind)
    return found


@pytest.fixture
def pool(case: Case) -> Pool:
    """Rows of every kind; fewer for real models, which are slow."""
    whole = varied_pool()
    return whole.subset(np.array([0, 3, 4, 5, 8, 10, 11, 13, 27])) if case.models else whole


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Case], Any]]:
    """The example of a case, made once."""
    known: dict[str, Any] = {}

    def make(case: Case) -> Any:
        if case.name not in known:
            known[case.name] = case.make(tmp_path_factory.mktemp("feature"))
        return known[case.name]

    yield make
    release()


def expect_same(spec: FeatureSpec, one: Values, other: Values, *, rows: Any = slice(None)) -> None:
    """Values and numbers alike within the stated tolerance (bit by bit, where there is none), and marks alike.

    Ragged rows have the same lengths, and texts are the same.
    """
    marks = {name: flags[rows] for name, flags in one[1].items() if flags[rows].any()}
    assert type(one[0]) is type(other[0])
    assert one[2].keys() == other[2].keys()
    pairs = [(one[2][name][rows], other[2][name]) for name in one[2]]
    if isinstance(one[0], np.ndarray):
        pairs.append((one[0][rows], other[0]))
    elif isinstance(one[0], Ragged):
        asked = np.arange(len(one[0]))[rows]
        assert len(asked) == len(other[0])
        pairs += [(one[0][row], others) for row, others in zip(asked, other[0], strict=True)]
    else:
        assert [one[0][row] for row in np.arange(len(one[0]))[rows]] == list(other[0])
    for mine, others in pairs:
        expect_close(mine, others, float(getattr(type(spec), "tolerance", 0.0)))
    assert {name: flags.tolist() for name, flags in marks.items()} == {
        name: flags.tolist() for name, flags in other[1].items() if flags.any()
    }


def expect_close(one: np.ndarray, other: np.ndarray, tolerance: float) -> None:
    """The same shape and type, and values alike; bit by bit without a tolerance."""
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    if tolerance:
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance, equal_nan=True)
    else:
        np.testing.assert_array_equal(one, other)


def measured(measure: Callable[..., Measured], pool: Pool, rows: np.ndarray) -> Values:
    """What `measure` gives for these rows in one call."""
    got = measure(pool.examples(rows))
    return got.values, dict(got.marks), dict(got.numbers)


def through_lab(lab: Lab, spec: FeatureSpec, pool: Pool) -> Values:
    """What the lab gives for a pool, rows that are not finite included."""
    feature = lab.features(spec, pool.exclude(np.arange(len(pool)), "none is to be chosen"))
    read = feature.ragged if feature.is_ragged else feature.array
    values = Texts.of(feature.texts()) if feature.is_text else read()
    return values, dict(feature.marks), dict(feature.numbers)


def test_every_feature_in_the_room_has_an_example(tmp_path: Path) -> None:
    shown = {type(case.make(tmp_path)) for case in examples() if not case.models}
    missing = [kind.__qualname__ for kind in features_in_the_room() if kind not in shown]
    assert missing == [], "give an example that needs no real model in tests/laws/feature_examples.py"


@pytest.mark.parametrize("case", CASES)
def test_a_feature_is_frozen_data(case: Case, made: Any) -> None:
    spec = made(case)
    assert isinstance(spec, FeatureSpec)
    assert isinstance(type(spec).version, int)
    twin = dataclasses.replace(spec)
    assert twin == spec and hash(twin) == hash(spec)
    for each in dataclasses.fields(spec):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(spec, each.name, None)
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize("case", CASES)
def test_resolving_is_idempotent_and_the_address_steady(case: Case, made: Any) -> None:
    spec = made(case)
    resolved = spec.resolved()
    assert type(resolved) is type(spec)
    assert resolved.resolved() == resolved == spec.resolved()
    assert address(resolved) == address(spec.resolved()) == address(pickle.loads(pickle.dumps(resolved)))


@pytest.mark.parametrize("case", CASES)
def test_a_value_depends_on_the_row_alone(case: Case, made: Any, pool: Pool) -> None:
    """Whoever the neighbours are, in whatever order, however many."""
    spec = made(case).resolved()
    measure, n = loaded(spec), len(pool)
    whole = measured(measure, pool, np.arange(n))
    assert len(whole[0]) == n
    assert all(flags.shape == (n,) and flags.dtype == bool for flags in whole[1].values())
    asked = [np.random.default_rng(0).permutation(n), np.array([2]), np.array([0])]
    if not case.models:
        asked += [np.arange(n), np.array([n - 1]), np.arange(3, n, 4), np.repeat(np.arange(n), 3)[: 2 * n]]
    for rows in asked:
        expect_same(spec, whole, measured(measure, pool, rows), rows=rows)


@pytest.mark.parametrize("case", CASES)
def test_a_value_depends_on_what_is_said_and_not_on_id_or_source(case: Case, made: Any, pool: Pool) -> None:
    measure = loaded(made(case).resolved())
    examples = pool.examples(np.arange(1 if case.models else len(pool)))
    one, other = measure(examples), measure([dataclasses.replace(each, id="other", source=None) for each in examples])
    said = [(each.values, dict(each.marks), dict(each.numbers)) for each in (one, other)]
    expect_same(made(case), said[0], said[1])


@pytest.mark.parametrize("case", CASES)
def test_a_value_is_the_same_for_any_shard_size_and_in_threads(
    case: Case, made: Any, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = made(case)
    want = through_lab(Lab(tmp_path / "whole"), spec, pool)
    for rows in (4,) if case.models else (1, 7):
        monkeypatch.setattr(type(spec), "shard_rows", rows, raising=False)
        with threads(2) as engine:
            lab = Lab(tmp_path / str(rows), map=engine)
            expect_same(spec, want, through_lab(lab, spec, pool))
        assert lab.stages[-1].rows == len(np.unique(pool.keys, axis=0))


@pytest.mark.parametrize("case", [each for each in CASES if not each.marks])
def test_a_value_does_not_depend_on_the_side_that_a_tokenizer_pads(
    case: Case, made: Any, pool: Pool, tmp_path: Path
) -> None:
    spec = made(case)
    folder = Path(str(getattr(spec, "model", "")))
    if not (folder / "tokenizer_config.json").is_file():
        pytest.skip("it reads with no tokenizer")
    for side in ("left", "right"):
        shutil.copytree(folder, tmp_path / side)
        at = tmp_path / side / "tokenizer_config.json"
        at.write_text(json.dumps(json.loads(at.read_text()) | {"padding_side": side}))
    said = [
        measured(loaded(dataclasses.replace(spec, model=str(tmp_path / side)).resolved()), pool, np.arange(len(pool)))
        for side in ("left", "right")
    ]
    expect_same(spec, *said)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    with processes(2) as engine:
        yield engine


@pytest.mark.parametrize("case", CASES)
def test_a_value_is_the_same_from_another_process(
    case: Case, made: Any, pool: Pool, tmp_path: Path, two_workers: Any
) -> None:
    spec = made(case)
    want = through_lab(Lab(tmp_path / "here"), spec, pool)
    expect_same(spec, want, through_lab(Lab(tmp_path / "there", map=two_workers), spec, pool))
