"""Results in the order of their items, while a few later items are worked on already."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any


def in_order(submit: Callable[..., Future[Any]], items: Iterable[tuple[Any, ...]], *, ahead: int) -> Iterator[Any]:
    """`submit(*item)` for each item, their results in order; at most `ahead` are submitted and not yet handed on.

    The first item, in order, that raises ends it with its error. However it ends, what waits is cancelled.
    """
    waiting: deque[Future[Any]] = deque()
    try:
        for item in items:
            waiting.append(submit(*item))
            while len(waiting) >= ahead or (waiting and waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
