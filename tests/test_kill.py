from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_features import Hashed, hashed, noted, tiny_pool

ROOT = Path(__file__).parents[1]
KILLS, ROWS, WIDTH = 6, 640, 64


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """A process that measures, with its own group, so that nothing but a kill reaches it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.measuring", *map(str, arguments)], cwd=ROOT, start_new_session=True
    )


def wait_for(log: Path, rows: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until so many rows were measured in all."""
    while len(noted(log)) < rows:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.005)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_kill_at_any_moment_costs_the_shards_in_flight(tmp_path: Path, workers: int) -> None:
    rng = np.random.default_rng(workers)
    log, out = tmp_path / "log", tmp_path / "out.npy"
    arguments = (tmp_path / "store", log, out, ROWS, workers, 0.002)
    redone = []
    for _ in range(KILLS):
        process = start(*arguments)
        wait_for(log, len(noted(log)) + int(rng.integers(1, 60)), process)
        time.sleep(rng.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.2)  # its workers end with it; what they note after that would be seen below
        redone.append(len(noted(log)))
    assert not out.exists()
    assert start(*arguments).wait() == 0
    pool = tiny_pool(range(ROWS))
    want = np.array([hashed(example, WIDTH) for example in pool])
    assert np.load(out).tobytes() == want.tobytes()
    rows = noted(log)
    assert set(rows) == {example.key.hex() for example in pool}
    assert len(rows) - ROWS <= KILLS * workers * Hashed.shard_rows
    assert redone == sorted(redone)
    assert start(*arguments).wait() == 0
    assert len(noted(log)) == len(rows)


def test_two_processes_on_one_store_and_one_is_killed(tmp_path: Path) -> None:
    logs, outs = [tmp_path / "log 0", tmp_path / "log 1"], [tmp_path / "0.npy", tmp_path / "1.npy"]
    both = [start(tmp_path / "store", logs[0], outs[0], 320, 1, 0.02)]
    wait_for(
        logs[0], 5, both[0]
    )  # a busy machine may start them far apart, and one must not do all of the other's work
    both.append(start(tmp_path / "store", logs[1], outs[1], 320, 1, 0.02))
    wait_for(logs[1], 5, both[1])
    both[0].kill()
    assert both[0].wait() == -signal.SIGKILL
    assert both[1].wait() == 0
    assert start(tmp_path / "store", logs[0], outs[0], 320, 2, 0.02).wait() == 0
    assert np.load(outs[0]).tobytes() == np.load(outs[1]).tobytes()


@pytest.mark.parametrize("kind", ["dense", "ragged"])
def test_a_crash_at_every_single_step_on_the_disk(tmp_path: Path, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crashing", str(tmp_path), kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30  # steps
