"""A process that crashes, in turn, at every single step that measuring and joining take on the disk. See test_kill.py.

It forks, so it is a process of its own. A step is a call that makes, names, syncs or removes something.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from coretune.lab import Lab
from coretune.store import folders
from coretune.store.arrays import scan
from coretune.store.digests import address
from tests.tiny_features import Hashed, Spread, hashed, noted, spread, tiny_pool

STEPS = [(os, "mkdir"), (os, "rename"), (os, "replace"), (os, "fsync"), (os, "unlink"), (os, "rmdir"), (os, "utime")]
ROWS = 40


def crash_at(step: int) -> None:
    """Let this process end, as if it were killed, at its step number `step`."""
    steps = iter(range(10**6))

    def counting(call: Callable[..., Any], real: bool) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            if next(steps) == step:
                os._exit(9)
            return call(*given, **named) if real else None

        return counted

    for module, name in STEPS:
        setattr(module, name, counting(getattr(module, name), real=name != "fsync"))


def main(folder: Path, ragged: bool) -> int:
    """Crash at step 0, 1, 2 ... until a run gets to its end; returns how many there are."""
    pool, kind = tiny_pool(range(ROWS)), Spread if ragged else Hashed
    want = [spread(example) if ragged else hashed(example, 4) for example in pool]
    for step in range(1000):
        store, log = folder / str(step), folder / f"{step}.log"
        child = os.fork()
        if not child:
            crash_at(step)
            Lab(store).features(kind(log=str(log)), pool)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        place = store / "features" / address(kind())
        for finished in folders.finished(place):
            folders.read_done(finished)  # what has a name is complete
        kept = len({key for array in scan(place) for key in map(tuple, array.keys.tolist())})
        before = len(noted(log))
        assert before - kept in (0, 16, 8), (step, before, kept)
        lab = Lab(store)
        feature = lab.features(kind(log=str(log)), pool)
        got = feature.ragged() if ragged else feature.array()
        assert all(np.array_equal(one, other) for one, other in zip(got, want, strict=True)), step
        assert (lab.stages[-1].stored, len(noted(log))) == (kept, before + ROWS - kept), step
        assert len(scan(place)) <= 2, step  # a single shard may be left beside the array that holds its rows too
        leftovers = [path for path in place.rglob(".*") if os.utime(path, (0, 0)) is None]
        folders.sweep(place)
        assert not list(place.rglob(".*")), (step, leftovers)
        shutil.rmtree(store)
        if ended == 0:
            return step
    raise AssertionError("it never got to its end")


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), ragged="ragged" in sys.argv[2:]))
