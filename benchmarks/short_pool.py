r"""A small pool and a small target from the shipped one, for timing methods that run a language model.

    python benchmarks/short_pool.py FOLDER [--rows 300] [--target 12]
    coretune select FOLDER/pool.jsonl --method tagcos --model smollm2-135m --budget 10% \
        --tagcos.max-tokens 192 --out RUN
    coretune select FOLDER/pool.jsonl --method less --target FOLDER/target.jsonl --model smollm2-135m --budget 10% \
        --less.max-tokens 192 --out RUN

Records of fewer than 800 characters, shuffled with seed 0: the first `--rows` are the pool, the next the target.
"""

from __future__ import annotations

import argparse
import gzip
import random
from pathlib import Path

from coretune.data import DEMO_POOL

SHORT = 800  # characters of a line, keys and all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--target", type=int, default=12)
    args = parser.parse_args()
    with gzip.open(DEMO_POOL, "rt", encoding="utf-8") as file:
        lines = list(file)
    random.Random(0).shuffle(lines)
    short = [line for line in lines if len(line) < SHORT]
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, some in (("pool", short[: args.rows]), ("target", short[args.rows : args.rows + args.target])):
        (args.folder / f"{name}.jsonl").write_text("".join(some), encoding="utf-8")


if __name__ == "__main__":
    main()
