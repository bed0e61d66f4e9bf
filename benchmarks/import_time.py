"""How long `import coretune` takes: fresh interpreters, one after the other, less what Python alone takes.

    python benchmarks/import_time.py [--runs 15] [--statement 'import coretune']

Prints the median and the range, and the modules that cost most. The goal is a median under 0.3 s.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time


def seconds(statement: str) -> float:
    """Wall-clock seconds of one fresh interpreter that runs `statement`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def costly(statement: str, most: int = 8) -> list[tuple[float, str]]:
    """Modules by the milliseconds that they took themselves, without what they import."""
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement], check=True, capture_output=True, text=True
    ).stderr
    found = re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", traced, re.MULTILINE)
    return sorted(((int(micro) / 1000, name) for micro, name in found), reverse=True)[:most]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--statement", default="import coretune")
    asked = parser.parse_args()
    seconds(asked.statement)  # compiles what is not compiled yet
    whole, bare = [], []
    for _ in range(asked.runs):
        whole.append(seconds(asked.statement))
        bare.append(seconds("pass"))
    python = statistics.median(bare)
    print(f"{asked.statement}: median {statistics.median(whole) - python:.3f} s beyond Python's own {python:.3f} s")
    print(f"whole runs: {min(whole):.3f} to {max(whole):.3f} s, {asked.runs} of them, {sys.version.split()[0]}")
    for milliseconds, name in costly(asked.statement):
        print(f"{milliseconds:8.1f} ms  {name}")


if __name__ == "__main__":
    main()
