"""What selection inside training costs beside the training itself, and beside the model's own bare work.

    python benchmarks/rounds.py [--model smollm2-135m] [--steps 8] [--rows 8] [--rank 64] [--passes 24] [--runs 3]
        [--tokens 48] [--precision bfloat16] [--threads 1] [--only lead,states,answers] [--out FILE]

- lead: processor seconds of an optimizer step of a tuning whose rows LEAD chooses, against one of the same tuning
  without: the same model, rows, lengths and number of steps. Chosen and learned together are the whole overhead.
- states: DiverseEvol's pass over the pool (tokenizing, batching, pooling) against the bare body on the same batches.
- losses: iterative kMQ's perplexities of answers (tokenizing, batching) against the bare model, head at answers alone.
- answers: iterative kMQ's answers by a tuned model against that model's own `generate` on batches sorted by length.

Ratios are taken within a run, ways take turns in it; medians over runs. Above 1 is overhead.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from coretune.data import DEMO_POOL
from coretune.features._answer_losses import causal_of, fineness
from coretune.features._batches import Batch, batches
from coretune.features._conversations import conversations
from coretune.features._prompts import Prompts, prompt_tokenizer
from coretune.features.answer_token_losses import AnswerTokenLosses
from coretune.features.generation import Generation, writer_of, written
from coretune.features.mean_states import MeanStates
from coretune.lab import Lab
from coretune.orders.lead import Lead
from coretune.pool import Pool
from coretune.readers import read_pool
from coretune.tuning import Tuning

LONGEST = 512  # tokens of a conversation
PROMPT = 160  # tokens of a prompt that is answered


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    pool = read_pool(DEMO_POOL)
    parts: dict[str, Callable[[Any, Pool], str]] = {
        "lead": lead_line,
        "states": states_line,
        "losses": losses_line,
        "answers": answers_line,
    }
    wanted = given.only.split(",") if given.only else list(parts)
    lines = [
        f"# Selection inside training, {given.model}",
        "",
        machine(given.threads),
        "",
        f"Ratios of processor seconds, ours over the bare way; medians (all) of {given.runs} runs.",
        "",
        "| what | against | ratio |",
        "|---|---|---|",
    ]
    for name in wanted:
        line = parts[name](given, pool)
        print(line, flush=True)
        lines.append(line)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def lead_line(given: Any, pool: Pool) -> str:
    """A step of a tuning with LEAD's order over one without."""
    if given.steps % 2:
        raise SystemExit(f"{given.steps} steps asked; LEAD's two rounds need an even number")
    lengths = np.array([sum(len(turn.content) for turn in example.messages) for example in pool])
    middle, n = len(pool) // 2, given.steps * given.rows
    pool = pool.subset(np.sort(np.argsort(lengths, kind="stable")[middle : middle + n]))  # rows of nearly one length
    spec = Tuning(
        given.model,
        rank=given.rank,
        alpha=16.0,
        epochs=1,
        warmup=0.0,
        batch_rows=given.rows,
        max_tokens=LONGEST,
        precision=given.precision,
    )
    cell = (np.arange(n) % 2).astype(np.int32)
    order = Lead(np.full(n, 3, np.float32), cell, np.zeros(n, np.int32), budget=n, share=1.0, most_uses=1)
    ratios = []
    with tempfile.TemporaryDirectory() as work:
        for run in range(given.runs):
            took = {}
            for ways in turns(("plain", "lead"), run):
                stamps: list[float] = []
                tuned = Lab(Path(work) / f"{run}-{ways}").tune(
                    replace(spec, seed=run),
                    pool,
                    order=order if ways == "lead" else None,
                    each_step=lambda *_, stamps=stamps: stamps.append(time.process_time()),
                )
                assert len(stamps) == given.steps and len(tuned.visits) == n  # every row once, in as many steps
                took[ways] = stamps[-1] - stamps[0]
            ratios.append(took["lead"] / took["plain"])
    return row("LEAD in the loop", f"the same tuning, {given.steps - 1} steps of {given.rows} rows", ratios)


def states_line(given: Any, pool: Pool) -> str:
    """DiverseEvol's vectors over the bare body."""
    examples = pool.examples(np.arange(given.passes))
    spec = MeanStates(given.model, precision=given.precision, max_tokens=LONGEST).resolved()
    measure, model = spec.load(), causal_of(spec)
    made = batches_of(spec, examples, fine=True)

    def bare() -> None:
        for batch in made:
            model.read(batch.ids)

    ratios = ratios_of(lambda: measure(examples), bare, given.runs)
    return row("DiverseEvol's vectors", f"the bare body on the same {len(made)} batches", ratios)


def losses_line(given: Any, pool: Pool) -> str:
    """Perplexities over the bare model, its head at the places before answer tokens alone."""
    examples = pool.examples(np.arange(given.passes))
    spec = AnswerTokenLosses(given.model, precision=given.precision, max_tokens=LONGEST).resolved()
    measure, model = spec.load(), causal_of(spec)
    reader = conversations(spec.model, spec.template, spec.digest, spec.tokenizer)
    found = reader.read(examples, LONGEST)
    made = batches_of(spec, examples, fine=True)

    def bare() -> None:
        for batch in made:
            states = model.read(batch.ids).last_hidden_state.flatten(0, 1)
            learned = sum(int(found.masks[piece][1:].sum()) for piece in batch.pieces.tolist())
            logits = model.logits(states[:learned])
            torch.nn.functional.cross_entropy(logits.float(), torch.zeros(learned, dtype=torch.long))

    ratios = ratios_of(lambda: measure(examples), bare, given.runs)
    return row("iterative kMQ's perplexities", f"the bare model on the same {len(made)} batches", ratios)


def answers_line(given: Any, pool: Pool) -> str:
    """Answers over the model's own `generate`, a token of an answer."""
    spec = Generation(
        given.model, max_new_tokens=given.tokens, precision="float32", batch_rows=32, batch_tokens=1 << 20
    ).resolved()
    tokenizer = prompt_tokenizer(spec.model, None, False)
    writer, prompts = writer_of(spec, tokenizer), Prompts(tokenizer, PROMPT, False)
    few = [example for example in pool.examples(np.arange(4 * given.passes)) if not prompts.of(example)[1]]
    few = few[: given.passes]
    ids = sorted((prompts.of(example)[0] for example in few), key=len)
    ours_tokens, bare_tokens = [], []

    def ours() -> None:
        ours_tokens.append(float(written(spec, writer, prompts, few).numbers["tokens"].sum()))

    def bare() -> None:
        count = 0
        for start in range(0, len(ids), 32):
            count += generated(writer.model.model, tokenizer, ids[start : start + 32], spec)
        bare_tokens.append(float(count))

    seconds = [timed(each) for run in range(given.runs) for each in turns((ours, bare), run)]
    ratios = []
    for run in range(given.runs):
        first, second = seconds[2 * run : 2 * run + 2]
        mine, theirs = (first, second) if run % 2 == 0 else (second, first)
        ratios.append((mine / ours_tokens[run]) / (theirs / bare_tokens[run]))
    return row("iterative kMQ's answers, a token", f"its own `generate`, {len(few)} prompts sorted by length", ratios)


def generated(model: Any, tokenizer: Any, prompts: Sequence[list[int]], spec: Generation) -> int:
    """Tokens that the model's own `generate` writes, up to the one that ends each."""
    widest, pad = max(map(len, prompts)), tokenizer.pad_token_id or 0
    ids = torch.tensor([[pad] * (widest - len(each)) + each for each in prompts])
    mask = torch.tensor([[0] * (widest - len(each)) + [1] * len(each) for each in prompts])
    ends = list(spec.ends or ())
    with torch.inference_mode():
        made = model.generate(
            ids, attention_mask=mask, max_new_tokens=spec.max_new_tokens, do_sample=False, eos_token_id=ends,
            pad_token_id=pad, temperature=None, top_p=None, top_k=None,
        )  # fmt: skip
    count = 0
    for line in made[:, widest:].tolist():
        ended = [place for place, token in enumerate(line) if token in ends]
        count += ended[0] + 1 if ended else len(line)
    return count


def batches_of(spec: Any, examples: Sequence[Any], *, fine: bool) -> list[Batch]:
    """The batches in which a feature reads examples."""
    reader = conversations(spec.model, spec.template, spec.digest, spec.tokenizer)
    found = reader.read(examples, LONGEST)
    more = fineness(spec.batch_tokens) if fine else {}
    return list(batches(found.ids, LONGEST, spec.batch_tokens, found.pad, **more))


def ratios_of(ours: Callable[[], Any], bare: Callable[[], Any], runs: int) -> list[float]:
    """Seconds of one over the other, in turns, after one of each."""
    ours(), bare()
    ratios = []
    for run in range(runs):
        took = {each: timed(each) for each in turns((ours, bare), run)}
        ratios.append(took[ours] / took[bare])
    return ratios


def turns(ways: tuple[Any, Any], run: int) -> tuple[Any, ...]:
    """In this order, and the other way round in every second run."""
    return ways if run % 2 == 0 else ways[::-1]


def timed(do: Callable[[], Any]) -> float:
    """Processor seconds of a call."""
    began = time.process_time()
    do()
    return time.process_time() - began


def row(what: str, against: str, ratios: Sequence[float]) -> str:
    """A line of the table."""
    told = ", ".join(f"{each:.3f}" for each in ratios)
    return f"| {what} | {against} | {median(ratios):.3f} ({told}) |"


def machine(threads: int) -> str:
    """Where this was run."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return f"{name}, {cores} cores, {threads} thread(s), load {load:.1f} when it began; torch {torch.__version__}."


def arguments() -> Any:
    parser = argparse.ArgumentParser(description="What selection inside training costs.")
    parser.add_argument("--model", default="smollm2-135m")
    for name, value in (("steps", 8), ("rows", 8), ("rank", 64), ("passes", 24), ("runs", 3), ("tokens", 48)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
