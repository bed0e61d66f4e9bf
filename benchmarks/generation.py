"""Answers a second: ours, with rows that join and leave, against the model's own `generate` on the same prompts.

    python benchmarks/generation.py [--model smollm2-135m] [--prompts 48] [--tokens 96] [--rows 32] [--alone 3]
        [--runs 2] [--precision float32] [--threads 1] [--clock processor] [--exact 0]
        [--ways ours,bare,...] [--out FILE]

On the same prompts of Dolly, in the model's chat template, greedy, with the same tokens that end answers:

- ours: all prompts; a row that ends gives its place to the next prompt.
- dropped: ours on one batch of prompts after the other; rows that end are let go of, and none joins.
- bare: the model's own `generate`, on batches of as many prompts, sorted by length, padded on the left.
- alone: the model's own `generate`, one prompt at a time (`--alone` prompts, spread over all lengths).
- ours full, bare full: one batch in which no answer ends before the last token, so that both do the same work.

Rates are tokens of answers, up to the one that ends each, a second of the processor (or of the wall, which several
threads need, on a machine where nothing else runs): prompts and all that `generate` computes for rows that have ended
count as time. Ways take turns within a run; ratios are taken within a run.

`--exact` prompts are written by ours and one at a time, and their tokens compared.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from coretune.data import DEMO_POOL
from coretune.features._prompts import Prompts, prompt_tokenizer
from coretune.features._writing import Answer, Writer
from coretune.features.generation import Generation, writer_of
from coretune.readers import read_pool

LONGEST = 160  # tokens of a prompt


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    options = {"max_new_tokens": given.tokens, "precision": given.precision, "batch_rows": given.rows}
    spec = Generation(given.model, batch_tokens=1 << 20, **options).resolved()
    tokenizer = prompt_tokenizer(spec.model, None, False)
    writer, prompts = writer_of(spec, tokenizer), prompts_of(Prompts(tokenizer, LONGEST, False), given.prompts)
    lines = [f"# Answers of {given.model} in {given.precision}", "", machine(), ""]
    widths = [len(prompt) for prompt in prompts]
    lines += [
        f"{len(prompts)} prompts of {min(widths)} to {max(widths)} tokens ({sum(widths)} together), up to "
        f"{given.tokens} tokens an answer, {given.rows} rows at a time, {given.runs} runs.",
        "",
        *rates_table(writer, prompts, given),
    ]
    if given.exact:
        lines += ["", exactness(writer, prompts[:: max(1, len(prompts) // given.exact)][: given.exact])]
    page = "\n".join(lines) + "\n"
    print(page)
    if given.out:
        given.out.write_text(page, encoding="utf-8")


def prompts_of(make: Prompts, count: int) -> list[list[int]]:
    """Prompts of the first records that fit, in the order of the file."""
    found: list[list[int]] = []
    for example in read_pool(DEMO_POOL):
        ids, cut = make.of(example)
        if not cut:
            found.append(ids)
        if len(found) == count:
            break
    return found


def batches(prompts: Sequence[list[int]], rows: int) -> Iterator[list[list[int]]]:
    """Prompts sorted by length, so many at a time."""
    longest_first = sorted(prompts, key=lambda prompt: -len(prompt))
    for start in range(0, len(prompts), rows):
        yield longest_first[start : start + rows]


def ours(writer: Writer, prompts: Sequence[list[int]]) -> list[list[int]]:
    """Tokens of all answers."""
    answers = [Answer(prompt) for prompt in prompts]
    writer.write(answers)
    return [answer.tokens for answer in answers]


def dropped(writer: Writer, prompts: Sequence[list[int]]) -> list[list[int]]:
    """Tokens of all answers, batch after batch."""
    return [tokens for batch in batches(prompts, writer.rows) for tokens in ours(writer, batch)]


def bare(writer: Writer, prompts: Sequence[list[int]], rows: int) -> list[list[int]]:
    """Tokens of all answers by the model's own `generate`."""
    found, ends = [], sorted(writer.ends)
    for batch in batches(prompts, rows):
        width = max(map(len, batch))
        ids, mask = torch.zeros(2, len(batch), width, dtype=torch.int64, device=writer.model.device)
        for row, prompt in enumerate(batch):
            ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = torch.tensor(prompt), 1
        until: dict[str, Any] = {"eos_token_id": ends} if ends else {"min_new_tokens": writer.most}
        with torch.inference_mode():
            out = writer.model.model.generate(
                ids, attention_mask=mask, max_new_tokens=writer.most, do_sample=False, pad_token_id=0, **until
            )
        for row in out[:, width:].tolist():
            end = next((place for place, token in enumerate(row) if token in writer.ends), len(row) - 1)
            found.append(row[: end + 1])
    return found


def rates_table(writer: Writer, prompts: Sequence[list[int]], given: argparse.Namespace) -> list[str]:
    """Tokens a second of each way, and ratios."""
    clock = {"processor": time.process_time, "wall": time.perf_counter}[given.clock]
    endless, one_batch = replace(writer, ends=frozenset(), most=min(48, writer.most)), prompts[: given.rows]
    few = sorted(prompts, key=len)[given.alone // 2 :: max(1, len(prompts) // given.alone)][: given.alone]
    ways: dict[str, Callable[[], list[list[int]]]] = {
        "ours": lambda: ours(writer, prompts),
        "bare": lambda: bare(writer, prompts, given.rows),
        "alone": lambda: bare(writer, few, 1),
        "dropped": lambda: dropped(writer, prompts),
        "ours full": lambda: ours(endless, one_batch),
        "bare full": lambda: bare(endless, one_batch, given.rows),
    }
    ways = {way: write for way, write in ways.items() if not given.ways or way in given.ways.split(",")}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for run in range(given.runs):
        order = list(ways) if run % 2 == 0 else list(ways)[::-1]
        for way in order:
            began = clock()
            written = ways[way]()
            rates[way].append(sum(map(len, written)) / (clock() - began))
    lines = ["| way | tokens/s | ours by it | each run |", "|---|---:|---:|---|"]
    for way in ways:
        mine = rates["ours full" if way.endswith("full") else "ours"]
        ratios = [one / other for one, other in zip(mine, rates[way], strict=True)]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        lines.append(f"| {way} | {median(rates[way]):.0f} | {median(ratios):.2f} | {each} |")
    return lines


def exactness(writer: Writer, prompts: Sequence[list[int]]) -> str:
    """How many answers have the very tokens that each has by itself."""
    together = ours(writer, prompts)
    same = sum(bare(writer, [prompt], 1) == [tokens] for prompt, tokens in zip(prompts, together, strict=True))
    tokens = sum(map(len, together))
    return f"{same} of {len(prompts)} answers, {tokens} tokens, are those of `generate` one at a time, token by token."


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    wanted = f"{os.getloadavg()[0]:.1f} processes wanted a core at the start"
    return f"{name}, {torch.get_num_threads()} threads; {versions}; {wanted}."


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--alone", type=int, default=3)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("processor", "wall"), default="processor")
    parser.add_argument("--exact", type=int, default=0)
    parser.add_argument("--ways", help="these alone, ours among them; none is all")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
