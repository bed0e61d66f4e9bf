"""Matching pursuit against scikit-learn, a plain pivoted Cholesky, and the rule of TAGCOS's authors.

    python benchmarks/omp.py [--n 10000 40000] [--d 512 8192] [--share 0.05 | --k 500] [--cells 20] [--runs 5]
        [--data X.npy] [--only omp,scikit-learn] [--threads 2] [--device cuda] [--out FILE.md] [--json FILE.json]
    python benchmarks/omp.py --oracles DIR

Target: the mean of the rows. Every call is in a process of its own, which loads the rows first and tries the contender
on a few of them; contenders take turns within each run, so that other work on the machine weighs on all, and ratios
are taken within a run. Memory is the peak beyond what the process held before the call. scikit-learn's Gram matrix is
part of its time, made by one product and given to it without a copy. The authors' rule is written here as their
program computes it: the normal matrix anew and a least-squares solution of it at every pick. Contenders over --limit
seconds are left out from then on.

With --cells, rows are first put into cells by k-means, quotas are in proportion, the target of a cell is its mean, and
only cells with a quota of ten or more count. With --oracles, stored outputs of the authors' program are compared with
`omp_restarts`, round by round.

Rows are made unless --data gives an (n, d) array: unit rows in 400 clusters. Needs `pip install 'coretune[bench]'`, and
torch for the authors' rule and tensors.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from coretune.partitions import kmeans, proportional
from coretune.pickers import nonnegative_omp, omp, omp_restarts
from coretune.pickers._pursuit_loop import compiled_walk
from coretune.pickers.omp_restarts import a_round
from coretune.pickers.weights import nonnegative_refit, refit

Pick = Callable[[Any, np.ndarray, int, float], Any]
LEAST = 10  # picks of a cell that counts


def made_rows(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Unit rows in 400 clusters, sizes by a power law, within a space whose directions weigh less and less."""
    slope = ((1 + np.arange(d)) ** -0.4).astype(np.float32)
    sizes = (1 + np.arange(400)) ** -0.9
    own = rng.choice(400, size=n, p=sizes / sizes.sum())
    centers = rng.normal(size=(400, d)).astype(np.float32) * slope
    stretch = rng.lognormal(sigma=0.5, size=(400, d)).astype(np.float32) * slope
    x = np.empty((n, d), np.float32)
    for i in range(0, n, 4096):
        cell = own[i : i + 4096]
        x[i : i + 4096] = centers[cell] + 1.3 * stretch[cell] * rng.standard_normal((len(cell), d), np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def plain_cholesky(x: np.ndarray, target: np.ndarray, k: int, ridge: float) -> list[int]:
    """Pivoted Cholesky as usually written, in float32: a column of the Gram matrix and all factors at each pick."""
    factors, scores = np.zeros((len(x), k), np.float32), x @ target
    free, picks = np.ones(len(x), bool), []
    for t in range(k):
        row = int(np.where(free, scores, -np.inf).argmax())
        column = x @ x[row] - factors[:, :t] @ factors[row, :t]
        pivot = np.sqrt(max(column[row] + ridge, 1e-12))
        column /= pivot
        column[row] = pivot
        scores -= scores[row] / pivot * column
        factors[:, t], free[row] = column, False
        picks.append(row)
    return picks


def scikit_learn(x: np.ndarray, target: np.ndarray, k: int, ridge: float) -> list[int]:
    from sklearn.linear_model import orthogonal_mp_gram

    gram = x @ x.T
    gram.flat[:: len(x) + 1] += ridge
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it ends early where rows depend on each other
        found = orthogonal_mp_gram(gram.T, x @ target, n_nonzero_coefs=k, copy_Gram=False)
    return np.flatnonzero(found).tolist()


def authors_round(x: Any, target: Any, k: int, ridge: float) -> Any:
    """One round of their rule: a weight for every row."""
    import torch

    def solved() -> Any:
        normal = rows @ rows.T + ridge * torch.eye(len(rows))
        return torch.linalg.lstsq(normal, (rows @ target)[:, None]).solution[:, 0]

    residual, picks, weights, rows = target.clone(), [], torch.zeros(0), x[:0]
    for _ in range(k):
        if residual.norm().item() / target.norm().item() < 1e-4:
            break
        products = x @ residual
        row = torch.argmax(products)
        if row in picks:
            break
        picks.append(row)
        rows = torch.cat([rows, x[row][None]])
        newest_gone = False
        if len(picks) == 1:
            weights = (products[row] / (x[row] @ x[row]))[None]
        else:
            weights = solved()
            while min(weights) < 0:
                worst = int(weights.argmin())
                del picks[worst]
                rows = torch.cat([rows[:worst], rows[worst + 1 :]])
                newest_gone = worst == len(rows)
                if newest_gone:
                    break
                weights = solved()
        if newest_gone:
            break
        residual = target - rows.T @ weights
    found = torch.zeros(len(x))
    for row, weight in zip(picks, weights, strict=False):
        found[row] += weight
    return found


def authors(x: np.ndarray, target: np.ndarray, k: int, ridge: float) -> list[int]:
    """Their rounds, on the rows left each time."""
    import torch

    left, rows, aim, picks = np.arange(len(x)), torch.from_numpy(x), torch.from_numpy(target), []
    while k > 0:
        some = authors_round(rows, aim, k, ridge).abs() > 0
        if not some.any():
            break
        picks += left[some.numpy()].tolist()
        k -= int(some.sum())
        left, rows = left[~some.numpy()], rows[~some]
    return picks


def compiled(x: np.ndarray, target: np.ndarray, k: int, ridge: float) -> list[int]:
    """`omp` as it runs once numba's loop is loaded, which the try on a few rows does."""
    if compiled_walk() is None:
        raise SystemExit("compiled omp needs numba")
    return omp(x, target, k, ridge=ridge).rows.tolist()


CONTENDERS: dict[str, Pick] = {
    "omp": lambda x, target, k, ridge: omp(x, target, k, ridge=ridge).rows.tolist(),
    "compiled omp": compiled,
    "omp, absolute products": lambda x, target, k, ridge: omp(x, target, k, ridge=ridge, positive=False).rows.tolist(),
    "nonnegative_omp": lambda x, target, k, ridge: nonnegative_omp(x, target, k, ridge=ridge).rows.tolist(),
    "omp_restarts": lambda x, target, k, ridge: omp_restarts(x, target, k, ridge=ridge).rows.tolist(),
    "plain pivoted Cholesky": plain_cholesky,
    "scikit-learn": scikit_learn,
    "authors' program": authors,
}


def in_cells(pick: Pick, x: Any, cell: np.ndarray, quota: np.ndarray, ridge: float) -> tuple[float, list[int]]:
    """Seconds, and the picks of every cell as rows of x; gathering a cell's rows is not counted."""
    seconds, picks = 0.0, []
    for c in np.flatnonzero(quota):
        rows = np.flatnonzero(cell == c)
        own = x[rows]
        target = np.asarray(own.mean(0).tolist(), np.float32)
        start = time.perf_counter()
        found = pick(own, target, int(quota[c]), ridge)
        seconds += time.perf_counter() - start
        picks += rows[found].tolist()
    return seconds, picks


def resident() -> int:
    """Bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def one_call(folder: Path, name: str, ridge: float, device: str | None) -> None:
    """In a process of its own: one contender, and what it took, as JSON."""
    x = np.load(folder / "x.npy")
    cell, quota = np.load(folder / "cell.npy"), np.load(folder / "quota.npy")
    if device is not None:
        import torch

        x = torch.from_numpy(x).to(device)
        torch.zeros(8, 8, device=device) @ torch.zeros(8, 8, device=device)
    pick = CONTENDERS[name]
    pick(x[:600], np.asarray(x[:600].mean(0).tolist(), np.float32), 4, ridge)
    before = resident()
    seconds, picks = in_cells(pick, x, cell, quota, ridge)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "bytes": max(0, peak - before), "picks": picks}))


def called(folder: Path, name: str, options: argparse.Namespace, device: str | None) -> dict[str, Any] | None:
    """What one contender took, or None where it took too long."""
    command = [sys.executable, __file__, "--contender", name, "--folder", str(folder), "--ridge", str(options.ridge)]
    environment = dict(os.environ) | ({"OMP_NUM_THREADS": str(options.threads)} if options.threads else {})
    command += ["--device", device] if device else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=options.limit)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def left_over(x: np.ndarray, cell: np.ndarray, quota: np.ndarray, picks: list[int], ridge: float) -> list[float]:
    """What is left of the targets, relative, over all cells: with weights of any sign and with none below zero."""
    chosen, left, whole = np.array(picks), np.zeros(2), 0.0
    for c in np.flatnonzero(quota):
        own = np.flatnonzero(cell == c)
        target = x[own].mean(axis=0, dtype=np.float64)
        rows = chosen[cell[chosen] == c]
        atoms = x[rows].astype(np.float64)
        for i, weigh in enumerate((refit, nonnegative_refit)):
            left[i] += np.square(target - weigh(atoms, target, np.arange(len(rows)), ridge=ridge) @ atoms).sum()
        whole += float(target @ target)
    return np.sqrt(left / whole).tolist()


def section(x: np.ndarray, options: argparse.Namespace, results: list[dict[str, Any]]) -> Iterator[str]:
    n, d = x.shape
    k = options.k or round(options.share * n)
    cell, quota = np.zeros(n, np.int64), np.array([k])
    if options.cells > 1:
        cell = kmeans(x, options.cells, np.random.default_rng(0)).cell.astype(np.int64)
        quota = proportional(np.bincount(cell, minlength=options.cells), k)
        quota[quota < LEAST] = 0
    took: dict[str, list[dict[str, Any]]] = {}
    names = [(name, name, None) for name in CONTENDERS if options.only is None or name in options.only.split(",")]
    names += [(f"omp on {options.device}", "omp", options.device)] if options.device else []
    with tempfile.TemporaryDirectory(dir=options.work) as place:
        folder = Path(place)
        np.save(folder / "x.npy", x), np.save(folder / "cell.npy", cell), np.save(folder / "quota.npy", quota)
        for _ in range(options.runs):
            for title, name, device in list(names):
                found = called(folder, name, options, device)
                if found is None:
                    names.remove((title, name, device))
                else:
                    took.setdefault(title, []).append(found)
    split = (
        f", {np.count_nonzero(quota)} cells with {quota[quota > 0].min()} picks or more" if options.cells > 1 else ""
    )
    yield f"## {quota.sum():,} of {n:,} x {d}, ridge {options.ridge:g}{split}; {options.runs} runs\n"
    yield "| | median seconds | fastest | times omp | MiB | left, any sign | left, none negative | picks as omp |"
    yield "|---|---|---|---|---|---|---|---|"
    ours = took.get("omp", [])
    for title, calls in took.items():
        seconds, picks = [one["seconds"] for one in calls], calls[0]["picks"]
        line = {
            "n": n,
            "d": d,
            "cells": int(np.count_nonzero(quota)),
            "ridge": options.ridge,
            "contender": title,
            "seconds": seconds,
            "bytes": max(one["bytes"] for one in calls),
            "left": left_over(x, cell, quota, picks, options.ridge),
            "picks": len(picks),
            "shared": len({*picks} & {*ours[0]["picks"]}) if ours else None,
            "times": float(np.median([a / b["seconds"] for a, b in zip(seconds, ours, strict=False)]))
            if ours
            else None,
        }
        results.append(line)
        times = f"{line['times']:.1f}" if ours else ""
        yield (
            f"| {title} | {np.median(seconds):.3f} | {min(seconds):.3f} | {times} | {line['bytes'] / 2**20:,.0f} | "
            f"{line['left'][0]:.5f} | {line['left'][1]:.5f} | {line['shared']} of {len(picks)} |"
        )
    over = [name for name in CONTENDERS if name not in took and (not options.only or name in options.only.split(","))]
    yield f"\nOver {options.limit:g} s: {', '.join(over)}.\n" if over else ""


def oracle_section(folder: Path) -> Iterator[str]:
    """Stored outputs of the authors' program against `omp_restarts`."""
    yield "## The authors' stored outputs\n"
    yield "| file | picks by round, theirs | ours | same rows | largest difference of a weight |"
    yield "|---|---|---|---|---|"
    for path in sorted(folder.glob("tagcos_omp_*.json")):
        stored, arrays = json.loads(path.read_text(encoding="utf-8")), np.load(path.with_suffix(".npz"))
        x, target, left = arrays["atoms"], arrays["target"], stored["budget"]
        free, sizes, differ, same = np.ones(len(x), bool), [], 0.0, True
        for theirs in stored["rounds"]:
            found = a_round(x, target, left, free, ridge=stored["ridge"], tolerance=stored["tol"])
            free[found.rows], left = False, left - len(found.rows)
            sizes.append(len(found.rows))
            order = np.argsort(found.rows)
            agree = found.rows[order].tolist() == [row for row, _ in theirs]
            same = same and agree
            if agree:
                differ = max(differ, float(np.abs(found.weights[order] - [weight for _, weight in theirs]).max()))
        yield f"| {path.stem} | {[len(one) for one in stored['rounds']]} | {sizes} | {same} | {differ:.1e} |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--d", type=int, nargs="+", default=[512, 8192])
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--k", type=int, help="instead of a share")
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--ridge", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds of one call")
    parser.add_argument("--data", type=Path, help="an .npy file of (n, d) float rows")
    parser.add_argument("--only", help="contenders, with commas between")
    parser.add_argument("--threads", type=int, help="of the linear algebra; default: its own")
    parser.add_argument("--device", help="also try omp on a tensor on this device")
    parser.add_argument("--work", type=Path, help="where rows are put for the contenders")
    parser.add_argument("--oracles", type=Path)
    parser.add_argument("--machine", default="2 cores, EPYC with AVX-512, shared")
    parser.add_argument("--out", type=Path, help="a markdown file to append to; without it, only the terminal")
    parser.add_argument("--json", type=Path, help="the figures as JSON")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        one_call(options.folder, options.contender, options.ridge, options.device)
        return
    results: list[dict[str, Any]] = []

    def lines() -> Iterator[str]:
        if options.oracles is not None:
            yield from oracle_section(options.oracles)
            return
        what = "made rows" if options.data is None else options.data.name
        yield f"# Matching pursuit on {what}\n\nMachine: {options.machine}.\n"
        if options.data is not None:
            yield from section(np.load(options.data).astype(np.float32), options, results)
            return
        for n in options.n:
            for d in options.d:
                yield from section(made_rows(n, d, np.random.default_rng(0)), options, results)

    for line in lines():
        print(line, flush=True)
        if options.out is not None:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
