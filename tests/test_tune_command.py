"""`coretune tune` as a user meets it: from a pool and from a run, its folder, its page, its refusals."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coretune.cli import main
from tests.made_pools import records, write_jsonl

QUICK = ("--epochs", "1", "--precision", "float32", "--max-tokens", "64")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.made_models import causal_folder

    return str(causal_folder(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def pool_file(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "pool.jsonl", records()[:40])


def coretune(capsys, *words) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as ended:
        code = int(ended.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def tune(capsys, model, what, out, *more):
    store = ("--store", Path(out).parent / "store")
    return coretune(capsys, "tune", what, "--model", model, "--out", out, *store, *QUICK, *more)


def select(capsys, pool_file, out, *more):
    words = ("--method", "random", "--budget", "20", "--out", out, "--store", out.parent / "store", *more)
    return coretune(capsys, "select", pool_file, *words)


def test_a_pool_is_tuned_on_and_the_folder_says_everything(capsys, tmp_path, pool_file, model):
    out = tmp_path / "tuned"
    code, said, error = tune(capsys, model, pool_file, out, "--checkpoints", "2", "0.9", "--seed", "3")
    assert code == 0, error
    assert "on 40 of 40 rows, all rows alike" in said and "3 steps, " in said and "tokens/s" in said
    assert f"tune {Path(model).name}" in said and "loss: " in said and str(out / "report.html") in said
    assert {str(each.relative_to(out)) for each in out.rglob("*") if each.is_file()} == {
        "adapter_model.safetensors", "adapter_config.json", "checkpoints/0000002/adapter_model.safetensors",
        "checkpoints/0000002/adapter_config.json", "losses.parquet", "row_losses.parquet", "stages.jsonl",
        "tuning.toml", "report.html",
    }  # fmt: skip
    assert pq.read_table(out / "losses.parquet")["step"].to_pylist() == [1, 2, 3]
    rows = pq.read_table(out / "row_losses.parquet").to_pydict()
    assert rows["row"] == list(range(40)) and rows["visits"] == rows["weight"] == [1] * 40
    assert [json.loads(line)["stage"] for line in (out / "stages.jsonl").read_text().splitlines()] == [
        "read", f"tune {Path(model).name}", "write",
    ]  # fmt: skip
    said = tomllib.loads((out / "tuning.toml").read_text())
    assert (said["options"]["seed"], said["options"]["checkpoints"], said["options"]["rank"]) == (3, [2, 0.9], 16)
    assert said["options"]["max_tokens"] == 64 and len(said["options"]["digest"]) == 32
    assert said["tuned"]["counts"]["steps"] == 3 and said["pool"]["rows"] == 40 and "peft" in said["versions"]


def test_the_same_tuning_again_does_nothing_and_another_is_refused(capsys, tmp_path, pool_file, model):
    out = tmp_path / "tuned"
    assert tune(capsys, model, pool_file, out)[0] == 0
    code, said, _ = tune(capsys, model, pool_file, out)
    assert code == 0 and "holds this tuning already, complete; nothing was done" in said
    code, _, error = tune(capsys, model, pool_file, out, "--seed", "1")
    assert code == 2 and "holds another tuning" in error
    assert tune(capsys, model, pool_file, out, "--seed", "1", "--overwrite")[0] == 0
    code, said, _ = tune(capsys, model, pool_file, tmp_path / "copy", "--seed", "1")
    assert code == 0 and "0 from store" not in said  # found in the store, written again
    assert (tmp_path / "copy" / "adapter_model.safetensors").read_bytes() == (
        out / "adapter_model.safetensors"
    ).read_bytes()
    assert coretune(capsys, "select", pool_file, "--method", "random", "--budget", "5", "--out", out)[0] == 2


def test_a_run_is_tuned_on_in_order_of_picking_with_its_weights(capsys, tmp_path, pool_file, model):
    run = tmp_path / "run"
    assert select(capsys, pool_file, run)[0] == 0
    code, said, error = coretune(
        capsys, "tune", run, "--model", model, "--store", tmp_path / "store", *QUICK, "--average", "rows"
    )
    out = tmp_path / f"run-tuned-{Path(model).name}"
    assert code == 0, error
    assert "on 20 of 20 rows, all rows alike" in said
    chosen = pq.read_table(run / "selection.parquet")
    order = chosen.filter(chosen["selected"]).sort_by("rank")["id"].to_pylist()
    assert pq.read_table(out / "row_losses.parquet")["id"].to_pylist() == order
    weights = np.where(chosen["selected"].to_numpy(zero_copy_only=False), 1.0, np.nan)
    weights[np.flatnonzero(~np.isnan(weights))] = np.linspace(0.5, 1.5, 20)
    place = chosen.schema.get_field_index("weight")
    field = chosen.schema.field("weight")
    changed = chosen.set_column(place, field, pa.array(weights.astype(np.float32), mask=np.isnan(weights)))
    pq.write_table(changed, run / "selection.parquet")
    code, said, _ = tune(capsys, model, run, tmp_path / "weighted")
    assert code == 0 and "weighted as the selection says" in said
    table = pq.read_table(tmp_path / "weighted" / "row_losses.parquet")
    assert sorted(table["weight"].to_pylist()) == pytest.approx(np.linspace(0.5, 1.5, 20).tolist())
    code, said, _ = tune(capsys, model, run, tmp_path / "alike", "--no-weights")
    assert code == 0 and "all rows alike" in said


def test_columns_of_a_run_are_those_it_was_read_with(capsys, tmp_path, model):
    rows = [{"Frage": f"What is {i}?", "Antwort": f"It is {i}."} for i in range(30)]
    pool_file = write_jsonl(tmp_path / "odd.jsonl", rows)
    columns = ("--columns", "prompt=Frage,completion=Antwort")
    assert select(capsys, pool_file, tmp_path / "run", *columns)[0] == 0
    assert tune(capsys, model, tmp_path / "run", tmp_path / "tuned")[0] == 0


def test_the_page_stands_alone_and_is_written_again_by_report(capsys, tmp_path, pool_file, model):
    out = tmp_path / "tuned"
    tune(capsys, model, pool_file, out, "--batch-rows", "8")
    page = (out / "report.html").read_text()
    assert "Loss on answer tokens" in page and "<svg" in page and "tuning report" in page
    assert "Highest loss" in page and "PeftModel.from_pretrained" in page and "http" not in page.split("</style>")[1]
    (out / "report.html").unlink()
    code, said, _ = coretune(capsys, "report", out)
    assert code == 0 and (out / "report.html").read_text() == page and str(out / "report.html") in said


def test_all_weights(capsys, tmp_path, pool_file, model):
    out = tmp_path / "tuned"
    code, _, error = tune(capsys, model, pool_file, out, "--rank", "none", "--stop-after", "1")
    assert code == 0, error
    assert (out / "model.safetensors").is_file() and (out / "tokenizer.json").is_file()
    assert "AutoModelForCausalLM.from_pretrained" in (out / "report.html").read_text()


def test_what_cannot_be_done_is_said(capsys, tmp_path, pool_file, model):
    for words, said in (
        (("--targets", "q_prj"), "no linear layer 'q_prj'; did you mean 'q_proj'?"),
        (("--rank", "0"), "rank 0 asked"),
        (("--checkpoints", "99"), "a checkpoint at step 99 asked, but the tuning has 3 steps"),
        (("--weights",), "is no run folder"),
        (("--checkpoints", "soon"), "give steps (10) or shares"),
        (("--epoch", "3"), "Unknown option"),
    ):
        code, _, error = tune(capsys, model, pool_file, tmp_path / "tuned", *words)
        assert code == 2 and said in error.replace("\n", " "), error
    code, _, error = coretune(capsys, "tune", pool_file, "--model", model)
    assert code == 2 and "--out DIR" in error
    assert not (tmp_path / "tuned").exists()


def test_help_teaches(capsys):
    code, said, _ = coretune(capsys, "tune", "--help")
    assert code == 0
    for word in ("--rank", "--learning-rate", "--no-weights", "all-linear", "coretune tune runs/ltd", "PEFT"):
        assert word in said
    assert "--digest" not in said


def test_an_interrupted_tuning_goes_on(capsys, tmp_path, pool_file, model, monkeypatch):
    from coretune.tuning import recording

    monkeypatch.setattr(recording, "RESUME_SECONDS", 0.0)
    monkeypatch.setattr(recording, "RESUME_SHARE", 0.0)
    steps = []
    show = __import__("coretune.terminal").terminal.Watch.__call__

    def stop(self, stage, done, total, note=""):
        if stage.startswith("tune"):
            steps.append(done)
            assert note.startswith("loss ")
            if done == 2 and steps.count(2) == 1:
                raise KeyboardInterrupt
        show(self, stage, done, total, note)

    monkeypatch.setattr("coretune.terminal.Watch.__call__", stop)
    code, _, error = tune(capsys, model, pool_file, tmp_path / "tuned")
    assert code == 130 and "the same command goes on" in error and not (tmp_path / "tuned").exists()
    assert tune(capsys, model, pool_file, tmp_path / "tuned")[0] == 0
    assert steps == [1, 2, 2, 3]
