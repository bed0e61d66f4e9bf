"""Engines: each one a `map`, order-preserving. `engine_for` takes the one that fits the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def engine_for(workers: int | None = None) -> Iterator[Callable[..., Iterable[Any]]]:
    """The engine for this many workers, closed at the end of the block: by default one a GPU, else one a core.

    Without a GPU workers are threads, each computing with its share of the cores: a model then works on several
    batches at once, which is faster than all cores on one batch (on two cores about twice). Several GPUs take a
    process each. One worker is the builtin `map`. Raises `ValueError` for fewer than one.
    """
    from coretune.engines.processes import gpus, processes
    from coretune.engines.threads import cores, threads

    if workers is not None and workers < 1:
        raise ValueError(f"{workers} workers asked; give 1 or more")
    count = workers or len(gpus()) or cores()
    if count == 1:
        yield map
    elif gpus():
        with processes(count) as engine:
            yield engine
    else:
        with threads(count, share=max(1, cores() // count)) as engine:
            yield engine
