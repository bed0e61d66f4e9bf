"""Threads of this process as an engine: for work that waits (an endpoint, a disk) or lets go of the interpreter."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from coretune.engines.in_order import in_order

AHEAD = 2  # items submitted and not yet handed on, a worker

Task = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class Threads:
    """A `map` over `workers` threads. The threads start with the first call and end with `close`.

    They never keep the interpreter from ending: after a Ctrl-C nothing is waited for.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"{workers} workers asked; give 1 or more")
        self.workers = workers
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __call__(self, fn: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """`fn` of each item, or of items side by side, results in order; lazy, with a few items ahead."""
        return in_order(lambda *item: self.submit(fn, item), zip(*iterables), ahead=AHEAD * self.workers)  # noqa: B905

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


def threads(workers: int) -> Threads:
    """A `map` over threads of this process."""
    return Threads(workers)


def _carry_out(task: Task) -> None:
    """Call what a task says, and put the result or the error into its future."""
    future, fn, arguments = task
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(fn(*arguments))
    except BaseException as error:
        future.set_exception(error)
