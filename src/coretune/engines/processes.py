"""Worker processes of this machine as an engine: one a GPU, or as many as asked, each with its share of the cores.

A worker is a fresh interpreter (spawned, never forked: a forked CUDA or BLAS is broken). What is sent to it is
pickled through a pipe, never to disk. It ends when its parent does, even if that is killed, because it waits for the
parent's end in a thread of its own; a Ctrl-C goes to the parent alone.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from coretune.engines.in_order import in_order
from coretune.engines.threads import AHEAD, Threads, cores
from coretune.errors import CoretuneError

LEAVE = 3.0  # seconds that an idle worker has for ending by itself
_spawning = threading.Lock()  # the environment is this process's own while a worker is started


class Processes:
    """A `map` over worker processes. A worker starts with its first item, keeps what it has loaded, ends at `close`.

    The function and its items are pickled, so the function stands in a module. Each worker sees one GPU, where there
    are any, and computes with its share of the cores (of `OMP_NUM_THREADS`, where that is set).
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"{workers} workers asked; give 1 or more")
        self.workers = workers
        self._threads = Threads(workers)  # one waits for each worker
        self._all = [_Worker(number, _surroundings(number, workers)) for number in range(workers)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._all:
            self._idle.put(worker)

    @property
    def at_once(self) -> int:
        """By how much work is done faster than by one worker with all of it: as GPUs are in use; 1 on a shared CPU."""
        return max(1, min(self.workers, len(gpus())))

    def __call__(self, fn: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """`fn` of each item, or of items side by side, results in order; lazy, with a few items ahead.

        An error of `fn` is raised here, with the worker's traceback as a note; a worker that dies is a
        `CoretuneError` that says how, and is started again for the next item.
        """
        items = zip(*iterables)  # noqa: B905 - as the builtin map does, the shortest ends it
        return in_order(
            lambda *item: self._threads.submit(self._hand_over, (fn, item)), items, ahead=AHEAD * self.workers
        )

    def close(self) -> None:
        """End the workers: idle ones may clean up, those at work end at once."""
        self._threads.close()
        for worker in self._all:
            worker.dismiss()
        for worker in self._all:
            worker.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hand_over(self, fn: Callable[..., Any], item: tuple[Any, ...]) -> Any:
        """Have an idle worker do it; runs in a thread."""
        worker = self._idle.get()
        try:
            return worker.call(fn, item)
        finally:
            self._idle.put(worker)


def processes(workers: int | None = None) -> Processes:
    """A `map` over worker processes; by default one for each GPU, or a single one without."""
    return Processes(len(gpus()) or 1 if workers is None else workers)


def gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; found without loading CUDA."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [each.strip() for each in named.split(",") if each.strip() not in ("", "-1", "NoDevFiles")]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


class _Worker:
    """One worker process and the pipe to it; it is started, with its own environment, when it is first called."""

    def __init__(self, number: int, surroundings: dict[str, str]) -> None:
        self.number = number
        self.surroundings = surroundings
        self.process: multiprocessing.process.BaseProcess | None = None
        self.pipe: Connection | None = None
        self.ended = self.busy = False

    def call(self, fn: Callable[..., Any], item: tuple[Any, ...]) -> Any:
        """`fn(*item)` over there. Raises its error, or `CoretuneError` where the process has died."""
        if self.process is None or self.pipe is None or not self.process.is_alive():
            self._start()
        assert self.process is not None and self.pipe is not None
        self.busy = True
        try:
            self.pipe.send((fn, item))
            done, value = self.pipe.recv()
            self.busy = False
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self.process.join()
            raise CoretuneError(self._epitaph()) from error
        if done:
            return value
        raise value

    def dismiss(self) -> None:
        """Let the process end by itself, if it is idle, so that it gives back semaphores and the like."""
        with _spawning:
            self.ended = True
        if self.pipe is not None and not self.busy:
            self.pipe.close()

    def end(self) -> None:
        """End the process, if there is one, and start no other; one that is at work is killed."""
        self.dismiss()
        if self.process is not None:
            if not self.busy:
                self.process.join(LEAVE)
            self.process.kill()
            self.process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        with _spawning:
            if self.ended:
                raise CoretuneError(f"worker {self.number} was asked to work after its engine was closed")
            resource_tracker.ensure_running()  # it would undo the mask, if it were started below
            before = {name: os.environ.get(name) for name in self.surroundings}
            os.environ.update(self.surroundings)
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: none reaches it as it starts
            try:
                self.pipe, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs,), name=f"worker {self.number}", daemon=True)
                process.start()
                self.process = process
                theirs.close()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                for name, value in before.items():
                    os.environ.pop(name) if value is None else os.environ.update({name: value})

    def _epitaph(self) -> str:
        assert self.process is not None
        code = self.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        why = " (the system does that when memory runs out: take fewer workers)" if code == -signal.SIGKILL else ""
        return f"worker {self.number} (process {self.process.pid}) {how}{why}"


def _surroundings(number: int, workers: int) -> dict[str, str]:
    """The environment variables of one of several workers: its share of the cores, and its GPU."""
    share = str(max(1, cores() // workers))
    seen = gpus()
    return {
        "OMP_NUM_THREADS": share,
        "RAYON_NUM_THREADS": share,  # tokenizers
        **({"CUDA_VISIBLE_DEVICES": seen[number % len(seen)]} if seen else {}),
    }


def _serve(pipe: Connection) -> None:
    """The life of a worker: take a function and its item, answer with the result or the error, until the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            fn, item = pipe.recv()
            answer = (True, fn(*item))
        except EOFError:
            return
        except BaseException as error:
            answer = (False, _portable(error))
        try:
            pipe.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:  # a result that cannot be pickled
            pipe.send((False, _portable(error)))


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, however that was."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _portable(error: BaseException) -> BaseException:
    """The error with its traceback as a note, or, where it would not survive the pipe, its text."""
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in a worker process:\n{trace}")
    return error
