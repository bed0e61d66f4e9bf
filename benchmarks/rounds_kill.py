"""Kill a run of several rounds with signal 9 at random moments, and see whether it goes on to the same rows.

    python benchmarks/rounds_kill.py [--kills 20] [--method NAME] [--model MODEL] [--pool FILE] [--out FILE] [-- MORE]

A run without kills gives the reference: by default of a made pool, with a small model of random weights and a method
that tunes in each of its three rounds. Then, in other folders with stores of their own, the same command is started and
killed until it comes to its end. Chosen rows, gains and weights, what every round says of rows and cells, the weights
of every round's model and its held-out loss must be the reference's, bit by bit; rounds that lie there at a kill must
be the reference's too; tunings that were finished before a kill must not be touched again, and at the end there must be
as many as without kills. MORE goes to `coretune select` as it is, such as `-- --kmq_iterative.quality perplexity`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow.parquet as pq

from tests.made_models import causal_folder
from tests.made_pools import records, write_jsonl

ROOT = Path(__file__).parents[1]
TABLES = ("round.parquet", "cells.parquet", "schedule.parquet")


def start(asked: argparse.Namespace, root: Path, name: str) -> subprocess.Popen[bytes]:
    code = "import sys; from coretune.cli import console; sys.argv[0] = 'coretune'; console()"
    words = [sys.executable, "-c", code, "select", asked.pool, "--method", asked.method, "--budget", asked.budget]
    words += ["--model", asked.model, "--held-out", asked.held_out, "--workers", "1", *asked.more]
    words += ["--out", str(root / name / "out"), "--store", str(root / name / "store")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(words, cwd=ROOT, start_new_session=True, **quiet)


def table(path: Path) -> str:
    """A table in words, so that no number is like no number."""
    return repr(pq.read_table(path).to_pydict())


def round_said(folder: Path) -> str:
    """What a round says that no clock and no place is part of."""
    said = tomllib.loads((folder / "round.toml").read_text())
    model = said.get("model", {})
    kept = {name: said.get(name) for name in ("rows", "new_rows", "answer_tokens", "notes", "readings", "cells")}
    kept |= {name: model.get(name) for name in ("tuning", "digest", "first_loss", "last_loss")}
    return repr(kept | {name: table(folder / name) for name in TABLES if (folder / name).is_file()})


def rounds_said(out: Path) -> dict[str, str]:
    return {each.parent.name: round_said(each.parent) for each in sorted(out.glob("rounds/[0-9]*/round.toml"))}


def outcome(out: Path) -> dict[str, Any]:
    return {"selection": table(out / "selection.parquet"), "rounds": rounds_said(out)}


def finished(store: Path) -> dict[Path, int]:
    """Finished tunings, and when each was finished."""
    return {each: each.stat().st_mtime_ns for each in store.glob("tunings/*/tuned-*/done.json")}


def read_words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--method", default="tests.made_rounds:Turns")
    parser.add_argument("--model", help="by default one of two layers with random weights")
    parser.add_argument("--pool", help="by default 120 made rows")
    parser.add_argument("--held-out", help="by default 12 made rows")
    parser.add_argument("--budget", default="30")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path)
    words = sys.argv[1:]
    place = words.index("--") if "--" in words else len(words)
    asked = parser.parse_args(words[:place])
    asked.more = words[place + 1 :]
    return asked


def main() -> None:
    """Run once, then kill and go on, then compare."""
    asked = read_words()
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        asked.pool = asked.pool or str(write_jsonl(root / "pool.jsonl", records(120)))
        asked.held_out = asked.held_out or str(write_jsonl(root / "held.jsonl", records(12, seed=5)))
        asked.model = asked.model or str(causal_folder(root / "model"))
        began = time.perf_counter()
        if code := start(asked, root, "whole").wait():
            sys.exit(f"the run itself failed with {code}")
        took = time.perf_counter() - began
        reference, tunings = outcome(root / "whole" / "out"), len(finished(root / "whole" / "store"))
        kills, touched, number, at_kills, odd, same = 0, 0, 0, 0, 0, []
        while kills < asked.kills or len(same) <= number:
            out, store = root / f"killed-{number}" / "out", root / f"killed-{number}" / "store"
            known, process = finished(store), start(asked, root, f"killed-{number}")
            try:
                if code := process.wait(rng.uniform(0.1, 0.9) * took if kills < asked.kills else None):
                    sys.exit(f"a run failed with {code}")
                same.append(outcome(out) == reference)
                number += kills < asked.kills
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                there = rounds_said(out)
                at_kills += len(there)
                odd += sum(said != reference["rounds"][name] for name, said in there.items())
            now = finished(store)
            touched += sum(now.get(each) != when for each, when in known.items())
        rounds = len(set(reference["rounds"]) - {"000"})
        counts = {len(finished(root / f"killed-{each}" / "store")) for each in range(len(same))}
        lines = [
            f"{kills} kills in {len(same)} runs of {rounds} rounds, {took:.0f} s for one without any.",
            f"The same rows, weights, models and readings: {sum(same)} of {len(same)}.",
            f"Rounds that lay there at a kill, the untuned model's reading counted: {at_kills}; {odd} of them were not "
            "the reference's.",
            f"Tunings: {tunings} without kills, {sorted(counts)} with; touched after they were finished: {touched}.",
        ]
        print("\n".join(lines))
        if asked.out:
            asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        sys.exit(0 if all(same) and counts == {tunings} and not touched and not odd else 1)


if __name__ == "__main__":
    main()
