"""A training in processes of its own, one for each device: written to a folder, started, watched, ended with this one.

A job's folder holds `job.json` (the spec and where the model lies) and its tokens and weights as arrays, so that it can
also be started by hand: `accelerate launch --num_processes 4 -m coretune.tuning.process STORE/tunings/ADDRESS/work`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from coretune.errors import CoretuneError, need
from coretune.features.lora_gradient import AdapterAt
from coretune.tuning.job import EachStep, Job
from coretune.tuning.spec import Tuning
from coretune.tuning.tokens import Tokens

JOB, ERROR, PROGRESS, LOG = "job.json", "error.txt", "progress.txt", "log.txt"
ARRAYS = ("ids", "answers", "ends")
POLL_SECONDS = 0.2
END_SECONDS = 10.0  # given to processes that are asked to end


def devices(device: str) -> int:
    """How many processes train by default: one a GPU, else one."""
    return max(1, int(need("torch", "models").cuda.device_count())) if device == "cuda" else 1


def write_job(job: Job) -> None:
    """Write a job for other processes."""
    for name in ARRAYS:
        np.save(job.work / f"{name}.npy", getattr(job.tokens, name), allow_pickle=False)
    np.save(job.work / "weights.npy", job.weights, allow_pickle=False)
    rest = {"pad": job.tokens.pad, "cut_rows": job.tokens.cut_rows, "left_out": dict(job.tokens.left_out)}
    said = {"spec": dataclasses.asdict(job.spec), "tokens": rest, "driver": os.getpid()}
    (job.work / JOB).write_text(json.dumps(said), encoding="utf-8")


def read_job(work: Path) -> tuple[Job, int]:
    """The job in a folder, and the process that wrote it."""
    said = json.loads((work / JOB).read_text(encoding="utf-8"))
    given: dict[str, Any] = {
        name: tuple(each) if isinstance(each, list) else each for name, each in said["spec"].items()
    }
    given["start"] = None if given.get("start") is None else AdapterAt(**given["start"])
    arrays = {name: np.load(work / f"{name}.npy", allow_pickle=False) for name in ARRAYS}
    weights = np.load(work / "weights.npy", allow_pickle=False)
    return Job.of(Tuning(**given), Tokens(**arrays, **said["tokens"]), weights, work), said["driver"]


def train_in_processes(job: Job, processes: int, each_step: EachStep) -> None:
    """Train in so many processes. Raises `CoretuneError` with what went wrong in one of them."""
    if processes > job.spec.batch_rows:
        raise ValueError(f"{processes} processes asked for steps of {job.spec.batch_rows} rows; give fewer processes")
    write_job(job)
    for name in (ERROR, PROGRESS):
        (job.work / name).unlink(missing_ok=True)
    with _started(job.work, processes, job.device) as launched:
        heard = 0
        while (code := launched.poll()) is None:
            time.sleep(POLL_SECONDS)
            heard = _hear(job.work, heard, each_step)
        _hear(job.work, heard, each_step)
    if code:
        with contextlib.suppress(FileNotFoundError):
            raise CoretuneError((job.work / ERROR).read_text(encoding="utf-8"))
        log = (job.work / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise CoretuneError(
            f"the {processes} processes of a tuning ended with code {code}; the end of {job.work / LOG}: "
            + "\n".join(log[-12:])
        )


@contextlib.contextmanager
def _started(work: Path, processes: int, device: str) -> Iterator[subprocess.Popen[bytes]]:
    """The launched processes; they end with the block, and a Ctrl-C goes to this process alone."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    surroundings = dict(os.environ)
    if device == "cpu":
        cores = int(surroundings.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
        surroundings |= {"OMP_NUM_THREADS": str(max(1, cores // processes)), "ACCELERATE_USE_CPU": "true"}
    with (work / LOG).open("wb") as log:
        launched = subprocess.Popen(
            [sys.executable, *launcher, "-m", "coretune.tuning.process", str(work)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=surroundings,
            start_new_session=True,
        )
        try:
            yield launched
        finally:
            _end(launched)


def _end(launched: subprocess.Popen[bytes]) -> None:
    """End the launcher and, through it, its processes; those that do not listen are killed."""
    if launched.poll() is None:
        launched.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            launched.wait(END_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(launched.pid, signal.SIGKILL)
    launched.wait()


def _hear(work: Path, heard: int, each_step: EachStep) -> int:
    """Pass on the steps that were written since; returns how many lines have been read."""
    with contextlib.suppress(FileNotFoundError):
        lines = (work / PROGRESS).read_text(encoding="ascii").split("\n")[:-1]
        for line in lines[heard:]:
            step, steps, loss = line.split()
            each_step(int(step), int(steps), float(loss))
        return len(lines)
    return heard


def tell_in(work: Path) -> EachStep:
    """A function for the first process that writes each step where `_hear` reads it."""

    def tell(step: int, steps: int, loss: float) -> None:
        with (work / PROGRESS).open("a", encoding="ascii") as lines:
            lines.write(f"{step} {steps} {loss}\n")

    return tell


def words_of_error(error: BaseException) -> str:
    """An error as its message, with its type where it is not one of ours."""
    return str(error) if isinstance(error, CoretuneError) else f"{type(error).__name__}: {error}"
