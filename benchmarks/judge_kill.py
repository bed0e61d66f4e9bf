"""Kill a judging run with signal 9 at random moments, and see from the server's log what was asked twice.

    python benchmarks/judge_kill.py                  500 requests, 20 kills, 8 at once, a tenth of the requests fail

The server (tests/faulty_server.py) is a process of its own and outlives the kills; it writes down what it is asked and
what it has answered whole. After each kill the file of answers is read: no key that is in it may be asked again later,
and of the keys that were asked at most `concurrency` may be missing. At the end every record must have the score that
the server gave, requests that came again without a fault must be at most `concurrency` a kill, tokens must be those of
the server's log, and the account must have counted every request.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from coretune.judge import HELPFULNESS, Judge, Stated, rate
from tests.faulty_server import digest, score_of


def records(count: int) -> list[dict[str, str]]:
    return [{"question": f"What is {i} times {i}?", "answer": f"It is {i * i}."} for i in range(count)]


def judge_at(url: str, folder: Path, asked: argparse.Namespace) -> Judge:
    return Judge(
        url,
        "made",
        store=str(folder),
        concurrency=asked.concurrency,
        backoff_seconds=0.02,
        timeout_seconds=10.0,
        retries=12,
    )


def child(asked: argparse.Namespace) -> None:
    """What is killed."""
    rate(judge_at(asked.url, asked.child, asked), HELPFULNESS, Stated(), records(asked.requests))


@dataclass(frozen=True)
class Log:
    """What the server wrote: keys asked, in order; keys with their tokens of whole answers; keys of faults."""

    asked: list[str]
    answered: list[tuple[str, int, int]]
    failed: list[str]

    @property
    def repeated(self) -> int:
        """Requests that came again though no fault was made."""
        return len(self.asked) - len(set(self.asked)) - len(self.failed)


def read_log(path: Path) -> Log:
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    by_kind = {kind: [line[1:] for line in lines if line[0] == kind] for kind in ("asked", "answered", "failed")}
    answered = [(key, int(inputs), int(outputs)) for key, inputs, outputs in by_kind["answered"]]
    return Log([key for (key,) in by_kind["asked"]], answered, [key for (key,) in by_kind["failed"]])


def committed(folder: Path) -> set[str]:
    path = folder / "answers.sqlite"
    if not path.exists():
        return set()
    base = sqlite3.connect(path)
    try:
        return {key.hex() for (key,) in base.execute("SELECT key FROM answers")}
    except sqlite3.OperationalError:  # killed before there were tables
        return set()
    finally:
        base.close()


def start_server(log: Path, asked: argparse.Namespace) -> tuple[subprocess.Popen[str], str]:
    server = Path(__file__).parents[1] / "tests" / "faulty_server.py"
    command = [sys.executable, str(server), str(log), "0", "--faults", str(asked.faults), "--slow", str(asked.slow)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def kill_often(asked: argparse.Namespace, url: str, folder: Path, log: Path) -> list[dict[str, int]]:
    """Start and kill; each kill comes when a number of further requests has arrived, drawn so that kills share them."""
    rng, kills = np.random.default_rng(asked.seed), []
    command = [sys.executable, __file__, "--url", url, "--child", str(folder)]
    command += ["--requests", str(asked.requests), "--concurrency", str(asked.concurrency)]
    for number in range(asked.kills):
        before, stored = len(read_log(log).asked), committed(folder)
        left = asked.requests - len(stored)
        further = int(rng.integers(0, max(1, 2 * left // (asked.kills - number + 1))))
        process = subprocess.Popen(command)
        while process.poll() is None and len(read_log(log).asked) < before + further:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05 if further else 1.0))
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(5 * asked.slow + 0.1)  # the server writes down what it was answering
        now, log_now = committed(folder), read_log(log)
        again = stored & set(log_now.asked[before:])
        kills.append({"ended": ended, "requests": len(log_now.asked) - before, "new": len(now - stored)})
        kills[-1]["in_flight"] = len({*log_now.asked[before:]} - now)
        assert not again, f"{len(again)} committed answers were asked again"
        assert stored <= now, f"{len(stored - now)} committed answers were lost"
        assert kills[-1]["in_flight"] <= asked.concurrency, "more than the requests in flight have no stored answer"
        print(
            f"kill {number + 1}: {kills[-1]['requests']} requests, {len(now)} answers stored, "
            f"{kills[-1]['in_flight']} asked and not stored",
            flush=True,
        )
    return kills


def verdict(
    asked: argparse.Namespace, judge: Judge, folder: Path, log: Path, kills: list[dict[str, int]]
) -> dict[str, Any]:
    """Everything that must hold at the end, and the figures."""
    seen, want, stored = read_log(log), records(asked.requests), committed(folder)
    assert len(stored) == asked.requests, f"{len(stored)} answers of {asked.requests} are stored"
    assert stored == set(seen.asked), "what is stored is not what was asked"
    allowed = asked.kills * asked.concurrency
    assert seen.repeated <= allowed, f"{seen.repeated} requests came again, {allowed} may"
    rated = rate(judge, HELPFULNESS, Stated(), want)
    assert len(read_log(log).asked) == len(seen.asked), "a finished run asked again"
    (settings,) = Stated().settings()
    payloads = [judge.payload(HELPFULNESS.messages(each, Stated().ending(HELPFULNESS)), settings) for each in want]
    assert rated.values.tolist() == [score_of(payload, 0, 5) for payload in payloads], "scores differ from the server's"
    counted = ~rated.marks["tokens_estimated"]
    of_log = {key: tokens for key, *tokens in seen.answered}
    tokens = np.array([of_log[digest(payload)] for payload in payloads])[counted].sum(axis=0).tolist()
    of_rows = [int(rated.numbers[name][counted].sum()) for name in ("input_tokens", "output_tokens")]
    assert tokens == of_rows, f"rows count {of_rows} tokens, the server {tokens}"
    spent = judge.spent()
    assert 0 <= spent.requests - len(seen.asked) <= allowed, "the account and the server count other requests"
    assert spent.input_tokens >= of_rows[0] and spent.output_tokens >= of_rows[1], "the account missed tokens"
    return {
        "requests": asked.requests,
        "kills": len(kills),
        "kills_while_running": sum(not each["ended"] for each in kills),
        "stored": len(stored),
        "server_asked": len(seen.asked),
        "server_failed_on_purpose": len(seen.failed),
        "repeated_in_flight": seen.repeated,
        "repeated_allowed": allowed,
        "most_in_flight_at_a_kill": max((each["in_flight"] for each in kills), default=0),
        "committed_asked_again": 0,
        "tokens_of_counted_rows": of_rows,
        "rows_without_a_count": int((~counted).sum()),
        "account_requests": spent.requests,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--faults", type=float, default=0.1)
    parser.add_argument("--slow", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        child(asked)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder, log = Path(temporary) / "answers", Path(temporary) / "log"
        server, url = start_server(log, asked)
        try:
            began = time.perf_counter()
            kills = kill_often(asked, url, folder, log)
            judge = judge_at(url, folder, asked)
            rate(judge, HELPFULNESS, Stated(), records(asked.requests))
            time.sleep(0.3)  # the server writes its last line after its answer
            figures = verdict(asked, judge, folder, log, kills)
            print(json.dumps({**figures, "seconds": round(time.perf_counter() - began, 1)}))
        finally:
            server.terminate()
            server.wait()
            assert server.stdout is not None
            server.stdout.close()


if __name__ == "__main__":
    os.environ.pop("OPENAI_API_KEY", None)
    main()
