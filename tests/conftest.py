"""What all tests share: no network, a cache of their own, and small made pools."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from coretune.pool import Pool

MANY = 200  # modules
loaded = [0]

settings.register_profile("coretune", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("coretune")


def pytest_configure(config: pytest.Config) -> None:
    """Bar the hub and take a fresh cache for the session, before anything reads the environment.

    Worker processes inherit both from the process that starts them, so that they share one cache.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: waiting threads leave the core alone
    if "PYTEST_XDIST_WORKER" not in os.environ:
        fresh = tempfile.mkdtemp(prefix="coretune-tests-")
        os.environ["XDG_CACHE_HOME"] = fresh
        config.add_cleanup(lambda: shutil.rmtree(fresh, ignore_errors=True))


@pytest.fixture(autouse=True)
def _modules_are_no_garbage() -> None:
    """Let collections pass by what loaded modules hold: every tuning asks for three, most of a tiny one's time."""
    if len(sys.modules) > loaded[-1] + MANY:
        gc.collect()
        gc.freeze()
        loaded.append(len(sys.modules))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def make_pool(tmp_path: Path) -> Callable[[Sequence[Any]], Pool]:
    """Reads records, written as json lines, into a pool."""

    def read(records: Sequence[Any]) -> Pool:
        from coretune.readers import read_pool

        path = tmp_path / "made.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return read_pool(path)

    return read


@pytest.fixture
def small_pool(make_pool: Callable[[Sequence[Any]], Pool]) -> Pool:
    """Twelve rows in messages form: three topics of four, a column `quality`, and row 11 a copy of row 3."""
    topics = {"sums": "What is {0} plus {0}?", "capitals": "Which capital has number {0}?", "rhymes": "Rhyme on {0}."}
    said = [
        (topic, ask.format(i), f"Answer {i} about {topic}." * i) for i in range(1, 5) for topic, ask in topics.items()
    ]
    records = [
        {
            "messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}],
            "topic": topic,
            "quality": row / 10,
        }
        for row, (topic, ask, answer) in enumerate([*said[:11], said[3]])
    ]
    return make_pool(records)
