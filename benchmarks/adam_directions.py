"""What Adam's second moments do to gradient features: their size after warm-up, and what the three directions select.

    python benchmarks/adam_directions.py POOL --target FILE [--model smollm2-135m] [--rows 300] [--budget 10%]
        [--learning-rates 2e-5,2e-4] [--select-at 2e-5] [--seeds 0,1] [--max-tokens 192] [--workers N] [--store DIR]
        [--out FILE]

For each learning rate: TAGCOS' warm-up, the share of second moments below the 1e-8 that LESS adds inside the root, the
correlation of cosines between rows under each two directions, as they are and without what all rows share; for rates in
`--select-at`, the overlap of what TAGCOS and LESS then choose, beside the overlap of seeds of one direction (other
warm-up rows, factors, clusters) and of random choices. Everything goes through a store.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from coretune.engines import engine_for
from coretune.errors import Unmeasurable
from coretune.features.answer_tokens import AnswerTokens
from coretune.features.lora_gradient import AdapterAt, LoraGradient
from coretune.lab import Lab
from coretune.methods._warm_up import warm_up
from coretune.methods.less import Less
from coretune.methods.tagcos import Tagcos
from coretune.pool import Pool
from coretune.readers import read_pool
from coretune.rounds import run
from coretune.selection import Budget
from coretune.tuning import Checkpoint, Tuned

DIRECTIONS = ("none", "adam", "less")
EPS = 1e-8


def short_rows(pool: Pool, model: str, lab: Lab, rows: int, seed: int = 0) -> Pool:
    """`rows` rows of the pool, drawn at random, whose answers can be counted."""
    try:
        counts = lab.features(AnswerTokens(model), pool).array()
    except Unmeasurable as error:
        pool = pool.subset(np.setdiff1d(np.arange(len(pool)), error.rows))
        counts = lab.features(AnswerTokens(model), pool).array()
    fine = np.flatnonzero(counts > 0)
    return pool.subset(np.sort(np.random.default_rng(seed).permutation(fine)[:rows]))


def moments(checkpoint: Checkpoint) -> Iterator[str]:
    """A line for each kind of factor: the second moments after warm-up, as stored and with bias corrected."""
    state = load_file(checkpoint.path / "optimizer.safetensors")
    corrected = 1 - 0.999**checkpoint.step
    found = {
        kind: np.concatenate(
            [t.ravel() for name, t in state.items() if name.startswith("exp_avg_sq.") and kind in name]
        )
        for kind in ("lora_A", "lora_B")
    }
    whole = sum(v.sum(dtype=np.float64) for v in found.values())
    for kind, v in found.items():
        low, mid, high = np.quantile(v, [0.05, 0.5, 0.95])
        mine, above = v.sum(dtype=np.float64), v[v >= EPS].sum(dtype=np.float64)
        below, below_corrected = np.mean(v < EPS), np.mean(v / corrected < EPS)
        yield (
            f"| {checkpoint.step} | {kind} | {len(v):,} | {below:.4f} | {below_corrected:.4f} | "
            f"{low:.1e} | {mid:.1e} | {high:.1e} | {np.quantile(np.sqrt(v + EPS), 0.95) / 1e-4:.3f} | "
            f"{mine / whole:.5f} | {above / mine:.3f} |"
        )


def directed(model: str, tuned: Tuned, pool: Pool, lab: Lab, max_tokens: int) -> dict[str, np.ndarray]:
    """For each direction, the unit rows at the last checkpoint."""
    last = tuned.checkpoints[-1]
    at = (AdapterAt(last.digest, str(last.path)),)
    return {
        direction: lab.features(LoraGradient(model, at, direction, 8192, max_tokens=max_tokens), pool)
        .array()
        .astype(np.float32)
        for direction in DIRECTIONS
    }


def cosines(x: np.ndarray, *, centred: bool) -> np.ndarray:
    """The cosines of all pairs of rows; centred, without what is common to all rows."""
    x = x - x.mean(axis=0) if centred else x
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return (x @ x.T)[np.triu_indices(len(x), 1)]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The share of one choice that is in another of the same size."""
    return len(np.intersect1d(one, other)) / len(one)


def chosen(kind: str, options: dict[str, object], pool: Pool, budget: str, lab: Lab, seed: int) -> np.ndarray:
    method = (Tagcos if kind == "tagcos" else Less)(**options)  # type: ignore[arg-type]
    return run(method, pool, Budget.parse(budget), lab, seed=seed).selection.rows


def selections(args: argparse.Namespace, pool: Pool, target: Pool, lab: Lab, rate: float) -> Iterator[str]:
    """Lines of overlaps of selections, with the paper's learning rate or another."""
    base = {"model": args.model, "max_tokens": args.max_tokens}
    share = 1.0
    for kind in ("tagcos", "less"):
        picks: dict[tuple[str, int], np.ndarray] = {}
        for direction in DIRECTIONS:
            for seed in args.seeds:
                options = {**base, "direction": direction} | ({"target": target} if kind == "less" else {})
                with learning_rate(kind, rate):
                    picks[direction, seed] = chosen(kind, options, pool, args.budget, lab, seed)
        for one, other in combinations(DIRECTIONS, 2):
            same = [overlap(picks[one, seed], picks[other, seed]) for seed in args.seeds]
            yield f"| {kind} | {one} / {other} | {np.mean(same):.2f} ({min(same):.2f} to {max(same):.2f}) |"
        for one in DIRECTIONS:
            pairs = [overlap(picks[one, a], picks[one, b]) for a, b in combinations(args.seeds, 2)]
            yield f"| {kind} | {one}, other seed | {np.mean(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f}) |"
        share = len(picks["none", 0]) / len(pool)
    yield f"| random | expected | {share:.2f} |"


class learning_rate:
    """Within the block, warm-ups of a method take another learning rate."""

    def __init__(self, kind: str, rate: float) -> None:
        self.kind, self.rate = (Tagcos if kind == "tagcos" else Less), rate

    def __enter__(self) -> None:
        self.plain = self.kind._tuning
        plain, rate = self.plain, self.rate
        self.kind._tuning = lambda *args: replace(plain(*args), learning_rate=rate)  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        self.kind._tuning = self.plain  # type: ignore[method-assign]


def section(args: argparse.Namespace, pool: Pool, target: Pool, lab: Lab, rate: float) -> Iterator[str]:
    tagcos = Tagcos(args.model, max_tokens=args.max_tokens)
    warm_rng = np.random.default_rng(0).spawn(3)[0]
    tuned = warm_up(replace(tagcos._tuning(len(pool)), learning_rate=rate), 0.05, pool, lab, warm_rng)
    yield f"\n## Learning rate {rate:g}, checkpoints after {[each.step for each in tuned.checkpoints]} steps\n"
    yield (
        "| step | factor | entries | v < 1e-8 | bias-corrected v < 1e-8 | v 5% | v 50% | v 95% | 95% of root / 1e-4 | "
        "share of all v | of it above 1e-8 |"
    )
    yield "|" + " --- |" * 11
    for checkpoint in tuned.checkpoints:
        yield from moments(checkpoint)
    rows = directed(args.model, tuned, pool, lab, args.max_tokens)
    yield "\n| directions, last checkpoint | correlation of cosines between rows | the same, centred | mean cosine |"
    yield "| --- | --- | --- | --- |"
    plain, centred = ({name: cosines(x, centred=each) for name, x in rows.items()} for each in (False, True))
    for one, other in combinations(DIRECTIONS, 2):
        both = [np.corrcoef(found[one], found[other])[0, 1] for found in (plain, centred)]
        means = f"{plain[one].mean():.3f} / {plain[other].mean():.3f}"
        yield f"| {one} / {other} | {both[0]:.3f} | {both[1]:.3f} | {means} |"
    if rate not in args.select_at:
        return
    yield "\n| method | selections under | share in common: mean (range) |"
    yield "| --- | --- | --- |"
    yield from selections(args, pool, target, lab, rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool")
    parser.add_argument("--target", required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--budget", default="10%")
    parser.add_argument("--learning-rates", default="2e-5,2e-4")
    parser.add_argument("--select-at", type=lambda said: [float(each) for each in said.split(",")], default=[2e-5])
    parser.add_argument("--seeds", type=lambda said: [int(each) for each in said.split(",")], default=[0, 1])
    parser.add_argument("--workers", type=int)
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with engine_for(args.workers) as engine:
        lab = Lab(args.store, map=engine, progress=lambda *said: print("\r", *said, end="  ", flush=True))
        pool = short_rows(read_pool(args.pool), args.model, lab, args.rows)
        target = read_pool(args.target)
        lines = [f"# Adam's directions: {args.model}, {len(pool)} rows of {Path(args.pool).name}, budget {args.budget}"]
        for rate in map(float, args.learning_rates.split(",")):
            for line in section(args, pool, target, lab, rate):
                print("\n" + line.strip("\n"), flush=True)
                lines.append(line)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
