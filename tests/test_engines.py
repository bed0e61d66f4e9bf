from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coretune.engines import engine_for
from coretune.engines.in_order import in_order
from coretune.engines.processes import Processes, cores, gpus, processes
from coretune.engines.threads import Threads, threads
from coretune.errors import CoretuneError, ModelError, Unmeasurable
from coretune.lab import Lab
from tests.tiny_features import Hashed, note, noted, tiny_pool

ROOT = Path(__file__).parents[1]


def square(x: int) -> int:
    return x * x


def wait_and_say(seconds: float, word: str) -> str:
    time.sleep(seconds)
    return word


def environment(name: str) -> str | None:
    return os.environ.get(name)


def process_number(_: Any) -> int:
    return os.getpid()


def meet_another(folder: str, number: int) -> int:
    """Wait until somebody else is here too."""
    note(Path(folder) / "here", f"row {number}")
    for _ in range(1000):
        if len(noted(Path(folder) / "here")) > 1:
            return os.getpid()
        time.sleep(0.01)
    raise TimeoutError


def fail_at_three(x: int, log: str) -> int:
    note(Path(log), f"row {x}")
    if x == 3:
        raise ValueError("three")
    return x


def fail_with(kind: str) -> None:
    raise {
        "plain": ModelError("asked, found, do"),
        "unpicklable": Unmeasurable(np.array([1]), "reason"),
        "lock": RuntimeError(threading.Lock()),
        "exit": SystemExit(3),
    }[kind]


def die(how: int) -> None:
    if how < 0:
        os.kill(os.getpid(), -how)
    os._exit(how)


def hold_a_lock(number: int) -> int:
    held.append(multiprocessing.RLock())  # as tqdm does: the system's own, which somebody has to give back
    return number


held: list[Any] = []


def unpicklable(_: Any) -> Any:
    return lambda: 1


@pytest.fixture(params=["threads", "processes"])
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    with {"threads": threads, "processes": processes}[request.param](2) as made:
        yield made


def test_it_is_the_builtin_map(engine: Any) -> None:
    assert list(engine(square, range(20))) == list(map(square, range(20)))
    assert list(engine(pow, [1, 2, 3], [4, 5])) == [1, 32]
    assert list(engine(square, [])) == []
    assert list(engine(square, (x for x in (3, 1)))) == [9, 1]


def test_results_keep_the_order_of_the_items(engine: Any) -> None:
    list(engine(square, range(4)))  # workers are there
    assert list(engine(wait_and_say, [0.3, 0.0, 0.1, 0.0], "abcd")) == list("abcd")


def test_two_work_at_once(engine: Any, tmp_path: Path) -> None:
    assert len(list(engine(meet_another, [str(tmp_path)] * 2, [1, 2]))) == 2


def test_it_is_lazy_and_looks_ahead_only_a_little(engine: Any) -> None:
    taken = []

    def items() -> Iterator[int]:
        for x in range(1000):
            taken.append(x)
            yield x

    results = engine(square, items())
    assert taken == []
    for x in range(10):
        assert next(results) == x * x
        assert len(taken) <= x + 1 + 2 * engine.workers
    results.close()
    assert len(taken) < 20


def test_the_first_error_comes_in_its_place_and_ends_it(engine: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    results = engine(fail_at_three, range(1000), [str(log)] * 1000)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert list(results) == []
    assert list(engine(square, [4])) == [16]
    assert len(noted(log)) <= 3 + 1 + 2 * engine.workers


def test_an_error_of_the_items_comes_through(engine: Any) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("items")

    with pytest.raises(KeyError, match="items"):
        list(engine(square, items()))


def test_fewer_than_one_worker_is_refused() -> None:
    for make in (threads, processes, lambda workers: engine_for(workers).__enter__()):
        with pytest.raises(ValueError, match="0 workers asked"):
            make(0)


def test_what_waits_is_cancelled_when_one_fails() -> None:
    futures: list[Future[int]] = []

    def submit(x: int) -> Future[int]:
        futures.append(Future())
        if x < 2:
            futures[x].set_result(x)
        if x == 5:
            futures[2].set_exception(KeyError("two"))
        return futures[x]

    results = in_order(submit, ((x,) for x in range(100)), ahead=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match="two"):
        next(results)
    assert [future.cancelled() for future in futures] == [False, False, False, True, True, True]


def test_threads_share_the_process_and_end() -> None:
    with threads(3) as engine:
        assert set(engine(process_number, range(5))) == {os.getpid()}
        working = list(engine._threads)
        assert [thread.is_alive() for thread in working] == [True] * 3
    for thread in working:
        thread.join(10)
    assert [thread.is_alive() for thread in working] == [False] * 3


# Processes


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with processes(2) as made:
        yield made


def test_workers_stay_and_are_no_forks(two: Processes) -> None:
    first, second = set(two(process_number, range(10))), set(two(process_number, range(10)))
    assert os.getpid() not in first | second
    assert len(first | second) <= 2


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("plain", ModelError, "^asked, found, do"),
        ("unpicklable", RuntimeError, "Unmeasurable: 1 rows cannot be measured"),
        ("lock", RuntimeError, "RuntimeError: <unlocked"),
        ("exit", SystemExit, "3"),
    ],
)
def test_errors_of_workers_come_home_with_their_traceback(
    two: Processes, kind: str, error: type[BaseException], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        list(two(fail_with, [kind]))
    assert "in fail_with" in caught.value.__notes__[0]


def test_what_cannot_be_sent_is_an_error_and_not_the_end(two: Processes) -> None:
    with pytest.raises(Exception, match="pickle"):
        list(two(unpicklable, [1]))
    with pytest.raises(Exception, match="pickle"):
        list(two(lambda x: x, [1]))
    with pytest.raises(Exception, match="pickle"):
        list(two(square, [threading.Lock()]))
    assert list(two(square, [3, 4, 5])) == [9, 16, 25]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (-signal.SIGKILL, r"worker \d \(process \d+\) was killed by SIGKILL .*fewer workers"),
        (-signal.SIGSEGV, "was killed by SIGSEGV$"),
        (7, "ended with exit code 7"),
    ],
)
def test_a_worker_that_dies_says_how_and_is_replaced(two: Processes, how: int, said: str) -> None:
    with pytest.raises(CoretuneError, match=said):
        list(two(die, [how]))
    assert list(two(square, range(6))) == [0, 1, 4, 9, 16, 25]


def test_workers_share_the_cores_and_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5f")
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    with processes() as engine:
        assert engine.workers == 2
        assert set(engine(environment, ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"] * 4)) == {"3"}
        seen = set(engine(environment, ["CUDA_VISIBLE_DEVICES"] * 40))
        assert seen <= {"3", "GPU-5f"}
        assert {worker.surroundings["CUDA_VISIBLE_DEVICES"] for worker in engine._all} == {"3", "GPU-5f"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,GPU-5f"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "RAYON_NUM_THREADS" not in os.environ


def test_gpus_and_cores_are_those_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, expected in (("", []), ("-1", []), ("0", ["0"]), (" 2, 0 ", ["2", "0"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
        assert gpus() == expected
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    devices = [path.name for path in Path("/dev").iterdir() if path.name.startswith("nvidia")]
    assert len(gpus()) == sum(name.removeprefix("nvidia").isdigit() for name in devices)
    monkeypatch.setenv("OMP_NUM_THREADS", "nonsense")
    assert cores() == len(os.sched_getaffinity(0))


def alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and waits to be collected does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int], seconds: float = 10.0) -> bool:
    """Whether all these processes have ended within so many seconds."""
    until = time.monotonic() + seconds
    while any(map(alive, pids)):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_close_ends_the_workers_whatever_they_do() -> None:
    engine = processes(2)
    results = engine(wait_and_say, [0.0] + [60.0] * 5, "abcdef")
    assert next(results) == "a"
    pids = [worker.process.pid for worker in engine._all if worker.process is not None]
    began = time.monotonic()
    engine.close()
    assert gone([pid for pid in pids if pid is not None])
    assert time.monotonic() - began < 5
    results.close()


def test_idle_workers_give_back_what_they_hold() -> None:
    code = (
        "from coretune.engines.processes import processes\n"
        "from tests.test_engines import hold_a_lock\n"
        "with processes(2) as engine: print(sorted(engine(hold_a_lock, range(4))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 3]\n", "")


DRIVER = """
import signal, sys, time
from coretune.engines.{kind} import {kind}
from tests.test_engines import process_number, wait_and_say
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
    engine = {kind}(2)
    print(*set(engine(process_number, range(8))), flush=True)
    try:
        {body}
    finally:
        if {close}:
            engine.close()
"""


def drive(kind: str, body: str, *, close: bool, tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A process with an engine, and its workers' numbers, once they are there."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(kind=kind, body=body, close=close))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert driver.stdout is not None
    line = driver.stdout.readline()
    assert line.strip(), driver.communicate()[1]
    return driver, [int(each) for each in line.split()]


LONG = "list(engine(wait_and_say, [60.0] * 4, 'abcd'))"


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    driver, workers = drive("processes", LONG, close=False, tmp_path=tmp_path)
    time.sleep(0.2)
    assert all(map(alive, workers))
    driver.kill()
    assert gone(workers)
    driver.communicate()


def test_a_ctrl_c_does_not_reach_a_worker_that_only_starts() -> None:
    code = (
        "import os, signal, threading, time\n"
        "from coretune.engines.processes import processes\n"
        "from tests.test_engines import wait_and_say\n"
        "engine = processes(1)\n"
        "results = engine(wait_and_say, [0.0], 'a')\n"
        "def interrupt():\n"
        "    while engine._all[0].process is None: time.sleep(0.001)\n"
        "    os.kill(engine._all[0].process.pid, signal.SIGINT)\n"
        "threading.Thread(target=interrupt).start()\n"
        "print(list(results))\n"
        "engine.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("['a']\n", "")


@pytest.mark.parametrize("kind", ["threads", "processes"])
@pytest.mark.parametrize("close", [True, False])
def test_a_ctrl_c_ends_it_at_once_and_cleanly(tmp_path: Path, kind: str, close: bool) -> None:
    driver, workers = drive(kind, LONG, close=close, tmp_path=tmp_path)
    time.sleep(0.2)
    began = time.monotonic()
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, said = driver.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert said.count("KeyboardInterrupt") == 1
    assert said.count("Traceback") == 1
    assert driver.returncode == -signal.SIGINT
    assert gone(workers)


def test_a_program_that_forgets_to_close_ends_all_the_same(tmp_path: Path) -> None:
    driver, workers = drive("processes", "pass", close=False, tmp_path=tmp_path)
    _, said = driver.communicate(timeout=20)
    assert (driver.returncode, said) == (0, "")
    assert gone(workers)


# With the lab


def test_the_same_values_with_one_worker_and_with_two(two: Processes, tmp_path: Path) -> None:
    pool = tiny_pool(range(100))
    one = Lab(tmp_path / "one").features(Hashed(), pool).array()
    np.testing.assert_array_equal(Lab(tmp_path / "two", map=two).features(Hashed(), pool).array(), one)
    with threads(2) as engine:
        np.testing.assert_array_equal(Lab(tmp_path / "three", map=engine).features(Hashed(), pool).array(), one)


def test_a_workers_memory_counts(two: Processes, tmp_path: Path) -> None:
    lab = Lab(tmp_path, map=two)
    lab.features(Hashed(), tiny_pool(range(40)))
    lab.features(Hashed(), tiny_pool(range(40)))
    measured, stored = lab.stages
    assert measured.peak_memory_bytes > stored.peak_memory_bytes + (20 << 20)


def test_an_error_in_a_worker_names_the_rows(two: Processes, tmp_path: Path) -> None:
    with pytest.raises(CoretuneError, match=r"rows 32 to 47 .*RuntimeError: told to fail on question 40"):
        Lab(tmp_path, map=two).features(Hashed(fail_on="question 40"), tiny_pool(range(100)))
    lab = Lab(tmp_path)
    lab.features(Hashed(), tiny_pool(range(100)))
    assert lab.stages[-1].stored >= 32


def test_engine_for_one_worker_is_map() -> None:
    with engine_for(1) as engine:
        assert engine is map


def test_engine_for_a_machine_without_gpus_is_threads_with_a_share_of_the_cores_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with engine_for() as engine:
        assert isinstance(engine, Threads)
        assert engine.workers == 4
        assert set(engine(os.environ.get, ["OMP_NUM_THREADS"] * 9)) == {"1"}
        assert os.environ["OMP_NUM_THREADS"] == "4"  # what is not mapped may take all cores
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    with engine_for() as engine:
        assert isinstance(engine, Processes)
        assert engine.workers == 2


def test_engine_for_more_is_closed() -> None:
    with engine_for(2) as engine:
        assert list(engine(square, [2])) == [4]
        assert isinstance(engine, Processes | Threads)
        pids = list(engine(process_number, range(4)))
    assert set(pids) == {os.getpid()} or gone(pids)


def test_a_closed_engine_starts_no_worker() -> None:
    engine = processes(1)
    engine.close()
    with pytest.raises(CoretuneError, match="after its engine was closed"):
        list(engine(square, [1]))


def test_torch_has_a_share_of_the_cores_while_mapping_and_all_of_them_after() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads(2, share=1) as engine:
            assert set(engine(lambda _: torch.get_num_threads(), range(8))) == {1}
            assert torch.get_num_threads() == 3
            next(items := engine(lambda _: torch.get_num_threads(), range(8)))
            items.close()  # given up half-way
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
