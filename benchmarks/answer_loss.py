"""Losses of answers against the forward passes that they need, and IFD's two losses against the bare cost of both.

    python benchmarks/answer_loss.py [--model smollm2-135m] [--lengths 64,128,320] [--rows 128] [--runs 3]
        [--precision P] [--batch-tokens T] [--threads N] [--device D] [--out FILE] [--no-memory] [--no-anchors]

On the same rows, in the same batches:

- ours: the feature's own pass behind the conversation, from token ids to the loss and entropy of every answer token.
- all: the model's forward pass as it is, with the output layer at all positions; nothing is made of the logits.
- answers: the same body, the output layer on the positions before answer tokens alone; nothing is made of the logits.
- nothing: the feature's pass over the answers alone, in its own batches, and `all` over those batches.
- text: the whole feature, from conversations of Dolly: the chat template and the tokenizer too.

IFD is ours and nothing together, against the bare pass over as many tokens: `all` of the conversations, times
1 + answers / (prompts + answers). Rows are pieces of Dolly's text; lengths vary by a half around the mean, and the last
two thirds of a row are its answer. Ways take turns within a run, ratios are taken within a run, and on a CPU of
processor time, which depends less on what else runs. Places a token: what batches of a shard's 512 rows take up.

Anchors: pairs a second of demonstrations and anchors with the demonstration's cache and without.

Memory: the peak after loading of a process of its own for each way.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from coretune.chat import chat_tokenizer
from coretune.features import demonstration_loss
from coretune.features._answer_losses import BATCH_TOKENS, fineness, token_losses
from coretune.features._answer_pieces import WholeConversations, first_token
from coretune.features._answers import answers_of
from coretune.features._batches import batches
from coretune.features._causal import Causal
from coretune.features._conversations import Conversations
from coretune.features.answer_loss import AnswerLoss
from coretune.features.demonstration_loss import DemonstrationLoss
from coretune.features.reference_pool import ReferencePool
from coretune.lab.stages import peak_memory_bytes, reset_peak_memory
from coretune.models import best_device, best_precision, load_causal_lm
from coretune.pool import Pool
from coretune.readers import read_pool

LONGEST = 2048
WAYS = ("ours", "all", "answers", "nothing", "all_nothing")


def main() -> None:
    given = arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.only:
        print(json.dumps(peak_memory(given)))
        return
    ways = Ways(given)
    lines = [f"# Answer losses of {given.model} in {given.precision}", "", machine(given), ""]
    lines += [f"{given.rows} rows a length, {given.runs} runs, batches of about {given.batch_tokens} tokens.", ""]
    lines += [*losses_table(ways, given), "", *text_table(given), ""]
    if given.anchors:
        lines += [*anchors_table(given), ""]
    if given.memory:
        del ways
        lines += memory_table(given)
    page = "\n".join(lines).rstrip() + "\n"
    print(page)
    if given.out:
        given.out.write_text(page, encoding="utf-8")


class Ways:
    """The ways, each over the same rows with one loaded model."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        model = load_causal_lm(given.model, dtype=given.precision, device=given.device)
        self.read = Causal(model, given.model, given.device)
        self.model = model

    def ours(self, found: Conversations) -> None:
        token_losses(self.read, found, self.given.batch_tokens)

    def all(self, found: Conversations) -> None:
        for batch in self.batches(found):
            with torch.inference_mode():
                logits = self.model(input_ids=torch.from_numpy(batch.ids).to(self.given.device), use_cache=False).logits
        self.wait(logits)

    def answers(self, found: Conversations) -> None:
        head = self.model.get_output_embeddings()
        for batch in self.batches(found):
            states = self.read.read(batch.ids).last_hidden_state.flatten(0, 1)
            places = torch.from_numpy(answers_of(batch, found.masks, 1).places).to(self.given.device)
            with torch.inference_mode():
                logits = head(states.index_select(0, places))
        self.wait(logits)

    def nothing(self, found: Conversations) -> None:
        self.ours(alone(found))

    def all_nothing(self, found: Conversations) -> None:
        self.all(alone(found))

    def batches(self, found: Conversations) -> Any:
        tokens = self.given.batch_tokens
        return batches(found.ids, found.longest, tokens, found.pad, **fineness(tokens))

    def wait(self, logits: Any) -> None:
        float(logits.flatten()[0])

    def places(self, found: Conversations) -> float:
        """Places of the batches for each token in them."""
        return sum(batch.ids.size for batch in self.batches(found)) / sum(map(len, found.ids))


def alone(found: Conversations) -> Conversations:
    """Each row's answer behind one token."""
    ids = [[row[0], *np.array(row)[mask].tolist()] for row, mask in zip(found.ids, found.masks, strict=True)]
    masks = [np.arange(len(row)) > 0 for row in ids]
    return Conversations(found.rows, ids, masks, {}, found.count, LONGEST, found.pad)


def losses_table(ways: Ways, given: argparse.Namespace) -> list[str]:
    lines = [
        "| mean length | ours tokens/s | of all | each run | of answers | nothing tokens/s | of all | IFD of bare "
        "| each run | places a token | behind nothing |",
        "|---:|---:|---:|---|---:|---:|---:|---:|---|---:|---:|",
    ]
    for length in given.lengths:
        lines.append(losses_line(ways, given, rows_of(given, length, given.rows), length))
        print(lines[-1], file=sys.stderr, flush=True)
    said = "Of all, of answers: tokens a second against those ways; above 1, ours is faster. IFD: below 1, ours is."
    return [*lines, "", said]


def losses_line(ways: Ways, given: argparse.Namespace, found: Conversations, length: int) -> str:
    short = sum(map(len, alone(found).ids))
    whole = sum(map(len, found.ids))
    bare = 1 + (short - found.count) / whole
    took = timed(given, {way: partial(getattr(ways, way), found) for way in WAYS})
    pairs = {"all": ("all", "ours"), "answers": ("answers", "ours"), "nothing": ("all_nothing", "nothing")}
    ratios = {
        name: [up / down for up, down in zip(took[one], took[other], strict=True)]
        for name, (one, other) in pairs.items()
    }
    both = [(a + b) / (bare * c) for a, b, c in zip(took["ours"], took["nothing"], took["all"], strict=True)]
    shard = rows_of(given, length, 512)
    cells = [
        f"{length}", f"{whole / median(took['ours']):.0f}",
        f"{median(ratios['all']):.3f}", ", ".join(f"{each:.2f}" for each in ratios["all"]),
        f"{median(ratios['answers']):.3f}", f"{short / median(took['nothing']):.0f}",
        f"{median(ratios['nothing']):.3f}",
        f"{median(both):.3f}", ", ".join(f"{each:.2f}" for each in both),
        f"{ways.places(shard):.3f}", f"{ways.places(alone(shard)):.3f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def text_table(given: argparse.Namespace) -> list[str]:
    """The whole feature on conversations of Dolly, and how much of it is not the model's pass."""
    examples = dolly().examples(np.arange(given.rows))
    spec = AnswerLoss(given.model, precision=given.precision, batch_tokens=given.batch_tokens)
    measure = spec.load()
    tokens = float(measure(examples).numbers["tokens"].sum())
    took = timed(given, {"feature": lambda: measure(examples)})["feature"]
    tokenizer = chat_tokenizer(given.model)
    reader = WholeConversations(tokenizer, first_token(tokenizer, given.model), LONGEST)
    reads = timed(given, {"read": lambda: reader.read(examples)})["read"]
    found, _ = reader.read(examples)
    whole = sum(map(len, found.ids))
    return [
        f"From text: {len(examples)} conversations of Dolly, {whole} tokens, {tokens:.0f} of answers: "
        f"{whole / median(took):.0f} tokens/s; template and tokenizer take "
        f"{median(reads) / len(examples) * 1e3:.2f} ms a row, {median(reads) / median(took):.1%} of it.",
    ]


def anchors_table(given: argparse.Namespace) -> list[str]:
    some = sorted(dolly().examples(np.arange(60)), key=lambda each: len(each.prompt) + len(each.answer))
    anchors, rows = some[16:24], some[24:27]
    spec = DemonstrationLoss(
        given.model, ReferencePool.of(anchors), precision=given.precision, batch_tokens=given.batch_tokens
    )
    cached = spec.load()
    kept = demonstration_loss.keeps
    demonstration_loss.keeps = lambda model: False
    anew = spec.load()
    demonstration_loss.keeps = kept
    took = timed(given, {"cache": lambda: cached(rows), "anew": lambda: anew(rows)})
    pairs, differs = len(anchors) * len(rows), np.abs(cached(rows).values - anew(rows).values).max()
    ratio = median([one / other for one, other in zip(took["anew"], took["cache"], strict=True)])
    with_cache, without = (pairs / median(took[way]) for way in ("cache", "anew"))
    return [
        f"Demonstrations: {len(rows)} rows and {len(anchors)} anchors of Dolly, {with_cache:.2f} pairs/s cached, "
        f"{without:.2f} without ({ratio:.2f} times); values differ by at most {differs:.1e}."
    ]


def timed(given: argparse.Namespace, ways: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of each way in each run; processor time on a CPU. One turn before is not counted."""
    clock = time.perf_counter if given.device == "cuda" else time.process_time
    took: dict[str, list[float]] = {way: [] for way in ways}
    for run in range(given.runs + 1):
        for way in list(ways) if run % 2 else list(ways)[::-1]:
            start = clock()
            ways[way]()
            if run:
                took[way].append(clock() - start)
    return took


def memory_table(given: argparse.Namespace) -> list[str]:
    """Peak memory of ours and of the pass as it is, in processes of their own, for two sizes of batches."""
    lines = ["| tokens a batch | " + " | ".join(f"{way} MiB" for way in WAYS[:3]) + " |", "|---:|---:|---:|---:|"]
    for tokens in (given.batch_tokens, 16 * given.batch_tokens):
        peaks = []
        for way in WAYS[:3]:
            same = [
                f"--{name}={getattr(given, name)}"
                for name in ("model", "precision", "threads", "device")
                if getattr(given, name)
            ]
            same += [f"--lengths={max(given.lengths)}", f"--batch-tokens={tokens}", f"--only={way}", "--rows=32"]
            done = subprocess.run([sys.executable, __file__, *same], stdout=subprocess.PIPE, check=True, text=True)
            peaks.append(json.loads(done.stdout.splitlines()[-1]))
        lines.append(f"| {tokens} | " + " | ".join(f"{peak:.0f}" for peak in peaks) + " |")
    return lines


def peak_memory(given: argparse.Namespace) -> float:
    """MiB at the most while one way runs over a few rows: of the process, or of the GPU."""
    ways, found = Ways(given), rows_of(given, given.lengths[0], given.rows)
    reset_peak_memory()
    if given.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    getattr(ways, given.only)(found)
    return (torch.cuda.max_memory_allocated() if given.device == "cuda" else peak_memory_bytes()) / 2**20


def rows_of(given: argparse.Namespace, length: int, rows: int) -> Conversations:
    """Rows with lengths from a half to three halves of `length`, cut out of Dolly's text."""
    tokenizer = chat_tokenizer(given.model)
    text = "\n".join(message.content for row in dolly().examples(np.arange(1000)) for message in row.messages)
    stream = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    rng = np.random.default_rng(length)
    lengths = np.linspace(0.5, 1.5, rows + 2)[1:-1] * length
    ids = []
    for size in rng.permutation(lengths.round().astype(int)).tolist():
        start = int(rng.integers(len(stream) - size))
        ids.append(stream[start : start + size])
    masks = [np.arange(len(each)) >= len(each) // 3 for each in ids]
    return Conversations(np.arange(len(ids)), ids, masks, {}, len(ids), LONGEST, tokenizer.pad_token_id or 0)


def dolly() -> Pool:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "dolly_3k.jsonl.gz"
        copy.write_bytes(files("coretune.data").joinpath(copy.name).read_bytes())
        return read_pool(str(copy))


def machine(given: argparse.Namespace) -> str:
    if given.device == "cuda":
        return f"{torch.cuda.get_device_name()}; torch {torch.__version__}, Python {platform.python_version()}."
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    wanted = f"{os.getloadavg()[0]:.1f} processes wanted a core at the start"
    return f"{name}, {torch.get_num_threads()} threads; {versions}; {wanted}."


def arguments() -> argparse.Namespace:
    numbers = lambda text: [int(each) for each in text.split(",")]  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--lengths", type=numbers, default=[64, 128, 320])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "bfloat16"))
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--threads", type=int, help="of torch; default: its own")
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--no-anchors", dest="anchors", action="store_false")
    parser.add_argument("--out", type=Path, help="where the page is written, besides the terminal")
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.precision = given.precision or best_precision(given.device)
    given.batch_tokens = given.batch_tokens or BATCH_TOKENS[given.device]
    return given


if __name__ == "__main__":
    main()
