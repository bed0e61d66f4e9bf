"""Draw the pool that coretune ships from Databricks' own file, databricks-dolly-15k.jsonl.

    python scripts/make_demo_pool.py databricks-dolly-15k.jsonl src/coretune/data/dolly_3k.jsonl.gz

A record is taken by the hash of its own content, so the same records are drawn whatever their order in the file, and
copies are drawn together; categories keep, up to chance, the shares that they have among the records short enough.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

KEYS = ("instruction", "context", "response", "category")
TEXTS = KEYS[:3]
NOTE_MARK = re.compile(r"\[(?:\d+|[a-z])\]")  # Wikipedia's [42] and [a], which Databricks advises to remove

Record = dict[str, str]


def tidied(record: Record) -> Record:
    """The record without note marks and outer white space, its keys in Dolly's order."""
    return {key: NOTE_MARK.sub("", record[key]).strip() if key in TEXTS else record[key] for key in KEYS}


def order(record: Record) -> str:
    """What records are drawn and ordered by: the hash of what they say."""
    return hashlib.sha256("\x1f".join(record[key] for key in KEYS).encode()).hexdigest()


def draw(records: Iterable[Record], rows: int, longest: int) -> list[Record]:
    """The `rows` records that come first by hash among those of at most `longest` characters in all texts."""
    short = [made for made in map(tidied, records) if sum(len(made[key]) for key in TEXTS) <= longest]
    return sorted(short, key=order)[:rows]


def write(records: list[Record], path: Path) -> None:
    """Gzipped json lines, the same bytes at every run of one Python: no time and no file name in the header."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_bytes(gzip.compress(lines.encode(), compresslevel=9, mtime=0))


def main() -> None:
    """Read the arguments, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="databricks-dolly-15k.jsonl")
    parser.add_argument("out", type=Path, help="the .jsonl.gz to write")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--longest", type=int, default=1000, help="characters of instruction, context and response")
    asked = parser.parse_args()
    with asked.source.open(encoding="utf-8") as lines:
        records = draw((json.loads(line) for line in lines if line.strip()), asked.rows, asked.longest)
    write(records, asked.out)
    print(f"{len(records)} records, {asked.out.stat().st_size} bytes: {asked.out}")


if __name__ == "__main__":
    main()
