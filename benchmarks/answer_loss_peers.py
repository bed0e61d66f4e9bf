"""Losses of answers against lm-eval's log-likelihoods, on the same conversations: values, and processor time.

    python benchmarks/answer_loss_peers.py POOL [--model smollm2-135m] [--rows 96] [--batch 1,8] [--runs 2]

lm-eval 0.4.13 scores a continuation behind a context, sorted by length, with the output layer at all positions and the
log-softmax in the precision asked. Both read in bfloat16. Needs `pip install lm-eval`. Ways take turns within a run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from coretune import read_pool
from coretune.chat import chat_tokenizer
from coretune.features.answer_loss import AnswerLoss
from coretune.models import load_causal_lm
from coretune.pool import Example


def pair_of(tokenizer: object, example: Example) -> tuple[str, str]:
    """The conversation up to its answer, and the answer with the token that ends it."""
    turns = [{"role": turn.role, "content": turn.content} for turn in example.messages]
    before = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)  # type: ignore[attr-defined]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)  # type: ignore[attr-defined]
    assert whole.startswith(before)
    return before, whole[len(before) :].rstrip("\n")


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Processor seconds, and what came out."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def main() -> None:
    """Time both, compare values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    pool = read_pool(asked.pool)
    rows = np.sort(np.random.default_rng(0).choice(len(pool), asked.rows, replace=False))
    examples = [each for each in pool.examples(rows) if each.answer.strip()]
    tokenizer = chat_tokenizer(asked.model)
    requests = [Instance("loglikelihood", {}, pair_of(tokenizer, each), place) for place, each in enumerate(examples)]
    measure = AnswerLoss(asked.model, precision="bfloat16").load()
    ours: Callable[[], np.ndarray] = lambda: measure(examples).numbers["sum"]  # noqa: E731
    ways = {"ours": ours}
    for batch in map(int, asked.batch.split(",")):
        peer = HFLM(
            load_causal_lm(asked.model, dtype="bfloat16", device="cpu"),
            tokenizer=tokenizer,
            device="cpu",
            batch_size=batch,
        )
        ways[f"lm-eval, {batch} at a time"] = lambda peer=peer: np.array(
            [-each[0] for each in peer.loglikelihood(requests, disable_tqdm=True)]
        )
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    values: dict[str, np.ndarray] = {}
    for _ in range(asked.runs):
        for name, work in ways.items():
            took, values[name] = timed(work)
            seconds[name].append(took)
    print(f"{len(examples)} conversations, {asked.runs} runs, {asked.threads} threads, {asked.model} in bfloat16\n")
    print(
        "| way | processor seconds | times ours | each run | largest difference of a sum, nats |\n|---|---|---|---|---|"
    )
    for name, each in seconds.items():
        ratios = [mine / base for mine, base in zip(each, seconds["ours"], strict=True)]
        differs = np.abs(values[name] - values["ours"]).max()
        runs = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {name} | {median(each):.1f} | {median(ratios):.2f} | {runs} | {differs:.3f} |")


if __name__ == "__main__":
    main()
