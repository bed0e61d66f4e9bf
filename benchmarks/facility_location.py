"""Facility location against apricot-select and submodlib-py at 10,000 rows; on neighbours at 200,000, where they stop.

    python benchmarks/facility_location.py [--data X.npy] [--runs 5] [--only peers,large] [--peer-python P] [--out FILE]
    python benchmarks/facility_location.py --oracles DIR

Every run is a process of its own that first does the same on 500 rows, so that nothing is compiled while the clock
runs; runs of what is compared alternate; figures are medians. The peers are handed the similarities (1 + cosine) / 2,
made by one numpy product in float32 whose time counts as theirs: their own take longer (scikit-learn's distances in
float64; a loop in C++) and are of another kind (squared cosines; cosines, negative ones at 0). The sum reached is
computed for all by one function. `--peer-python`: a Python that has apricot-select and submodlib-py (they are in
`coretune[bench]`). `--oracles`: a folder with `*.npz` (`x`) and `*.json` (`budget`, `picks` as `[row, gain]` pairs of
another program) to be matched.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

WARM = 500


def similarities(x: np.ndarray) -> np.ndarray:
    """(1 + cosine) / 2 of rows of length 1, in float32."""
    found = x @ x.T
    found += 1
    found /= 2
    return found


def apricot(x: np.ndarray, k: int) -> dict:
    from apricot import FacilityLocationSelection

    made = FacilityLocationSelection(k, metric="precomputed", optimizer="lazy").fit(similarities(x))
    return {"picks": made.ranking.tolist()}


def submodlib(x: np.ndarray, k: int) -> dict:
    from submodlib import FacilityLocationFunction

    made = FacilityLocationFunction(n=len(x), mode="dense", sijs=similarities(x), separate_rep=False)
    quiet = dict.fromkeys(("stopIfZeroGain", "stopIfNegativeGain", "verbose", "show_progress"), False)
    return {"picks": [row for row, _ in made.maximize(budget=k, optimizer="LazyGreedy", **quiet)]}


def exact(x: np.ndarray, k: int) -> dict:
    from coretune.pickers import facility_location

    return {"picks": facility_location(x, k).rows.tolist()}


def stochastic(x: np.ndarray, k: int) -> dict:
    from coretune.pickers import stochastic_facility_location

    return {"picks": stochastic_facility_location(x, k, rng=np.random.default_rng(0)).rows.tolist()}


def sparse(x: np.ndarray, k: int, t: int = 64) -> dict:
    """The exact and the stochastic picks on the same neighbours."""
    from coretune.distances import neighbours, rows_of
    from coretune.pickers import facility_location, stochastic_facility_location

    times = [time.perf_counter()]
    graph = neighbours(rows_of(x), t)
    times.append(time.perf_counter())
    picks = facility_location(graph, k).rows.tolist()
    times.append(time.perf_counter())
    drawn = stochastic_facility_location(graph, k, rng=np.random.default_rng(0)).rows.tolist()
    times.append(time.perf_counter())
    return {"picks": picks, "stochastic": drawn, "parts": np.diff(times).tolist()}


CALLS: dict[str, Callable[..., dict]] = {
    "facility_location": exact,
    "stochastic_facility_location": stochastic,
    "sparse": sparse,
    "apricot-select, lazy": apricot,
    "submodlib-py, LazyGreedy": submodlib,
}
PEERS = ("apricot-select, lazy", "submodlib-py, LazyGreedy")


def child(name: str, path: str, k: int) -> None:
    """One timed run, its result as a line of json."""
    x = np.load(path)
    CALLS[name](x[:WARM].copy(), 20)
    start = time.perf_counter()
    result = CALLS[name](x, k)
    result["seconds"] = time.perf_counter() - start
    result["gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(result))


def run(name: str, path: Path, k: int, python: str) -> dict:
    command = [python if name in PEERS else sys.executable, __file__, "--child", name, str(path), str(k)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def total(x: np.ndarray, picks: list[int]) -> float:
    """The sum over all rows of (1 + highest cosine to a pick) / 2, for whoever picked."""
    from coretune.distances import rows_of

    highest = rows_of(x).best(None, x[picks], np.zeros(len(picks)))
    return float((1 + highest.astype(np.float64)).sum() / 2)


def peers_section(x: np.ndarray, k: int, runs: int, python: str, folder: Path) -> Iterator[str]:
    path = folder / "x.npy"
    np.save(path, x)
    names = ["facility_location", "stochastic_facility_location", *PEERS]
    found: dict[str, list[dict]] = {name: [] for name in names}
    for _ in range(runs):
        for name in names:
            found[name].append(run(name, path, k, python))
    seconds = {name: np.array([one["seconds"] for one in results]) for name, results in found.items()}
    ours = found["facility_location"][0]["picks"]
    yield f"## {k:,} of {len(x):,} x {x.shape[1]}, {runs} runs, similarities counted\n"
    yield "| | median seconds | fastest | peak GiB | sum | picks shared with ours | ours is faster by |"
    yield "|---|---|---|---|---|---|---|"
    for name, results in found.items():
        picks = results[0]["picks"]
        yield (
            f"| {name} | {np.median(seconds[name]):.2f} | {seconds[name].min():.2f} | "
            f"{max(one['gib'] for one in results):.2f} | {total(x, picks):.2f} | {len({*picks} & {*ours})} of {k} | "
            f"{np.median(seconds[name] / seconds['facility_location']):.1f} |"
        )
    yield f"\nThe sum for {k:,} random rows is {total(x, random_rows(len(x), k)):.2f}.\n"


def random_rows(n: int, k: int) -> list[int]:
    return np.random.default_rng(0).choice(n, k, replace=False).tolist()


def large_section(x: np.ndarray, k: int, folder: Path) -> Iterator[str]:
    path = folder / "large.npy"
    np.save(path, x)
    found = run("sparse", path, k, sys.executable)
    graph, picking, drawing = found["parts"]
    yield f"## {k:,} of {len(x):,} x {x.shape[1]} on 64 neighbours each, one run\n"
    yield f"Neighbours, exact: {graph:.1f} s. Peak memory of the process, rows included: {found['gib']:.2f} GiB.\n"
    yield "| | seconds after neighbours | sum over all rows, all similarities |"
    yield "|---|---|---|"
    yield f"| facility_location | {picking:.1f} | {total(x, found['picks']):.1f} |"
    yield f"| stochastic_facility_location, epsilon 0.1 | {drawing:.1f} | {total(x, found['stochastic']):.1f} |"
    yield f"| random | | {total(x, random_rows(len(x), k)):.1f} |"
    yield ""


def oracles(folder: Path) -> Iterator[str]:
    from coretune.pickers import facility_location

    for path in sorted(folder.glob("facility_location_*.npz")):
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        picked = facility_location(np.load(path)["x"], told["budget"])
        rows, gains = zip(*told["picks"], strict=True)
        away = np.abs(picked.gains / np.array(gains) - 1).max()
        same = sum(a == b for a, b in zip(picked.rows.tolist(), rows, strict=True))
        yield f"{path.stem}: {same} of {len(rows)} picks equal, gains within {away:.1e}"


def rows_for(data: Path | None, n: int, d: int) -> np.ndarray:
    """Rows of length 1, made or from a file."""
    from pickers import made_rows

    x = made_rows(n, d, np.random.default_rng(0)) if data is None else np.load(data, mmap_mode="r")[:n]
    x = np.array(x, dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npy file of (n, d) float rows, instead of made ones")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[384, 512], help="of made rows")
    parser.add_argument("--large", type=int, default=200_000, help="rows for the part on neighbours")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="peers,large")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--machine", default="2 cores, EPYC with AVX-512, shared")
    parser.add_argument("--oracles", type=Path)
    parser.add_argument("--out", type=Path, help="a markdown file to append to; without it, only the terminal")
    options = parser.parse_args()

    def lines(folder: Path) -> Iterator[str]:
        if options.oracles is not None:
            yield from oracles(options.oracles)
            return
        what = "made rows" if options.data is None else options.data.name
        yield f"# Facility location on {what}\n\nMachine: {options.machine}.\n"
        for width in options.widths if "peers" in options.only else []:
            x = rows_for(options.data, options.rows, width)
            yield from peers_section(x, round(options.share * len(x)), options.runs, options.peer_python, folder)
        if "large" in options.only:
            x = rows_for(options.data, options.large, options.widths[0])
            yield from large_section(x, round(options.share * len(x)), folder)

    with tempfile.TemporaryDirectory() as folder:
        for line in lines(Path(folder)):
            print(line, flush=True)
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main()
