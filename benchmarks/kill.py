"""Kill a process that measures a real feature, at random moments, and see what it cost.

    python benchmarks/kill.py POOL                          length, 50 kills, 2 workers
    python benchmarks/kill.py POOL --feature embedding      with an encoder, minilm

A run without kills gives the reference. Then, on an empty store, the same process is started and killed with signal 9
again and again, at random moments of its work, and last left alone.
Every row that a worker has measured is noted in a file, so that rows measured twice can be counted: for each kill, at
most those of the shards in flight. Feature and selection must be the reference's, bit by bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from coretune.engines import engine_for
from coretune.features import FeatureSpec, Measure, Measured, place
from coretune.lab import Lab
from coretune.pool import Example
from coretune.readers import read_pool


@dataclass(frozen=True)
class Noted:
    """Another feature, measured as it is; the keys of the rows measured are noted in a file."""

    inner: Any
    log: str = field(metadata=place())
    shard_rows: int = field(metadata=place())
    version: ClassVar[int] = 1

    def resolved(self) -> Noted:
        return replace(self, inner=self.inner.resolved())

    def load(self) -> Measure:
        measure = self.inner.load()

        def noting(examples: Sequence[Example]) -> Measured:
            measured = measure(examples)
            handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(handle, b"".join(example.key.hex().encode() + b"\n" for example in examples))
            os.close(handle)
            return measured

        return noting


def spec_of(name: str, model: str) -> FeatureSpec:
    if name == "embedding":
        from coretune.features.embedding import Embedding

        return Embedding(model)
    from coretune.features.length import Length

    return Length("answer")


def measure(asked: argparse.Namespace, store: Path, log: Path, out: Path) -> None:
    """What is killed: measure, choose a twentieth, and write down digests of both."""
    from coretune.pickers import k_center, top

    pool = read_pool(asked.pool)
    if asked.rows is not None:
        pool = pool.subset(np.arange(min(asked.rows, len(pool))))
    with engine_for(asked.workers) as engine:
        lab = Lab(store, map=engine)
        spec = Noted(spec_of(asked.feature, asked.model), str(log), asked.shard_rows)
        values = lab.features(spec, pool).array()
    k = max(1, len(pool) // 20)
    chosen = k_center(values, k) if values.ndim == 2 else top(values, k)
    said = {
        "rows": len(np.unique(pool.keys, axis=0)),
        "feature": hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest(),
        "selection": hashlib.blake2b(chosen.rows.tobytes(), digest_size=16).hexdigest(),
        "stored_before": lab.stages[0].stored,
    }
    out.write_text(json.dumps(said))


def start(asked: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", str(folder)]
    return subprocess.Popen(command, start_new_session=True)


def measured(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text().split() if log.exists() else []


def kill_often(asked: argparse.Namespace, folder: Path, rows: int, seconds: float) -> list[dict[str, Any]]:
    """Start and kill, and for each kill say what it found.

    A kill comes when a number of further rows has been measured, drawn so that all kills share what is left, and a
    moment of up to a tenth of a second; where nothing is left or none are drawn, in the `seconds` of the start.
    """
    rng = np.random.default_rng(asked.seed)
    kills = []
    for number in range(asked.kills):
        before = measured(folder)
        left = rows - len(set(before))
        further = int(rng.integers(0, max(1, 2 * left // (asked.kills - number))))
        process = start(asked, folder)
        while process.poll() is None and further and len(measured(folder)) < len(before) + further:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1 if further else seconds))
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.3)
        now = measured(folder)
        redone = len(now) - len(set(now))
        kills.append({"ended": ended, "new": len(now) - len(before), "redone": redone})
        print(f"kill {number + 1}: {len(set(now))} rows measured, {redone} of them again", flush=True)
        assert redone <= (number + 1) * asked.workers * asked.shard_rows, "more than the shards in flight was redone"
    return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool")
    parser.add_argument("--feature", choices=("length", "embedding"), default="length")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard-rows", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        measure(asked, asked.child / "store", asked.child / "log", asked.child / "said.json")
        return
    with tempfile.TemporaryDirectory() as temporary:
        reference, killed = Path(temporary) / "reference", Path(temporary) / "killed"
        reference.mkdir(), killed.mkdir()
        began = time.perf_counter()
        assert start(asked, reference).wait() == 0
        whole = time.perf_counter() - began
        began = time.perf_counter()
        assert start(asked, reference).wait() == 0
        stored = time.perf_counter() - began
        want = json.loads((reference / "said.json").read_text())
        bound = asked.workers * asked.shard_rows
        print(f"without kills: {whole:.1f} s; from the store: {stored:.1f} s; {want['rows']} rows")
        kills = kill_often(asked, killed, want["rows"], stored)
        assert start(asked, killed).wait() == 0
        got, rows = json.loads((killed / "said.json").read_text()), measured(killed)
        figures = {
            "rows": want["rows"],
            "workers": asked.workers,
            "kills": len(kills),
            "kills while rows were measured": sum(kill["new"] > 0 for kill in kills),
            "kills that came too late": sum(kill["ended"] for kill in kills),
            "rows redone": len(rows) - len(set(rows)),
            "rows redone a kill, at most in flight": bound,
            "seconds without kills": round(whole, 1),
            "feature bit-identical": got["feature"] == want["feature"],
            "selection bit-identical": got["selection"] == want["selection"],
        }
        for name, value in figures.items():
            print(f"{name}: {value}")
        assert figures["feature bit-identical"] and figures["selection bit-identical"]


if __name__ == "__main__":
    main()
