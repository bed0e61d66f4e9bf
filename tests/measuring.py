"""A process that measures a pool through a store and writes what it got: to be killed. See test_kill.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from coretune.engines import engine_for
from coretune.lab import Lab
from tests.tiny_features import Hashed, tiny_pool


def main(store: str, log: str, out: str, rows: str, workers: str, pause_seconds: str) -> None:
    """Measure `rows` rows with so many workers, noting them in `log`, and save the values in `out`."""
    spec = Hashed(width=64, log=log, pause_seconds=float(pause_seconds))
    with engine_for(int(workers)) as engine:
        feature = Lab(Path(store), map=engine).features(spec, tiny_pool(range(int(rows))))
        np.save(out, feature.array())


if __name__ == "__main__":
    main(*sys.argv[1:])
