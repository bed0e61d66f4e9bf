"""Knowledge: what it takes to read, index and search many passages, in memory and in time.

    python benchmarks/knowledge.py [--passages 100000] [--words 100] [--peer] [--out FILE.md]

Made passages: words drawn by Zipf's law from half a million, so that common words stand in most passages and each
passage brings new ones; lengths from half to one and a half times `--words`. Every part runs in a process of its own,
whose peak of resident memory counts, pages of mapped files among it. Queries are the beginnings of passages drawn from
the corpus, of 12 words (a question) and of 60 (a long prompt); the 100 best are asked for, as contexts do. Rates are of
processor time, on which other work weighs little. The dense matrix holds random unit vectors of 384 numbers:
embedding is measured by benchmarks/embedding.py. `--peer` has bm25s index and search the very same words.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY, WIDTH, DEPTH = 500_000, 384, 100
GIB = 2**30


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--passages", type=int, default=100_000)
    arguments.add_argument("--words", type=int, default=100, help="of a passage, on average")
    arguments.add_argument("--queries", type=int, default=100)
    arguments.add_argument("--peer", action="store_true", help="bm25s too")
    arguments.add_argument("--folder", type=Path, help="where the corpus and the store lie; default: a temporary one")
    arguments.add_argument("--out", type=Path, help="where the page is written, besides the terminal")
    arguments.add_argument("--part", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.part:
        print(
            json.dumps(PARTS[given.part](given) | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
        )
        return
    with tempfile.TemporaryDirectory(prefix="knowledge-") as folder:
        given.folder = given.folder or Path(folder)
        given.folder.mkdir(parents=True, exist_ok=True)
        write_corpus(given)
        page = "\n".join([*head(given), *(part_row(name, given) for name in PARTS if name != "peer" or given.peer)])
    print(page)
    if given.out:
        given.out.write_text(page + "\n", encoding="utf-8")


def head(given: argparse.Namespace) -> list[str]:
    size = (given.folder / "corpus.jsonl").stat().st_size
    return [
        f"# Knowledge: {given.passages:,} passages of about {given.words} words ({size / GIB:.2f} GiB of JSON lines)",
        "",
        f"{platform.processor() or platform.machine()}; Python {platform.python_version()}, numpy {np.__version__}.",
        "",
        "| part | seconds of processor | peak memory, GiB | on disk, GiB | queries/s, short | queries/s, long |",
        "|---|---:|---:|---:|---:|---:|",
    ]


def part_row(name: str, given: argparse.Namespace) -> str:
    """A part in a process of its own, as a row of the table."""
    command = [sys.executable, __file__, "--part", name, "--folder", str(given.folder)]
    for option in ("passages", "words", "queries"):
        command += [f"--{option}", str(getattr(given, option))]
    facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    cells = [f"{facts['seconds']:.1f}", f"{facts['peak'] / GIB:.2f}"]
    cells += [f"{facts['disk'] / GIB:.2f}" if "disk" in facts else ""]
    cells += [f"{facts[length]:.1f}" if length in facts else "" for length in ("short", "long")]
    return f"| {facts['what']} | {' | '.join(cells)} |"


def write_corpus(given: argparse.Namespace) -> None:
    """The passages as JSON lines, and the queries."""
    rng = np.random.default_rng(0)
    said = made_words()
    share = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    wanted = set(rng.choice(given.passages, given.queries, replace=False).tolist())
    queries = []
    with (given.folder / "corpus.jsonl").open("w") as file:
        for start in range(0, given.passages, 4096):
            sizes = rng.integers(given.words // 2, given.words * 3 // 2, min(4096, given.passages - start))
            drawn = np.searchsorted(share, rng.random(sizes.sum()) * share[-1]).tolist()
            end = 0
            for row, size in enumerate(sizes.tolist(), start):
                words = [said[word] for word in drawn[end : end + size]]
                end += size
                file.write(f'{{"text": "{" ".join(words)}"}}\n')
                if row in wanted:
                    queries.append(words)
    for name, length in (("short", 12), ("long", 60)):
        (given.folder / f"{name}.json").write_text(json.dumps([" ".join(words[:length]) for words in queries]))


def made_words() -> list[str]:
    """Words that are all different, the common ones short."""
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    made = []
    for number in range(VOCABULARY):
        word = ""
        while number >= 0:
            word += letters[number % 26]
            number = number // 26 - 1
        made.append(word)
    return made


def asked(given: argparse.Namespace, length: str) -> list[str]:
    queries: list[str] = json.loads((given.folder / f"{length}.json").read_text())
    return queries


def searched(search: Any, given: argparse.Namespace) -> dict[str, float]:
    """Queries a second, after a first round has brought the pages in."""
    rates = {}
    for length in ("short", "long"):
        queries = asked(given, length)
        search(queries)
        began = time.process_time()
        search(queries)
        rates[length] = len(queries) / (time.process_time() - began)
    return rates


def read(given: argparse.Namespace) -> dict[str, Any]:
    from coretune.knowledge import read_knowledge

    began = time.process_time()
    knowledge = read_knowledge(given.folder / "corpus.jsonl", map_above_bytes=64 << 20)
    assert len(knowledge.fingerprint) == 32
    return {"what": "read and fingerprint", "seconds": time.process_time() - began}


def index(given: argparse.Namespace) -> dict[str, Any]:
    from coretune.knowledge import indexed, read_knowledge
    from coretune.lab import Lab
    from coretune.store.folders import size_of

    knowledge = read_knowledge(given.folder / "corpus.jsonl", map_above_bytes=64 << 20)
    began = time.process_time()
    at = indexed(knowledge, Lab(given.folder / "store"), by=("bm25",))
    seconds = time.process_time() - began
    (given.folder / "at.json").write_text(json.dumps(at.search.path))
    return {"what": "index words, and passages", "seconds": seconds, "disk": size_of(given.folder / "store")}


def words(given: argparse.Namespace) -> dict[str, Any]:
    from coretune.knowledge.bm25 import Bm25At

    began = time.process_time()
    opened = Bm25At("", json.loads((given.folder / "at.json").read_text())).open()
    seconds = time.process_time() - began
    return {"what": "search by words", "seconds": seconds} | searched(lambda asked: opened.search(asked, DEPTH), given)


def vectors(given: argparse.Namespace) -> dict[str, Any]:
    from coretune.knowledge import dense
    from coretune.store.npy import open_array

    rng = np.random.default_rng(0)

    def unit(rows: int) -> np.ndarray:
        made = rng.normal(size=(rows, WIDTH)).astype(np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    began = time.process_time()
    sizes = np.diff([*range(0, given.passages, 8192), given.passages])
    dense.save((unit(size) for size in sizes), (given.passages, WIDTH), given.folder)
    seconds = time.process_time() - began
    path = given.folder / dense.VECTORS
    opened = dense.Dense(open_array(path), lambda texts: unit(len(texts)))
    rates = searched(lambda asked: opened.search(asked, DEPTH), given)
    return {"what": "search by vectors", "seconds": seconds, "disk": path.stat().st_size, "short": rates["short"]}


def peer(given: argparse.Namespace) -> dict[str, Any]:
    import bm25s

    with (given.folder / "corpus.jsonl").open() as lines:
        said = [[sys.intern(word) for word in json.loads(line)["text"].split()] for line in lines]
    began = time.process_time()
    theirs = bm25s.BM25(method="lucene", backend="numpy")
    theirs.index(said, show_progress=False)
    seconds = time.process_time() - began
    disk = sum(theirs.scores[name].nbytes for name in ("data", "indices", "indptr"))
    del said

    def search(queries: list[str]) -> None:
        theirs.retrieve([query.split() for query in queries], k=DEPTH, show_progress=False)

    return {"what": "bm25s: index and search", "seconds": seconds, "disk": disk} | searched(search, given)


PARTS = {"read": read, "index": index, "words": words, "vectors": vectors, "peer": peer}

if __name__ == "__main__":
    main()
