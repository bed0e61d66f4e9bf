"""Rounds as they are written: what a folder holds while a run goes on and after, going on, and kills at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from coretune import round_folder
from coretune.errors import FolderError, PoolError
from coretune.evaluation.heldout_loss import HeldoutLoss
from coretune.evaluation.items import read_items
from coretune.evaluation.subject import Subject
from coretune.features.lora_gradient import AdapterAt
from coretune.lab import Lab
from coretune.partitions import Partition
from coretune.readers import read_pool
from coretune.round_folder import RoundsWriter
from coretune.round_folder_reading import read_course
from coretune.rounds import Outcome, Round, run
from coretune.run_folder import identity_of, write_selection
from coretune.runs import Finished, Request, carry_out, make_method
from coretune.selection import Budget, Selection
from coretune.tuning.tuned import find_tuned
from tests.made_models import causal_folder
from tests.made_pools import pool_of, records, write_jsonl

ROOT = Path(__file__).parents[1]
METHOD, KILLS = "tests.made_rounds:Turns", 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool, a held-out file, a model, and a store that the tests share."""
    folder = tmp_path_factory.mktemp("rounds")
    causal_folder(folder / "model")
    write_jsonl(folder / "pool.jsonl", [{**each, "source": each["topic"]} for each in records()])
    write_jsonl(folder / "held.jsonl", records(12, seed=5))
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> Finished:
    """A run of three rounds, come to its end."""
    return choose(place, place / "whole", held_out=str(place / "held.jsonl"))


def choose(place: Path, out: Path, *, overwrite: bool = False, lab: Lab | None = None, **asked) -> Finished:
    options = {"model": str(place / "model"), **asked.pop("options", {})}
    request = Request((str(place / "pool.jsonl"),), METHOD, "30", options, model=options["model"], **asked)
    return carry_out(request, out, lab or Lab(place / "store"), overwrite=overwrite)


def toml(path: Path) -> dict:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def stopped(place: Path, out: Path, after: int, monkeypatch: pytest.MonkeyPatch, **asked) -> None:
    """A run that is interrupted right after a round was written."""
    write = RoundsWriter.__call__

    def stop(self: RoundsWriter, outcome: Outcome) -> None:
        write(self, outcome)
        if len(outcome.rounds) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RoundsWriter, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            choose(place, out, **asked)


# ---- what is written


def test_a_finished_run_holds_its_rounds(place: Path, finished: Finished) -> None:
    out = finished.folder
    assert sorted(each.name for each in (out / "rounds").iterdir()) == ["000", "001", "002", "003"]
    assert finished.outcome is not None and finished.outcome.answer_tokens is not None
    pool, tokens = finished.pool, finished.outcome.answer_tokens
    before: set[int] = set()
    for number, made in enumerate(finished.outcome.rounds, start=1):
        folder = out / "rounds" / f"{number:03d}"
        said, rows = toml(folder / "round.toml"), pq.read_table(folder / "round.parquet").to_pydict()
        chosen = made.selection.rows
        assert (said["round"], said["rows"], said["new_rows"], said["gone_rows"]) == (number, len(chosen), 10, 0)
        assert said["answer_tokens"] == tokens[chosen].sum() and said["seconds"] > 0
        assert said["new_answer_tokens"] == tokens[[row for row in chosen if row not in before]].sum()
        assert said["notes"] == dict(made.notes) and said["cells"] == 5
        assert rows["row"] == sorted(chosen) and sorted(rows["rank"]) == list(range(len(chosen)))
        assert [row for _, row in sorted(zip(rows["rank"], rows["row"], strict=True))] == chosen.tolist()
        assert rows["new"] == [row not in before for row in rows["row"]]
        np.testing.assert_allclose(rows["loss"], made.columns["loss"][rows["row"]])
        assert made.partition is not None and rows["cell"] == made.partition.cell[rows["row"]].tolist()
        cells = pq.read_table(folder / "cells.parquet").to_pydict()
        assert cells["name"] == list(dict.fromkeys(pool.column("topic").tolist()))
        assert cells["chosen"] == np.bincount(made.partition.cell[chosen], minlength=5).tolist()
        assert sum(cells["new"]) == 10 and cells["size"] == np.bincount(made.partition.cell).tolist()
        np.testing.assert_allclose(cells["weight"], made.cells["weight"])
        schedule = pq.read_table(folder / "schedule.parquet").to_pydict()
        assert schedule["row"] == sorted(chosen) and said["schedule"] == {"note": "in pool order"}
        before = set(chosen.tolist())
    entered = pq.read_table(out / "selection.parquet")["round"].to_pylist()
    assert [entered.count(number) for number in (1, 2, 3)] == [10, 10, 10]


def test_the_model_of_a_round_is_named_so_that_it_is_found(place: Path, finished: Finished) -> None:
    said = toml(finished.folder / "rounds" / "002" / "round.toml")["model"]
    tuned = find_tuned(place / "store" / "tunings" / said["tuning"])
    assert tuned is not None and Path(said["path"]) == tuned.path and said["digest"] == tuned.checkpoints[-1].digest
    assert (said["first_loss"], said["last_loss"]) == tuned.ends and said["counts"]["rows"] == 20
    assert (Path(said["path"]) / "adapter_model.safetensors").is_file()


def test_held_out_loss_is_that_of_an_evaluation(place: Path, finished: Finished) -> None:
    lab, items = Lab(place / "store"), read_items(place / "held.jsonl")
    found = []
    for number in range(4):
        said = toml(finished.folder / "rounds" / f"{number:03d}" / "round.toml")
        adapter = AdapterAt(said["model"]["digest"], said["model"]["path"]) if number else None
        reading = HeldoutLoss(items).read(Subject(str(place / "model"), lab, adapter))
        own = said["readings"]["heldout_loss"]
        assert own["per_token"] == pytest.approx(reading.figures["loss_per_token"], rel=1e-9)
        assert (own["per_item"], own["items"]) == (pytest.approx(reading.value), 12)
        found.append(own["per_token"])
    assert len(set(found)) == 4 and found[1] < found[0]


def test_the_time_of_a_round_is_what_it_takes_without_a_store(place: Path, finished: Finished, tmp_path: Path) -> None:
    lab = Lab(place / "store")
    done = choose(place, tmp_path / "again", lab=lab, held_out=str(place / "held.jsonl"))
    spared = sum(stage.spared_seconds for stage in lab.stages if stage.name.startswith("tune"))
    assert done.outcome is not None and spared > 0
    assert sum(made.seconds for made in done.outcome.rounds) >= spared
    assert all(not stage.rows for stage in lab.stages if stage.name.startswith(("tune", "answer loss")))


def test_the_identity_of_a_run_holds_its_held_out_file(place: Path, finished: Finished) -> None:
    assert choose(place, finished.folder, held_out=str(place / "held.jsonl")).outcome is None
    with pytest.raises(FolderError, match="holds another run"):
        choose(place, finished.folder)
    request = Request.read(finished.folder / "run.toml")
    assert request.held_out == str(place / "held.jsonl")
    assert carry_out(request, finished.folder, Lab(place / "store")).outcome is None


def test_a_held_out_file_without_answers_is_refused_at_once(place: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text('{"id": "a", "prompt": "What?", "answer": null}\n')
    with pytest.raises(PoolError, match="none of its 1 items has an answer"):
        choose(place, tmp_path / "out", held_out=str(held))
    assert not (tmp_path / "out").exists()


# ---- one step, one round, rounds without models


def test_a_run_of_one_step_has_no_rounds(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    request = Request((str(place / "pool.jsonl"),), "random", "5", held_out=str(place / "held.jsonl"))
    done = carry_out(request, tmp_path / "run", Lab(place / "store"))
    assert not (done.folder / "rounds").exists() and "random tuned no model in a round" in caplog.text
    with pytest.raises(FolderError, match="random, which chooses in one step"):
        read_course(done.folder)


def test_a_single_round_with_a_model_is_written(place: Path, tmp_path: Path) -> None:
    done = choose(place, tmp_path / "run", options={"count": 1})
    assert [each.number for each in read_course(done.folder).rounds] == [1]


def test_rounds_without_models_wait_for_the_second(place: Path, tmp_path: Path, monkeypatch) -> None:
    asked = {"options": {"tuned": False}}
    stopped(place, tmp_path / "run", 1, monkeypatch, **asked)
    assert not (tmp_path / "run").exists()
    stopped(place, tmp_path / "run", 2, monkeypatch, **asked)
    assert [each.number for each in read_course(tmp_path / "run").rounds] == [1, 2]
    done = choose(place, tmp_path / "run", **asked)
    assert [each.said["rows"] for each in read_course(done.folder).rounds] == [10, 20, 30]


# ---- while it goes on


def test_an_unfinished_run_shows_what_is_done_and_goes_on(place: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "run"
    stopped(place, out, 2, monkeypatch)
    assert [each.name for each in out.iterdir()] == ["rounds"]
    course = read_course(out)
    assert not course.finished and [each.said["rows"] for each in course.rounds] == [10, 20]
    assert course.head["method"] == METHOD and identity_of(out) == course.head["identity"]
    lab = Lab(place / "store")
    done = choose(place, out, lab=lab)
    assert done.outcome is not None and read_course(out).finished and not (out / "rounds" / "run.json").exists()
    tunings = [stage for stage in lab.stages if stage.name.startswith("tune")]
    assert [bool(stage.stored) for stage in tunings[:2]] == [True, True]


def test_another_run_is_refused_where_one_is_unfinished(place: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "run"
    stopped(place, out, 2, monkeypatch)
    with pytest.raises(FolderError, match="holds another run"):
        choose(place, out, seed=1)
    assert len(read_course(out).rounds) == 2
    done = choose(place, out, seed=1, overwrite=True)
    assert done.outcome is not None and toml(out / "run.toml")["run"]["seed"] == 1


def test_overwriting_a_finished_run_replaces_it_when_its_first_round_is_done(place, tmp_path, monkeypatch) -> None:
    out = tmp_path / "run"
    choose(place, out)
    stopped(place, out, 1, monkeypatch, seed=2, overwrite=True)
    assert [each.name for each in out.iterdir()] == ["rounds"] and len(read_course(out).rounds) == 1


def test_a_folder_with_other_things_beside_rounds_is_refused(place: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "run"
    stopped(place, out, 1, monkeypatch)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(FolderError, match="is no run folder"):
        choose(place, out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"


def test_rounds_start_again_where_rows_turn_out_unmeasurable(place: Path, tmp_path: Path, monkeypatch) -> None:
    seen = []
    write = RoundsWriter.__call__

    def note(self: RoundsWriter, outcome: Outcome) -> None:
        write(self, outcome)
        seen.append(sorted(each.name for each in (self.out / "rounds").glob("[0-9]*")))

    monkeypatch.setattr(RoundsWriter, "__call__", note)
    done = choose(place, tmp_path / "run", options={"refused": 4})
    assert seen == [["001"], ["001"], ["001", "002"], ["001", "002", "003"]]
    assert done.outcome is not None and int((~done.pool.candidates).sum()) == 4
    out = np.flatnonzero(~done.pool.candidates)
    for each in read_course(done.folder).rounds:
        rows = each.rows["row"].to_numpy()
        assert not np.isin(rows, out).any() and len(rows) == each.said["rows"]
        lifted = pq.read_table(each.folder / "schedule.parquet")["row"].to_numpy()
        assert sorted(lifted) == sorted(rows)


# ---- what a round may not say


def test_cells_and_schedules_of_odd_lengths_are_refused(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, 6)
    cells = Partition(np.array([0, 0, 1, 1, 2, 2], np.int32))

    def write(made: Round) -> None:
        outcome = Outcome(pool, Budget.parse("2").on(6, 6), (made,), None)
        round_folder.write_round(tmp_path, outcome, 1, {})

    chosen = Selection.of([4, 1])
    with pytest.raises(ValueError, match=r"weight.*\(2,\).* of 3 cells"):
        write(Round(chosen, partition=cells, cells={"weight": np.ones(2)}))
    with pytest.raises(ValueError, match="one length"):
        write(Round(chosen, schedule={"row": np.arange(3), "step": np.arange(2)}))
    write(Round(chosen, cells={"weight": np.array([0.25, 0.75])}, columns={"new": np.array([np.nan] * 5 + [2.0])}))
    assert pq.read_table(tmp_path / "cells.parquet").column_names == ["cell", "weight"]
    rows = pq.read_table(tmp_path / "round.parquet").to_pydict()
    assert rows["row"] == [1, 4, 5] and rows["rank"] == [1, 0, None] and rows["score.new"] == [None, None, 2.0]


def test_the_loss_of_a_model_on_the_way_is_that_of_the_steps_so_far(finished: Finished, tmp_path: Path) -> None:
    assert finished.outcome is not None
    made = finished.outcome.rounds[-1]
    assert made.model is not None and made.model.checkpoints[-1].step == len(made.model.losses) == 4
    early = replace(made.model, checkpoints=(replace(made.model.checkpoints[-1], step=2),))
    outcome = replace(finished.outcome, rounds=(replace(made, model=early),))
    round_folder.write_round(tmp_path, outcome, 1, {})
    said = toml(tmp_path / "round.toml")["model"]
    assert [said["first_loss"], said["last_loss"]] == made.model.losses[:2].tolist()


def test_each_round_is_told_before_the_next_begins(place: Path, tmp_path: Path) -> None:
    method = make_method(METHOD, {"model": str(place / "model")})
    told = []
    run(method, pool_of(tmp_path), Budget.parse("30"), Lab(place / "store"), each_round=told.append)
    assert [len(each.rounds) for each in told] == [1, 2, 3]
    assert [len(each.selection) for each in told] == [10, 20, 30]


# ---- kills


def start(place: Path, out: Path, store: Path) -> subprocess.Popen[bytes]:
    code = "import sys; from coretune.cli import console; sys.argv[0] = 'coretune'; console()"
    words = [sys.executable, "-c", code, "select", str(place / "pool.jsonl"), "--method", METHOD, "--budget", "30"]
    words += ["--model", str(place / "model"), "--held-out", str(place / "held.jsonl"), "--workers", "1"]
    return subprocess.Popen(
        [*words, "--out", str(out), "--store", str(store)],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def tunings(store: Path) -> dict[Path, int]:
    """The finished tunings of a store, and when each was finished."""
    return {each: each.stat().st_mtime_ns for each in store.glob("tunings/*/tuned-*/done.json")}


def things(out: Path, store: Path) -> int:
    """How many things are finished: measurements, tunings, rounds."""
    return len([*store.rglob("done.json"), *out.glob("rounds/[0-9]*/round.toml")])


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_to_the_same_rows_and_weights(place: Path, finished: Finished) -> None:
    rng, out, store = random.Random(0), place / "killed" / "run", place / "killed" / "store"
    kills, touched, code = 0, 0, -1
    tuned: dict[Path, int] = {}
    while code != 0:
        process, there = start(place, out, store), things(out, store)
        while kills < KILLS and process.poll() is None and things(out, store) < there + rng.randint(1, 3):
            time.sleep(0.02)
        try:
            code = process.wait(rng.uniform(0, 0.8) if kills < KILLS else None)
            assert code == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        now = tunings(store)
        touched += sum(now.get(each) != when for each, when in tuned.items())
        tuned = now
        if out.exists() and not (out / "run.toml").exists():
            assert not read_course(out).finished
    assert kills and not touched and len(tuned) == 3
    assert sorted(each.name for each in out.parent.iterdir()) == ["run", "store"]
    same = [pq.read_table(each / "selection.parquet") for each in (finished.folder, out)]
    assert same[0].equals(same[1])
    for number in (1, 2, 3):
        folders = [each / "rounds" / f"{number:03d}" for each in (finished.folder, out)]
        for name in ("round.parquet", "cells.parquet", "schedule.parquet"):
            assert pq.read_table(folders[0] / name).equals(pq.read_table(folders[1] / name)), (number, name)
        said = [toml(each / "round.toml") for each in folders]
        assert said[0]["model"]["digest"] == said[1]["model"]["digest"]
        assert said[0]["readings"] == said[1]["readings"]
    stages = [json.loads(line) for line in (out / "stages.jsonl").read_text().splitlines()]
    assert any(stage["stored"] for stage in stages if stage["stage"].startswith("tune"))


def test_a_row_that_was_dropped_again_has_no_round(place: Path, tmp_path: Path) -> None:
    pool = read_pool(place / "pool.jsonl")
    budget = Budget.parse("2").on(len(pool), len(pool))
    rounds = (Round(Selection.of([3, 5])), Round(Selection.of([5, 9])))
    write_selection(tmp_path / "selection.parquet", Outcome(pool, budget, rounds, None), None)
    table = pq.read_table(tmp_path / "selection.parquet")
    entered = dict(zip(table["row"].to_pylist(), table["round"].to_pylist(), strict=True))
    assert (entered[3], entered[5], entered[9], entered[0]) == (None, 1, 2, None)
