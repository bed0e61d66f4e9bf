"""RDS+: turns among a target's examples by hand, and the method from states to rows, with vectors that are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from coretune.features import Measure, Measured
from coretune.lab import Lab
from coretune.methods import rds
from coretune.pickers import round_robin
from coretune.pool import Example, Pool
from coretune.readers import read_pool
from coretune.rounds import run
from coretune.selection import Budget
from tests.made_pools import write_jsonl

S = np.array([[0.9, 0.8, 0.7, 0.1], [0.2, 0.1, 0.15, 0.3]])


def vectors() -> dict[str, np.ndarray]:
    """Unit vectors by what an answer says: examples 0 and 1 of the target, and rows with these similarities to them."""
    rest = np.sqrt(1 - (S**2).sum(axis=0))
    rows = {f"row {number}": np.array([*S[:, number], rest[number]]) for number in range(4)}
    return {"example 0": np.array([1.0, 0, 0]), "example 1": np.array([0, 1.0, 0])} | rows


@dataclass(frozen=True)
class Given:
    """States that are given, in place of a model's."""

    version: ClassVar[int] = 1
    model: str
    template: str | None = None
    max_tokens: int | None = None

    def resolved(self) -> Given:
        return self

    def load(self) -> Measure:
        return self.measure

    def measure(self, examples: Sequence[Example]) -> Measured:
        known = vectors()
        return Measured(np.array([known[example.answer] for example in examples], dtype=np.float16))


def pool_of(path: Path, said: Sequence[str], **columns: Sequence[str]) -> Pool:
    more = [dict(zip(columns, each, strict=True)) for each in zip(*columns.values(), strict=True)] or [{}] * len(said)
    rows = [{"instruction": "Say it.", "output": each, **beside} for each, beside in zip(said, more, strict=True)]
    return read_pool(write_jsonl(path, rows))


def test_turns_by_hand() -> None:
    assert set(round_robin(S.T, 2).rows.tolist()) == {0, 3}
    assert set(np.argsort(-S.max(axis=0))[:2].tolist()) == set(np.argsort(-S.mean(axis=0))[:2].tolist()) == {0, 1}


def test_similarity_is_the_best_of_each_turn_s_examples(rng: np.random.Generator) -> None:
    rows, wanted, turns = rng.normal(size=(11, 5)), rng.normal(size=(6, 5)), np.array([2, 0, 1, 0, 2, 2])
    got = rds.similarity([rows[:4], rows[4:5], rows[5:]], wanted, turns)
    want = np.array([[max(row @ wanted[q] for q in np.flatnonzero(turns == t)) for t in range(3)] for row in rows])
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert rds.similarity([], wanted, turns).shape == (0, 3)


@pytest.mark.parametrize(("tasks", "want"), [(["a", "a"], [0, 3, 1, 2]), (["a", "b"], [0, 3, 1, 2])])
def test_a_target_s_examples_or_its_tasks_take_turns(
    tasks: list[str], want: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rds, "WeightedStates", Given)
    pool = pool_of(tmp_path / "pool.jsonl", [f"row {number}" for number in range(4)])
    target = pool_of(tmp_path / "target.jsonl", ["example 0", "example 1"], kind=tasks)
    for k in (1, 2, 4):
        outcome = run(rds.Rds("m", target, "kind"), pool, Budget.parse(str(k)), Lab(tmp_path / "store"), seed=0)
        assert outcome.selection.rows.tolist() == want[:k]
    columns = outcome.rounds[-1].columns
    np.testing.assert_allclose(columns["similarity"], S.max(axis=0), atol=1e-3)
    assert columns["subtask" if len(set(tasks)) > 1 else "example"].tolist() == [0, 0, 0, 1]


def test_a_task_with_many_examples_has_one_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rds, "WeightedStates", Given)
    pool = pool_of(tmp_path / "pool.jsonl", [f"row {number}" for number in range(4)])
    target = pool_of(tmp_path / "target.jsonl", ["example 0", "row 2", "example 1"], kind=["a", "a", "b"])

    def rows(subtask: str) -> set[int]:
        method = rds.Rds("m", target, subtask)
        return set(run(method, pool, Budget.parse("2"), Lab(tmp_path / "store"), seed=0).selection.rows.tolist())

    assert rows("kind") == {2, 3}  # row 2 is what it is most like, then it is task b's turn
    assert rows("source") == {0, 2}  # one task, so that its examples take turns
