"""Embedding against the bare forward pass of the same encoder on the same batches, in float32 and bfloat16.

    python benchmarks/embedding.py pool.parquet [--rows 2048] [--repeats 5] [--threads 2] [--out FILE.md]

Bare: nothing but the transformer's forward pass over batches that were prepared beforehand. Ours: the feature's own
`measure` on the examples, so tokenising, batching, pooling, chunks and normalising too. The two, in both precisions,
take turns within each repeat, and ratios are taken within a repeat, so that other work on the machine weighs on both;
processor time besides, which other work hardly touches where waiting threads sleep (OMP_WAIT_POLICY=PASSIVE).
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from coretune.features._batches import batches
from coretune.features._texts import TEXTS
from coretune.features.embedding import Embedding, embed, load_into, pieces_of, room_for
from coretune.models import best_device, load_causal_lm, load_encoder
from coretune.pool import Example
from coretune.readers import read_pool


class Took(NamedTuple):
    """Seconds by the clock, and of the processors."""

    wall: float
    processor: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("pool")
    arguments.add_argument("--model", default="minilm")
    arguments.add_argument("--rows", type=int, default=2048, help="drawn from the pool")
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--threads", type=int, help="of torch; default: its own")
    arguments.add_argument("--out", type=Path, help="where the page is written, besides the terminal")
    given = arguments.parse_args()
    import torch

    if given.threads:
        torch.set_num_threads(given.threads)
    pool = read_pool(given.pool)
    rows = np.random.default_rng(0).choice(len(pool), size=min(given.rows, len(pool)), replace=False)
    examples = pool.examples(np.sort(rows))
    spec = Embedding(given.model, precision="float32").resolved()
    timed = {name: prepared(replace(spec, precision=name), examples) for name in ("float32", "bfloat16")}
    page = [f"# Embedding {given.model}: {Path(given.pool).name}, {len(examples)} rows drawn from it", ""]
    page += [machine(torch.get_num_threads()), "", shapes(timed["float32"]["batches"]), ""]
    page += table(measure_in_turns(timed, given.repeats), len(examples))
    page += ["", f"Smallest cosine between the vectors of both: {cosine(timed):.5f}."]
    print("\n".join(page))
    if given.out:
        given.out.write_text("\n".join(page) + "\n", encoding="utf-8")


def prepared(spec: Embedding, examples: list[Example]) -> dict[str, Any]:
    """Both ways of one precision as functions without arguments, and the batches of the bare one."""
    import torch

    device = best_device()
    encoder = load_into(spec, device)
    room, texts = room_for(spec, encoder), [TEXTS[spec.text](example) for example in examples]
    pieces, _ = pieces_of(encoder.tokenise(texts), encoder, room, cut=False)
    made = list(batches(pieces, spec.max_tokens or room, spec.batch_tokens or 1, encoder.pad))
    bare = forward(spec, device)
    on_device = [(torch.from_numpy(each.ids).to(device), torch.from_numpy(each.mask).to(device)) for each in made]

    def all_bare() -> None:
        with torch.inference_mode():
            for ids, mask in on_device:
                bare(ids, mask)
        if device == "cuda":
            torch.cuda.synchronize()

    return {"batches": made, "bare": all_bare, "ours": lambda: embed(spec, encoder, room, texts).values}


def forward(spec: Embedding, device: str) -> Callable[[Any, Any], Any]:
    """The bare transformer of a model."""
    dtype, name = spec.precision or "float32", spec.path or spec.model
    if name.endswith(".gguf"):
        body = load_causal_lm(name, dtype=dtype, device=device).base_model
        return lambda ids, mask: body(input_ids=ids, use_cache=False)
    transformer = load_encoder(name, dtype=dtype, device=device)[0].auto_model
    return lambda ids, mask: transformer(input_ids=ids, attention_mask=mask.long())


def measure_in_turns(timed: dict[str, dict[str, Any]], repeats: int) -> dict[str, list[tuple[Took, Took]]]:
    """What each repeat took (bare, ours); one turn before is not counted, as first calls of a shape are slow."""
    seconds: dict[str, list[tuple[Took, Took]]] = {name: [] for name in timed}
    for repeat in range(repeats + 1):
        for name, ways in timed.items():
            order = ("bare", "ours") if repeat % 2 else ("ours", "bare")
            took = {way: clock(ways[way]) for way in order}
            if repeat:
                seconds[name].append((took["bare"], took["ours"]))
    return seconds


def clock(fn: Callable[[], Any]) -> Took:
    wall, processor = time.perf_counter(), time.process_time()
    fn()
    return Took(time.perf_counter() - wall, time.process_time() - processor)


def table(seconds: dict[str, list[tuple[Took, Took]]], rows: int) -> list[str]:
    lines = [
        "| precision | rows/s | rows/s of processor | of bare, by the clock | of bare, processor time | repeats |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name, pairs in seconds.items():
        by_clock, by_processor = ([getattr(b, kind) / getattr(o, kind) for b, o in pairs] for kind in Took._fields)
        shown = ", ".join(f"{one:.2f}/{other:.2f}" for one, other in zip(by_clock, by_processor, strict=True))
        wall, processor = (median(getattr(ours, kind) for _, ours in pairs) for kind in Took._fields)
        lines.append(
            f"| {name} | {rows / wall:.1f} | {rows / processor:.1f} "
            f"| {median(by_clock):.3f} | {median(by_processor):.3f} | {shown} |"
        )
    exact, rough = ([ours for _, ours in seconds[name]] for name in ("float32", "bfloat16"))
    faster = [
        median(getattr(e, kind) / getattr(r, kind) for e, r in zip(exact, rough, strict=True)) for kind in Took._fields
    ]
    return [
        *lines,
        "",
        f"bfloat16 is {faster[0]:.2f} times as fast as float32 by the clock, {faster[1]:.2f} times in processor time "
        f"(medians of {len(exact)} repeats).",
    ]


def shapes(made: list[Any]) -> str:
    tokens, places = sum(int(each.mask[: len(each.pieces)].sum()) for each in made), sum(each.ids.size for each in made)
    widths = len({each.ids.shape for each in made})
    return (
        f"{len(made)} batches of {widths} shapes: {tokens:,} tokens in {places:,} places ({places / tokens:.3f} times)."
    )


def cosine(timed: dict[str, dict[str, Any]]) -> float:
    exact, rough = (timed[name]["ours"]().astype(np.float64) for name in ("float32", "bfloat16"))
    return float(np.nanmin((exact * rough).sum(axis=1)))


def machine(threads: int) -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{model}, {threads} threads, {best_device()}; Python {platform.python_version()}."


if __name__ == "__main__":
    main()
