"""From the shipped pool to a chosen subset with the real embedded models, through the command line."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pyarrow.parquet as pq
import pytest

from coretune.data import DEMO_POOL

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def pool_file(tmp_path_factory):
    """The first 240 records of the shipped pool."""
    path = tmp_path_factory.mktemp("pool") / "dolly.jsonl"
    with gzip.open(DEMO_POOL, "rt", encoding="utf-8") as file:
        path.write_text("".join(line for _, line in zip(range(240), file, strict=False)), encoding="utf-8")
    return path


def command(*words):
    return [sys.executable, "-c", "from coretune.cli import console; console()", *map(str, words)]


def coretune(*words):
    ended = subprocess.run(command(*words), capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_ltd_with_the_same_rows_for_one_and_two_workers_and_after_kills(tmp_path, pool_file):
    options = (pool_file, "--method", "ltd", "--ltd.clusters", 8, "--budget", "5%", "--embedder", "minilm")
    for workers in (1, 2):
        name = f"workers-{workers}"
        coretune(
            "select", *options, "--workers", workers, "--store", tmp_path / name, "--out", tmp_path / f"{name}-run"
        )
    killed = ("select", *options, "--store", tmp_path / "killed", "--out", tmp_path / "killed-run")
    rng = random.Random(0)
    for _ in range(2):
        process = subprocess.Popen(command(*killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(3, 8))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    coretune(*killed)
    tables = [
        pq.read_table(tmp_path / f"{name}-run" / "selection.parquet") for name in ("workers-1", "workers-2", "killed")
    ]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    chosen = [
        (tmp_path / f"{name}-run" / "selected.jsonl").read_bytes() for name in ("workers-1", "workers-2", "killed")
    ]
    assert chosen[0] == chosen[1] == chosen[2]
    assert len(chosen[0].splitlines()) == 12
    assert set(chosen[0].splitlines()) <= set(pool_file.read_bytes().splitlines())


def test_token_budget_under_the_template_of_smollm2(tmp_path, pool_file):
    out = tmp_path / "run"
    said = coretune(
        *("select", pool_file, "--method", "random", "--budget", "2k-tokens", "--model", "smollm2-135m"),
        *("--store", tmp_path / "store", "--out", out, "--format", "messages"),
    )
    assert "answer tokens:" in said
    run = tomllib.loads((out / "run.toml").read_text())
    table = pq.read_table(out / "selection.parquet")
    assert table.schema.metadata[b"length_unit"] == b"tokens"
    tokens, selected = (np.asarray(table[name]) for name in ("answer_tokens", "selected"))
    reached = int(tokens[selected].sum())
    assert reached == run["budget"]["reached_tokens"] <= 2000
    assert 2000 - reached <= max(20, np.median(tokens) / 2)
    assert run["models"]["model"]["digest"]
    for line in (out / "selected.jsonl").read_text().splitlines():
        assert [message["role"] for message in json.loads(line)["messages"]] == ["user", "assistant"]


def test_rows_put_in_front_measure_only_themselves(tmp_path, pool_file):
    common = ("--method", "k_center", "--budget", "10", "--store", tmp_path / "store")
    coretune("select", pool_file, *common, "--out", tmp_path / "a")
    more = tmp_path / "more.jsonl"
    more.write_text('{"instruction": "Name a river in Mali.", "context": "", "response": "The Niger."}\n')
    coretune("select", more, pool_file, *common, "--out", tmp_path / "b")
    stages = [json.loads(line) for line in (tmp_path / "b" / "stages.jsonl").read_text().splitlines()]
    (embedding,) = [each for each in stages if each["stage"].startswith("embedding") and each["rows"]]
    assert (embedding["rows"], embedding["stored"]) == (1, 240)


def test_ctrl_c_says_how_to_go_on_and_leaves_no_folder(tmp_path, pool_file):
    words = ("select", pool_file, "--method", "k_center", "--budget", "5", "--store", tmp_path / "store")
    process = subprocess.Popen(
        command(*words, "--out", tmp_path / "run"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    line = ""
    while "is embedded in" not in line:  # said right before the first batch
        line = process.stderr.readline()
        assert line, "it ended by itself"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted; what was measured is kept" in said
    assert not (tmp_path / "run").exists()
