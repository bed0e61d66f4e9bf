"""LEAD end to end with a tiny model: what it reads before the loop, its rounds, its budget, its cells and tasks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coretune.features.embedding import Embedding
from coretune.lab import Lab, release
from coretune.methods._difficulty import difficulty, tasks_by_column, tasks_by_embedding
from coretune.methods.lead import Lead
from coretune.partitions import Partition
from coretune.pool import Pool
from coretune.rounds import Outcome, run
from coretune.selection import Budget
from tests.made_pools import HashedWords, pool_of

N = 60
QUICK: dict[str, Any] = {"rank": 2, "batch_rows": 4, "max_tokens": 64, "clusters": 2, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tests.made_models import causal_folder

    yield str(causal_folder(tmp_path_factory.mktemp("models") / "reader", window=4096))
    release()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return pool_of(tmp_path_factory.mktemp("pools"), N)


def lead(model: str, pool: Pool, budget: str, lab: Lab, *, count: bool = False, **options: Any) -> Outcome:
    method = Lead(model, **{**QUICK, **options})
    return run(method, pool, Budget.parse(budget), lab, seed=1, model=model if count else None)


def test_rounds_are_those_of_one_tuning_and_say_how_it_went(model: str, pool: Pool, store: Path) -> None:
    from coretune.features.answer_loss import AnswerLoss

    lab = Lab(store)
    outcome = lead(model, pool, "12", lab, task="topic")
    rounds = outcome.rounds
    tuned = rounds[-1].model
    assert tuned is not None and all(each.model is None for each in rounds[:-1]) and len(rounds) > 2
    visits, losses = tuned.visits, lab.features(AnswerLoss(model, max_tokens=64), pool).array()
    idu, before, seen = losses.astype(np.float32), 0, 0
    for each in rounds:
        schedule, cells = each.schedule, each.cells
        assert schedule is not None and each.partition is not None
        trained = schedule["row"]
        new = trained[before:]
        assert len(np.unique(new)) == len(new) > 0
        cell = np.unique(each.partition.cell[new])
        assert len(cell) == 1 and np.flatnonzero(cells["rows"]).tolist() == cell.tolist()
        assert np.isfinite(cells["reward"]).tolist() == (cells["rows"] > 0).tolist()
        assert all(len(values) == len(each.partition) for values in cells.values())
        np.testing.assert_array_equal(each.columns["uses"], np.bincount(trained, minlength=N))
        untouched = np.delete(np.arange(N), new)
        assert np.array_equal(each.columns["idu"][untouched], idu[untouched])
        idu = each.columns["idu"]
        chosen = each.selection.rows
        assert chosen.tolist() == list(dict.fromkeys(trained.tolist())) and len(chosen) >= seen
        assert np.array_equal(each.selection.gains, losses[chosen])
        before, seen = len(trained), len(chosen)
    last = rounds[-1].schedule
    assert last is not None
    assert len(rounds[-1].selection) == 12
    assert sorted(zip(last["step"].tolist(), last["row"].tolist())) == list(
        zip(visits["step"].tolist(), visits["row"].tolist())
    )
    assert last["step"].max() == tuned.counts["steps"]


def test_before_the_loop_each_row_is_read_three_times_and_never_in_it(model: str, pool: Pool, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    outcome = lead(model, pool, "6", lab)
    read = [stage for stage in lab.stages if stage.name.startswith("answer loss")]
    assert [stage.rows for stage in read] == [N, N, N] and outcome.rounds[-1].notes["passes_before"] == 3
    tunings = [stage for stage in lab.stages if stage.name.startswith("tune")]
    assert [stage.rows for stage in tunings] == [6, 6]  # a tenth for the warm-up; the rows of the budget
    lead(model, pool, "6", again := Lab(tmp_path))
    assert sum(stage.rows for stage in again.stages if stage.name != "choose") == 0


def test_the_budget_may_be_in_answer_tokens(model: str, pool: Pool, store: Path) -> None:
    outcome = lead(model, pool, "20%-tokens", Lab(store), count=True)
    costs = outcome.answer_tokens
    assert costs is not None and outcome.budget.tokens is not None
    spent, asked = int(costs[outcome.selection.rows].sum()), outcome.budget.tokens
    assert 0 <= asked - spent <= max(asked / 100, np.median(costs) / 2)


def test_the_weights_of_every_round_are_there_where_they_are_asked(model: str, pool: Pool, store: Path) -> None:
    rounds = lead(model, pool, "6", Lab(store), keep_rounds=True).rounds
    paths = [each.model.path for each in rounds if each.model is not None]
    assert len(set(paths)) == len(rounds) and all((path / "adapter_model.safetensors").is_file() for path in paths)
    assert rounds[-1].model is not None and rounds[-1].model.counts["steps"] == int(paths[-1].name)


def test_the_share_is_the_papers_at_its_budget_and_scaled_elsewhere(model: str) -> None:
    class Cells:
        arm = np.arange(4000, dtype=np.int32) % 7

    losses, task = np.ones(4000, np.float32), np.zeros(4000, np.int32)
    budget = Budget.parse("2.5%").on(4000, 4000)
    assert Lead("m")._order(losses, Cells, task, budget).share == pytest.approx(0.015)  # type: ignore[arg-type]
    assert Lead("m")._order(losses, Cells, task, Budget.parse("5%").on(4000, 4000)).share == pytest.approx(0.03)  # type: ignore[arg-type]
    assert Lead("m", share=0.2)._order(losses, Cells, task, budget).share == 0.2  # type: ignore[arg-type]


def test_rows_that_mislead_or_are_too_long_stand_apart(
    model: str, pool: Pool, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from coretune.features.answer_loss import AnswerLoss

    caplog.set_level(logging.INFO)
    lab = Lab(store)
    read = AnswerLoss(model, max_tokens=64)
    found = difficulty(read, 7, pool, lab, np.random.default_rng(0))
    given, alone = (
        lab.features(AnswerLoss(model, before, max_tokens=64), pool) for before in ("conversation", "nothing")
    )
    ifd, long = given.array() / alone.array(), given.marks["truncated"] | given.marks["answer_cut"]
    np.testing.assert_allclose(found.ifd, ifd, rtol=1e-6)
    apart = (ifd > 1) | long
    np.testing.assert_array_equal(found.arm == -1, apart)
    assert long.sum() > 0 and found.notes["apart_too_long"] == long.sum()
    assert found.notes["apart_ifd_above_1"] == (~long & (ifd > 1)).sum()
    assert found.cells.cell[apart].tolist() == [found.notes["clusters"]] * int(apart.sum())
    assert f"{int(apart.sum())} of {N} rows are in none of" in caplog.text
    with pytest.raises(ValueError, match="0 difficulty clusters"):
        difficulty(read, 0, pool, lab, np.random.default_rng(0))


def test_tasks_are_a_column_or_clusters_within_cells(
    pool: Pool, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    topics = pool.column("topic")
    task = tasks_by_column(pool, "topic")
    assert all(len({topics[i] for i in np.flatnonzero(task == t)}) == 1 for t in range(task.max() + 1))
    monkeypatch.setattr(Embedding, "resolved", lambda self: HashedWords())
    wide = pool_of(tmp_path, 200)
    cells = Partition((np.arange(200) >= 120).astype(np.int32))
    task = tasks_by_embedding("minilm", cells, wide, Lab(store), np.random.default_rng(0))
    assert [len(np.unique(task[cells.members(cell)])) for cell in (0, 1)] == [3, 2]


def test_what_means_nothing_is_refused(model: str, pool: Pool, store: Path) -> None:
    with pytest.raises(ValueError, match="share 2"):
        lead(model, pool, "6", Lab(store), share=2.0)
    with pytest.raises(ValueError, match="column 'nothing' asked"):
        lead(model, pool, "6", Lab(store), task="nothing")
