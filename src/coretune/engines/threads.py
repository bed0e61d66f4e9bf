"""Threads of this process as an engine: for work that waits (an endpoint, a disk) or lets go of the interpreter."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from coretune.engines.in_order import in_order

AHEAD = 2  # items submitted and not yet handed on, a worker

Task = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class Threads:
    """A `map` over `workers` threads. The threads start with the first call and end with `close`.

    They never keep the interpreter from ending: after a Ctrl-C nothing is waited for. While items are worked on, torch
    computes with `share` threads a call, where that is given; before and after, with what it had.
    """

    def __init__(self, workers: int, share: int | None = None) -> None:
        if workers < 1:
            raise ValueError(f"{workers} workers asked; give 1 or more")
        self.workers, self.share = workers, share
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __call__(self, fn: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """`fn` of each item, or of items side by side, results in order; lazy, with a few items ahead."""
        items = zip(*iterables)  # noqa: B905 - as the builtin map has it
        with _share_of_cores(self.share):
            yield from in_order(lambda *item: self.submit(fn, item), items, ahead=AHEAD * self.workers)

    def submit(self, fn: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        """Have a thread call `fn(*arguments)`."""
        while len(self._threads) < self.workers:
            thread = threading.Thread(target=self._work, name=f"worker {len(self._threads)}", daemon=True)
            thread.start()
            self._threads.append(thread)
        future: Future[Any] = Future()
        self._tasks.put((future, fn, arguments))
        return future

    def close(self) -> None:
        """Let the threads end when they have nothing to do; does not wait for them."""
        for _ in self._threads:
            self._tasks.put(None)
        self._threads = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            _carry_out(task)


def threads(workers: int, *, share: int | None = None) -> Threads:
    """A `map` over threads of this process, each with `share` cores."""
    return Threads(workers, share)


def cores() -> int:
    """The cores that this process may use: `OMP_NUM_THREADS` where it is a number, else those it is allowed."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _share_of_cores(share: int | None) -> Iterator[None]:
    """Have torch, now or when it is imported in the block, compute with so many threads a call; then as before."""
    if share is None:
        yield
        return
    before, torch = os.environ.get("OMP_NUM_THREADS"), sys.modules.get("torch")
    all_threads = torch.get_num_threads() if torch else cores()
    os.environ["OMP_NUM_THREADS"] = str(share)
    if torch:
        torch.set_num_threads(share)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(all_threads)


def _carry_out(task: Task) -> None:
    """Call what a task says, and put the result or the error into its future."""
    future, fn, arguments = task
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(fn(*arguments))
    except BaseException as error:
        future.set_exception(error)
