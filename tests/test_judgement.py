"""Judgements and tags as features: through the lab, after a stop, on injected records, and by real servers."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coretune.errors import Unmeasurable
from coretune.features import Texts
from coretune.features._records import record
from coretune.features.judgement import Judgement
from coretune.features.tags import Tags
from coretune.judge import COMPLEXITY, HELPFULNESS, QUALITY, Budget, BudgetSpent, Expected, Judge, JudgeError, Stated
from coretune.lab import Lab
from coretune.pool import Example, Message, content_key
from coretune.store.digests import address
from tests.faulty_server import FaultyServer
from tests.tiny_features import tiny_pool


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    with FaultyServer(tmp_path / "log") as server:
        yield server


def judge_of(server: FaultyServer, tmp_path: Path, **options: Any) -> Judge:
    return Judge(server.url, "made", store=str(tmp_path / "answers"), backoff_seconds=0.01, **options)


def example(*turns: tuple[str, str]) -> Example:
    messages = tuple(Message(role, text) for role, text in turns)
    return Example("id", messages, content_key(messages))


def test_what_is_read_of_an_example() -> None:
    assert record(example(("user", "Q"), ("assistant", "A")), None) == ({"question": "Q", "answer": "A"}, False)
    several = example(("system", "S"), ("user", "Q"), ("assistant", "A"), ("user", "R"), ("assistant", "B"))
    texts, cut = record(several, None)
    assert texts == {"question": "[system]\nS\n\n[user]\nQ\n\n[assistant]\nA\n\n[user]\nR", "answer": "B"} and not cut
    assert record(example(("user", "12345"), ("assistant", "123")), 4) == ({"question": "1234", "answer": "123"}, True)
    assert record(example(("user", "alone")), None) == ({"question": "alone", "answer": ""}, False)


def test_the_address_is_what_is_asked_of_whom() -> None:
    judge = Judge("http://here/v1", "m")
    spec = Judgement(judge, reading=Stated())
    there = dataclasses.replace(judge, url="http://there/v1", concurrency=2, store="/x", budget=Budget(tokens=5))
    assert address(Judgement(there, reading=Stated())) == address(spec)
    others = [
        Judgement(dataclasses.replace(judge, model="n"), reading=Stated()),
        Judgement(dataclasses.replace(judge, extra='{"reasoning_effort": "low"}'), reading=Stated()),
        Judgement(judge, QUALITY, Stated()),
        Judgement(judge, reading=Stated(2, 0.5)),
        Judgement(judge, reading=Expected()),
        Judgement(judge, reading=Stated(), longest_characters=9),
        Judgement(judge, dataclasses.replace(HELPFULNESS, user="Rate {answer}"), Stated()),
    ]
    assert len({address(each) for each in [spec, *others]}) == 1 + len(others)
    with pytest.raises(ValueError, match="longest_characters 0"):
        Judgement(judge, longest_characters=0)
    with pytest.raises(ValueError, match="max_tokens"):
        Tags(judge, max_tokens=0)


def test_the_reading_is_settled_by_what_the_server_gives(server: FaultyServer, tmp_path: Path) -> None:
    judge = judge_of(server, tmp_path)
    assert Judgement(judge).resolved().reading == Expected()
    Judgement(judge).resolved()
    assert len(server.payloads) == 1
    server.logprobs = False
    plain = dataclasses.replace(judge, model="other")
    assert Judgement(plain).resolved().reading == Stated()
    with pytest.raises(JudgeError, match=r"Stated\(\)"):
        Judgement(plain, reading=Expected()).load()


def test_a_pool_is_judged_once_and_misses_bar_their_rows(server: FaultyServer, tmp_path: Path) -> None:
    server.says = lambda payload: "no number" if "question 3" in str(payload) else "Score: 4"
    pool, spec = tiny_pool(range(20)), Judgement(judge_of(server, tmp_path), reading=Stated())
    lab = Lab(tmp_path / "store")
    with pytest.raises(Unmeasurable, match="unparsed") as caught:
        lab.features(spec, pool)
    assert caught.value.rows.tolist() == [3]
    feature = lab.features(spec, pool.exclude(caught.value.rows, "no score"))
    assert feature.array()[4] == 4 and np.isnan(feature.array()[3]) and len(server.payloads) == 20
    assert feature.numbers["input_tokens"].min() > 50
    assert lab.stages[-1].counts["unparsed"] == 1


def test_a_stop_for_the_budget_keeps_what_was_paid(server: FaultyServer, tmp_path: Path) -> None:
    pool, lab = tiny_pool(range(20)), Lab(tmp_path / "store")
    judge = judge_of(server, tmp_path, budget=Budget(requests=7))
    with pytest.raises(BudgetSpent, match="higher budget") as caught:
        lab.features(Judgement(judge, COMPLEXITY, Stated()), pool)
    assert len(server.payloads) == 7 and any("while measuring" in note for note in caught.value.__notes__)
    more = dataclasses.replace(judge, budget=Budget(requests=20))
    assert np.isfinite(lab.features(Judgement(more, COMPLEXITY, Stated()), pool).array()).all()
    assert len(server.payloads) == 20 and more.spent().requests == 20


def test_rows_without_what_is_shown_are_not_asked_about(server: FaultyServer, tmp_path: Path) -> None:
    rows = [example(("user", "Q"), ("assistant", " ")), example(("assistant", "A")), example(("user", "Q"))]
    judge = judge_of(server, tmp_path)
    measured = Judgement(judge, reading=Stated()).load()(rows)
    assert np.isnan(measured.values).all() and not server.payloads
    assert measured.marks["no_answer"].tolist() == [True, False, True]
    assert measured.marks["no_question"].tolist() == [False, True, False]
    assert np.isfinite(Judgement(judge, COMPLEXITY, Stated()).load()(rows).values).tolist() == [True, False, True]


def test_tags_are_texts(server: FaultyServer, tmp_path: Path) -> None:
    server.says = lambda payload: "none" if "question 1" in str(payload) else '["Sums", "first  grade", "sums"]'
    spec = Tags(judge_of(server, tmp_path))
    measured = spec.load()(tiny_pool(range(3)).examples(np.arange(3)))
    assert isinstance(measured.values, Texts)
    assert list(measured.values) == ['["sums", "first grade"]', None, '["sums", "first grade"]']
    assert measured.marks["unparsed"].tolist() == [False, True, False]
    assert measured.numbers["tags"].tolist() == [2, 0, 2]
    feature = Lab(tmp_path / "store").features(spec, tiny_pool(["one", "two"]))
    assert [json.loads(each or "") for each in feature.texts()] == [["sums", "first grade"]] * 2


@pytest.mark.slow
def test_nothing_committed_is_asked_again_after_kills() -> None:
    """The benchmark in small: it asserts by itself what must hold."""
    script = Path(__file__).parents[1] / "benchmarks" / "judge_kill.py"
    command = [sys.executable, str(script), "--requests", "60", "--kills", "3", "--concurrency", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["stored"] == 60 and figures["kills"] == 3 and figures["repeated_in_flight"] <= 12


# Records that want to be scored well


def test_an_injected_record_cannot_leave_its_fence(server: FaultyServer, tmp_path: Path) -> None:
    """Whatever a record says, it stands between marks that it cannot know, and the form asked for comes last."""
    from benchmarks.judge_injections import INJECTIONS, injected

    assert len(INJECTIONS) >= 20 and len({each.text for each in INJECTIONS}) == len(INJECTIONS)
    measure = Judgement(judge_of(server, tmp_path), reading=Stated()).load()
    measure([example(("user", "Q"), ("assistant", injected("A", each))) for each in INJECTIONS])
    assert len(server.payloads) == len(INJECTIONS)
    for payload in server.payloads:
        rules, asked = (each["content"] for each in payload["messages"])
        mark = rules.split("carry the mark ")[1][:16]
        _, inside, after = asked.split(f"<<<{mark} answer ")
        assert inside.startswith("begins>>>\n") and after.startswith("ends>>>")
        assert mark not in inside and "Score: N, where N is a number from 0 to 5" in after


def test_how_far_scores_move_is_measured_on_pairs(server: FaultyServer, tmp_path: Path) -> None:
    """A judge that obeys moves all the way, one that does not stays: by hand on two records."""
    from benchmarks.judge_injections import INJECTIONS, movement

    obeying = judge_of(server, tmp_path)
    server.says = lambda payload: "Score: 5" if "worst" not in str(payload) else "Score: 1"
    records = [{"question": "Q", "answer": "the worst answer"}]
    moved = movement(obeying, records, INJECTIONS[:3], Stated())
    assert [each.difference for each in moved] == [0, 0, 0]

    def obey(payload: dict[str, Any]) -> str:
        return "Score: 5" if any(each.text in payload["messages"][-1]["content"] for each in INJECTIONS) else "Score: 1"

    server.says = obey
    moved = movement(dataclasses.replace(obeying, model="another"), records, INJECTIONS[:3], Stated())
    assert [(each.difference, each.misses) for each in moved] == [(4, 0)] * 3


# A real server


def served(folder: Path, log: Path) -> Iterator[str]:
    """`transformers serve` on a free port, ended in any case."""
    import socket
    import time
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as words:
        process = subprocess.Popen(command, stdout=words, stderr=words, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError(log.read_text())
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


def model_folder(folder: Path) -> Path:
    """SmolLM2 as an ordinary model folder: the weights' configuration names the architecture, so it goes last."""
    import shutil

    from coretune.models import find_model
    from coretune.models.gguf_copies import tokenizer_copy, weights_copy

    gguf = find_model("smollm2-135m").path
    folder.mkdir()
    for copy in (tokenizer_copy(gguf), weights_copy(gguf)):
        for path in copy.iterdir():
            shutil.copy(path, folder / path.name)
    return folder


@pytest.mark.models
@pytest.mark.slow
def test_transformers_serve_rates_records(tmp_path: Path) -> None:
    """It ignores what asks for log-probabilities, so the number stated is read; a small model's misses are counted."""
    folder = model_folder(tmp_path / "smollm2")
    for url in served(folder, tmp_path / "log"):
        judge = Judge(url, str(folder), store=str(tmp_path / "answers"), concurrency=1, timeout_seconds=900)
        spec = Judgement(judge).resolved()
        assert spec.reading == Stated()
        rows: Sequence[Example] = tiny_pool(range(5)).examples(np.arange(5))
        measured = spec.load()(rows)
        missed = measured.marks["unparsed"] | measured.marks["out_of_scale"]
        values = np.asarray(measured.values)
        assert np.isfinite(values).tolist() == (~missed).tolist()
        assert ((values >= 0) & (values <= 5))[~missed].all()
        assert (measured.numbers["input_tokens"] > 100).all() and not measured.marks["tokens_estimated"].any()
        assert judge.spent().requests == 6
    np.testing.assert_array_equal(spec.load()(rows).values, values)  # the server is gone, the answers are not
