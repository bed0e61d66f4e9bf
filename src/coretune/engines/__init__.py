"""Engines: each one a `map`, order-preserving. `engine_for` takes the one that fits the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def engine_for(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """The engine for this many workers, closed at the end of the block: the builtin `map` for one, else processes.

    Raises `ValueError` for fewer than one.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers asked; give 1 or more")
    if workers == 1:
        yield map
        return
    from coretune.engines.processes import processes

    with processes(workers) as engine:
        yield engine
