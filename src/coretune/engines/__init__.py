"""Engines: each one a `map`, order-preserving. `engine_for` takes the one that fits the machine."""

from __future__ import annotations

import os
import sys
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
    from coretune.engines.processes import cores, gpus, processes
    from coretune.engines.threads import threads

    if workers is not None and workers < 1:
        raise ValueError(f"{workers} workers asked; give 1 or more")
    count = workers or len(gpus()) or cores()
    if count == 1:
        yield map
    elif gpus():
        with processes(count) as engine:
            yield engine
    else:
        with _share_of_cores(max(1, cores() // count)), threads(count) as engine:
            yield engine


@contextmanager
def _share_of_cores(share: int) -> Iterator[None]:
    """Have torch, now or when it is imported in the block, compute with so many threads a call."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(share)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(share)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
