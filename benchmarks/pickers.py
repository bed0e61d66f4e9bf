"""k-center against the plain loop, and k-means against faiss and scikit-learn: times, picks and inertia.

    python benchmarks/pickers.py [--data embeddings.npy] [--runs 5] [--only k_center,kmeans,growth] [--out FILE]

Without `--data`, rows are made to look like sentence embeddings: clusters of very unequal sizes, each flat in most
directions, on a common slope, scaled to length 1. Runs of what is compared alternate, so that a busy machine is busy
for all; figures are medians. Needs `pip install 'coretune[bench]'`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from coretune.partitions import choose_k, kmeans, nearest_center, powers_of_two
from coretune.pickers import k_center


def made_rows(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Unit rows in 400 clusters, sizes by a power law, within a space whose directions weigh less and less."""
    slope = (1 + np.arange(d)) ** -0.4
    sizes = (1 + np.arange(400)) ** -0.9
    own = rng.choice(400, size=n, p=sizes / sizes.sum())
    centers = rng.normal(size=(400, d)) * slope
    stretch = rng.lognormal(sigma=0.5, size=(400, d)) * slope
    x = (centers[own] + 1.3 * stretch[own] * rng.normal(size=(n, d))).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def timed(call: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def plain_loop(x: np.ndarray, k: int, start: int) -> list[int]:
    """Farthest-first as usually written: one product of the matrix with a row for each pick, in float32."""
    lengths = np.einsum("ij,ij->i", x, x)
    near, picks = np.full(len(x), np.inf, np.float32), [start]
    while len(picks) < k:
        near = np.minimum(near, lengths + lengths[picks[-1]] - 2 * (x @ x[picks[-1]]))
        near[picks[-1]] = -1
        picks.append(int(near.argmax()))
    return picks


def exact_loop(x: np.ndarray, k: int, start: int) -> list[int]:
    """The same by differences in float64, a block of rows at a time."""
    near, picks = np.full(len(x), np.inf), [start]
    while len(picks) < k:
        for i in range(0, len(x), 1024):
            away = x[i : i + 1024].astype(np.float64) - x[picks[-1]]
            near[i : i + 1024] = np.minimum(near[i : i + 1024], np.einsum("ij,ij->i", away, away))
        near[picks] = -1
        picks.append(int(near.argmax()))
    return picks


def inertia(x: np.ndarray, centers: np.ndarray) -> float:
    """The sum of squared distances of all rows to their nearest centre, exact, for whoever made the centres."""
    cell, total = nearest_center(x, centers), 0.0
    for i in range(0, len(x), 4096):
        away = x[i : i + 4096].astype(np.float64) - centers[cell[i : i + 4096]]
        total += float((away**2).sum())
    return total


def k_center_section(x: np.ndarray, k: int, runs: int) -> Iterator[str]:
    ours, plain = [], []
    for _ in range(runs):
        seconds, picked = timed(lambda: k_center(x, k).rows.tolist())
        ours.append(seconds)
        seconds, by_loop = timed(lambda first=picked[0]: plain_loop(x, k, first))
        plain.append(seconds)
    exact = exact_loop(x, k, picked[0])
    ratio = np.median(np.array(plain) / np.array(ours))
    yield f"## k-center: {k:,} picks of {len(x):,} x {x.shape[1]}, {runs} runs\n"
    yield "| | median seconds | fastest | places that differ from the exact loop |"
    yield "|---|---|---|---|"
    differ = [sum(a != b for a, b in zip(picks, exact, strict=True)) for picks in (picked, by_loop)]
    yield f"| `k_center` | {np.median(ours):.2f} | {min(ours):.2f} | {differ[0]} |"
    yield f"| plain numpy loop, float32 | {np.median(plain):.2f} | {min(plain):.2f} | {differ[1]} |"
    yield f"\nMedian of the ratios run by run: **{ratio:.1f}**; fastest against fastest {min(plain) / min(ours):.1f}.\n"


def faiss_means(x: np.ndarray, c: int, seed: int) -> np.ndarray:
    import faiss

    means = faiss.Kmeans(x.shape[1], c, niter=25, max_points_per_centroid=len(x), seed=seed)
    means.train(x)
    return means.centroids


def sklearn_means(x: np.ndarray, c: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(c, n_init=1, random_state=seed).fit(x).cluster_centers_.astype(np.float32)


def ours_watched(x: np.ndarray, c: int, seed: int) -> tuple[float, float, list[tuple[float, float]]]:
    """Seconds, inertia, and (seconds, inertia) after each pass over all rows."""
    passes: list[tuple[float, float]] = []
    start = time.perf_counter()
    made = kmeans(
        x, c, np.random.default_rng(seed), watch=lambda now: passes.append((time.perf_counter() - start, now))
    )
    return time.perf_counter() - start, float(made.inertia or 0), passes


def k_means_section(x: np.ndarray, c: int, runs: int) -> Iterator[str]:
    rows: dict[str, list[tuple[float, float, float]]] = {
        "faiss, all points, 25 passes": [],
        "scikit-learn, n_init=1": [],
    }
    ours = []
    for seed in range(runs):
        seconds, final, passes = ours_watched(x, c, seed)
        ours.append((seconds, final))
        for name, means in zip(rows, (faiss_means, sklearn_means), strict=True):
            theirs, centers = timed(lambda means=means, seed=seed: means(x, c, seed))
            target = inertia(x, np.asarray(centers))
            reached = next((at for at, now in passes if now <= target), seconds if final <= target else np.inf)
            rows[name].append((theirs, target, reached))
    yield f"## k-means: {c} cells, {len(x):,} x {x.shape[1]}, {runs} runs\n"
    yield "Medians. Each run of the others sets the inertia that our run with the same number must reach.\n"
    yield "| | seconds | inertia | seconds until ours is as low | runs that got there | ratio |"
    yield "|---|---|---|---|---|---|"
    seconds, final = np.median(np.array(ours), axis=0)
    yield f"| `kmeans`, whole run | {seconds:.2f} | {final:.1f} | | | |"
    for name, found in rows.items():
        theirs, target, reached = np.array(found).T
        yield (
            f"| {name} | {np.median(theirs):.2f} | {np.median(target):.1f} | {np.median(reached):.2f} | "
            f"{np.isfinite(reached).sum()} of {runs} | {np.median(theirs / reached):.1f} |"
        )
    yield ""


def growth_section(x: np.ndarray, k: int, runs: int) -> Iterator[str]:
    def slope(values: list[int], call: Callable[[int], object]) -> str:
        seconds = [np.median([timed(lambda value=value: call(value))[0] for _ in range(runs)]) for value in values]
        exponent = np.polyfit(np.log(values), np.log(seconds), 1)[0]
        return f"{', '.join(f'{v:,}: {s:.2f}' for v, s in zip(values, seconds, strict=True))} | **{exponent:.2f}**"

    sizes = [len(x) // 8, len(x) // 4, len(x) // 2, len(x)]
    rng = np.random.default_rng
    yield f"## Growth, {runs} runs each\n"
    yield "| | seconds | exponent |"
    yield "|---|---|---|"
    yield f"| `kmeans`, 64 cells, by rows | {slope(sizes, lambda n: kmeans(x[:n], 64, rng(0)))} |"
    cells = [32, 64, 128, 256, 512, 1024]
    yield f"| `kmeans`, {len(x):,} rows, by cells | {slope(cells, lambda c: kmeans(x, c, rng(0)))} |"
    yield f"| `k_center`, {k // 4:,} picks, by rows | {slope(sizes, lambda n: k_center(x[:n], k // 4))} |"
    picks = [k // 8, k // 4, k // 2, k]
    yield f"| `k_center`, {len(x):,} rows, by picks | {slope(picks, lambda m: k_center(x, m))} |"
    yield ""


def choice_section(x: np.ndarray, k: int) -> Iterator[str]:
    seconds, made = timed(lambda: choose_k(x, np.random.default_rng(0), grid=powers_of_two(len(x), k)))
    curve = made.notes["silhouette"]  # type: ignore[attr-defined]
    yield f"## choose_k, grid for a budget of {k:,}: {seconds:.1f} s, {curve['rows']:,} rows sampled, one run\n"
    yield "| cells | " + " | ".join(map(str, curve["clusters"])) + " |"
    yield "|---" * (1 + len(curve["clusters"])) + "|"
    for name in ("simplified", "without_cells", "corrected"):
        yield f"| {name.replace('_', ' ')} | " + " | ".join(f"{value:.4f}" for value in curve[name]) + " |"
    yield f"\nChosen: {curve['chosen']}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npy file of (n, d) float rows")
    parser.add_argument("--rows", type=int, default=52_002, help="rows made where there is no --data")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--picks", type=int, default=2_600)
    parser.add_argument("--cells", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="k_center,kmeans,growth,choice")
    parser.add_argument("--machine", default="2 cores, EPYC with AVX-512, shared")
    parser.add_argument("--out", type=Path, help="a markdown file to append to; without it, only the terminal")
    options = parser.parse_args()
    if options.data is None:
        x, what = made_rows(options.rows, options.width, np.random.default_rng(0)), "made rows"
    else:
        x, what = np.load(options.data, mmap_mode="r"), options.data.name
    x = np.ascontiguousarray(x, dtype=np.float32)

    def lines() -> Iterator[str]:
        yield f"# Pickers and partitions on {what}, {len(x):,} x {x.shape[1]}\n\nMachine: {options.machine}.\n"
        if "k_center" in options.only:
            yield from k_center_section(x, options.picks, options.runs)
        for c in options.cells if "kmeans" in options.only else []:
            yield from k_means_section(x, c, options.runs)
        if "growth" in options.only:
            yield from growth_section(x, options.picks, 3)
        if "choice" in options.only:
            yield from choice_section(x, options.picks)

    for line in lines():
        print(line, flush=True)
        if options.out is not None:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
