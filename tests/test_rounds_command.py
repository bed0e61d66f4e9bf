"""`coretune rounds` as a user meets it: the course of finished and unfinished runs, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from coretune import terminal
from coretune.cli import main
from coretune.round_folder_reading import read_course
from tests.made_pools import records, write_jsonl
from tests.run_folders import add_rounds, make_run_folder

METHOD = "tests.made_rounds:Turns"


def coretune(capsys, *words) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as ended:
        code = int(ended.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return add_rounds(make_run_folder(tmp_path / "run", 600, cells=6), 4)


def unfinished(folder: Path, rounds: int) -> Path:
    """The same folder as a run leaves it that was stopped."""
    for each in folder.iterdir():
        if each.name != "rounds":
            each.unlink()
    for each in sorted((folder / "rounds").glob("[0-9]*"))[rounds + 1 :]:
        shutil.rmtree(each)
    head = {"identity": "abc", "method": "kmq_iterative", "budget": "10%", "seed": 3, "started": "2025-03-01"}
    (folder / "rounds" / "run.json").write_text(json.dumps(head))
    return folder


def test_the_course_is_a_row_a_round(capsys, monkeypatch, folder):
    monkeypatch.setattr(terminal.console, "_width", 200)
    code, said, error = coretune(capsys, "rounds", folder)
    assert code == 0, error
    lines = said.splitlines()
    assert lines[0] == "ltd at 5%, seed 0: 4 rounds"
    head = " ".join(lines[1].split())
    assert head == "round rows new answer tokens training loss held-out loss more less seconds"
    rows = {line.split()[0]: line.split() for line in lines[2:] if line.split()[0].isdigit()}
    assert sorted(rows) == ["0", "1", "2", "3", "4"] and rows["0"][1:] == ["2.9000"]
    assert rows["1"][1:3] == ["15", "15"] and rows["1"][4:6] == ["2.1000", "2.6600"] and rows["4"][1] == "60"
    course = read_course(folder)
    (name, change), *_ = course.moved(1)[0]
    assert f"{name} {100 * change:+.1f}" in said
    assert f"model of round 4: /store/tunings/{4:032x}/checkpoints/0000040 (no longer there)" in said
    assert "dropped" not in said


def test_cells_are_told_by_what_their_share_changed(folder):
    course = read_course(folder)
    before, now = course.rounds[1].weights, course.rounds[2].weights
    change = sorted(((float(b - a), f"cell {i}") for i, (a, b) in enumerate(zip(before, now, strict=True))))
    rose, fell = course.moved(2, 2)
    assert [name for name, _ in rose] == [name for _, name in change[::-1][:2]]
    assert [name for name, _ in fell] == [name for _, name in change[:2]]
    assert course.moved(0) == ([], [])


def test_json_says_everything(capsys, folder):
    toml = folder / "rounds" / "002" / "round.toml"
    toml.write_text(toml.read_text().replace("[notes]", "[notes]\nratio = nan"))
    code, said, _ = coretune(capsys, "rounds", folder, "--json")
    made = json.loads(said)
    assert code == 0 and made["finished"] is True and made["method"] == "ltd"
    assert [each["rows"] for each in made["rounds"]] == [15, 30, 45, 60]
    assert made["untuned"] == {"heldout_loss": {"per_token": 2.9}}
    assert made["rounds"][1]["notes"] == {"ratio": None} and "NaN" not in said
    assert "cells_more" not in made["rounds"][0] and made["rounds"][1]["cells_more"]
    assert made["rounds"][3]["folder"] == str(folder / "rounds" / "004")


def test_an_unfinished_run_is_shown_as_far_as_it_came(capsys, folder):
    code, said, _ = coretune(capsys, "rounds", unfinished(folder, 2))
    assert code == 0
    assert "kmq_iterative at 10%, seed 3: 2 rounds done so far; not finished" in said and "goes on from here" in said
    assert json.loads(coretune(capsys, "rounds", folder, "--json")[1])["finished"] is False
    for each in (folder / "rounds").glob("0*"):
        shutil.rmtree(each)
    code, said, _ = coretune(capsys, "rounds", folder)
    assert code == 0 and "0 rounds done so far" in said


def test_an_unfinished_run_is_not_tuned_on_nor_reported(capsys, tmp_path, folder):
    unfinished(folder, 2)
    words = ("tune", folder, "--model", tmp_path, "--out", tmp_path / "tuned", "--store", tmp_path / "store")
    code, _, error = coretune(capsys, *words)
    assert code == 2 and "holds a run that is not finished; give its command again first" in error
    code, _, error = coretune(capsys, "report", folder)
    assert code == 2 and "is no finished run" in error


def test_columns_that_nothing_is_known_for_are_left_out(capsys, tmp_path):
    folder = add_rounds(make_run_folder(tmp_path / "run", 300, cells=None), 2, held_out=False)
    code, said, _ = coretune(capsys, "rounds", folder)
    assert code == 0 and "held-out" not in said and "more" not in said and "training" in said


def test_what_has_no_rounds_is_refused_with_words(capsys, tmp_path, folder):
    plain = make_run_folder(tmp_path / "plain")
    code, _, error = coretune(capsys, "rounds", plain)
    assert code == 2 and "which chooses in one step: there are no rounds to show" in error
    code, _, error = coretune(capsys, "rounds", tmp_path / "nowhere")
    assert code == 2 and "does not exist" in error
    code, _, error = coretune(capsys, "rounds", tmp_path)
    assert code == 2 and "has neither run.toml nor rounds/run.json" in error.replace("\n", " ")
    (folder / "rounds" / "001" / "round.toml").write_text("no = [")
    code, _, error = coretune(capsys, "rounds", folder)
    assert code == 2 and "cannot be read" in error


def test_help_teaches(capsys):
    code, said, _ = coretune(capsys, "rounds", "--help")
    assert code == 0
    for word in ("held-out loss", "--json", "coretune rounds runs/it", "round.parquet", "still going on", "PEFT"):
        assert word in " ".join(said.split())
    assert "--held-out" in coretune(capsys, "select", "--help")[1]


def test_select_says_where_the_course_is_and_the_report_shows_it(capsys, tmp_path):
    from tests.made_models import causal_folder

    pool, held = tmp_path / "pool.jsonl", tmp_path / "held.jsonl"
    write_jsonl(pool, records(60))
    write_jsonl(held, records(6, seed=5))
    model, out = causal_folder(tmp_path / "model"), tmp_path / "run"
    words = ("select", pool, "--method", METHOD, "--budget", "12", "--model", model, "--turns.count", "2")
    words = (*words, "--held-out", held, "--out", out, "--store", tmp_path / "store", "--workers", "1")
    code, said, error = coretune(capsys, *words)
    assert code == 0, error
    assert f"rounds: 2; their course: coretune rounds {out}" in said
    assert "Round by round" in (out / "report.html").read_text()
    code, said, _ = coretune(capsys, "rounds", out)
    assert code == 0 and "held-out" in said and "(no longer there)" not in said
    assert coretune(capsys, "run", out / "run.toml", "--out", tmp_path / "b", "--store", tmp_path / "store")[0] == 0
    assert (tmp_path / "b" / "selected.jsonl").read_text() == (out / "selected.jsonl").read_text()
    assert len(read_course(tmp_path / "b").rounds) == 2
