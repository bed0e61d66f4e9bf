"""Time and peak memory by stage of `random`, `ltd` and `kmq` at 1% and 5% of a pool, through the command line.

    python benchmarks/selections.py alpaca_52k.parquet --work DIR [--out benchmarks/results/selections.md]

Every run is a process of its own with one store, in the order of the table: the first that embeds pays for it, the
later ones find it. Measured once per line; the stages are those of `stages.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

RUNS = [
    (name, budget, options)
    for name, options in (("random", []), ("ltd", ["--ltd.clusters", "none"]), ("kmq", ["--kmq.quality", "length"]))
    for budget in ("1%", "5%")
]
MAIN = "from coretune.cli import main; main()"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("pool")
    arguments.add_argument("--work", type=Path, required=True, help="a folder for the store and the runs")
    arguments.add_argument("--out", type=Path, help="where the table is written, besides the terminal")
    given = arguments.parse_args()
    lines = [f"# Selections from {Path(given.pool).name}", "", machine(), ""]
    for name, budget, options in RUNS:
        lines += one_run(given.pool, given.work, name, budget, options)
    text = "\n".join(lines) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


def one_run(pool: str, work: Path, name: str, budget: str, options: list[str]) -> list[str]:
    folder = work / f"{name}-{budget.removesuffix('%')}"
    words = ["select", pool, "--method", name, "--budget", budget, *options, "--overwrite"]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", MAIN, *words, "--out", str(folder), "--store", str(work / "store")], check=True
    )
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    stages = [json.loads(line) for line in (folder / "stages.jsonl").read_text(encoding="utf-8").splitlines()]
    head = f"## {name}, {budget}: {seconds:.1f} s in all, {peak:,.0f} MiB at most so far"
    rows = [
        f"| {each['stage']} | {each['seconds']:.2f} | {each['rows']:,} | {each['stored']:,} "
        f"| {each['peak_memory_bytes'] / 2**20:,.0f} |"
        for each in stages
    ]
    return [head, "", "| stage | seconds | rows | from store | peak MiB |", "|---|---:|---:|---:|---:|", *rows, ""]


def machine() -> str:
    """The processor and its number of cores, as the system names them."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores, Python {platform.python_version()}."


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
