"""LoRA gradients of every example against the passes that they need, and against the loops that others write.

    python benchmarks/gradients.py [--model smollm2-135m] [--lengths 64,128,320,1024] [--ranks 8,128] [--rows 64]
        [--loop-rows 8] [--runs 3] [--d 512] [--precision P] [--batch-tokens T] [--threads N] [--device D] [--out FILE]
        [--ways ours,bare,step,loop,dense,bergson,dattri] [--no-memory]

On the same rows, in the same batches where there are batches:

- ours: the feature's own pass, sketched to d, from token ids to unit rows.
- bare: forward and backward pass of the same model with PEFT's adapter, down to the first adapter, with the output
  layer and the loss of all positions; nothing is made of it. The limit for whoever calls the model as it is.
- step: an ordinary step of LoRA tuning: forward, backward to the adapter's weights, AdamW.
- loop: one row at a time, backward to the adapter's weights, all gradients joined into one vector, as in LESS's and
  TAGCOS's code.
- dense: the loop, and the vectors of 16 rows at a time times a dense matrix of random signs to 8,192 numbers, which is
  drawn again for each 16, block by block, as BasicProjector in traker does. A few of its columns are timed, and scaled.
- bergson, dattri: peers, where they are installed; see gradient_peers.py.

Ways take turns within a run, and ratios are taken within a run. Rows are pieces of Dolly's text; lengths vary by a half
around the mean, and the last two thirds of a row are its answer. Memory: the peak after loading of a process of its own
for each way.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from gradient_peers import INSTALLED, bergson, dattri, silent

from coretune.chat import chat_tokenizer
from coretune.features._answers import answers_of
from coretune.features._batches import batches
from coretune.features._conversations import Conversations
from coretune.features._gradients import WatchedModel
from coretune.features._lora import read_adapters
from coretune.features._settled import BATCH_TOKENS
from coretune.features._sketch import CountSketch
from coretune.features._unit_rows import Source, unit_rows
from coretune.features.lora_gradient import gradients, sizes
from coretune.lab.stages import peak_memory_bytes, reset_peak_memory
from coretune.models import best_device, best_precision, load_causal_lm
from coretune.readers import read_pool

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
DENSE_D, DENSE_ROWS = 8192, 16  # of LESS and TAGCOS
MEMORY_ENTRIES = 1 << 28  # of the dense matrix at a time
WAYS = ("ours", "bare", "step", "loop", "dense", *INSTALLED)


def main() -> None:
    given = arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.only:
        print(json.dumps(peak_memory(given)))
        return
    page = [f"# LoRA gradients of {given.model} in {given.precision}", "", machine(given), ""]
    page += [f"{given.rows} rows a length, batches of about {given.batch_tokens} tokens, sketched to {given.d}. ", ""]
    page += [
        "| rank | mean length | way | rows/s | tokens/s | times ours | runs |",
        "|---:|---:|---|---:|---:|---:|---|",
    ]
    for rank in given.ranks:
        with tempfile.TemporaryDirectory() as folder:
            ways = Ways(given, rank, Path(folder))
            for length in given.lengths:
                for line in compared(ways, given, rank, length):
                    print(line, file=sys.stderr, flush=True)
                    page.append(line)
    page += ["", "Times ours: seconds of the way a row against ours, the median over the runs.", ""]
    page += memory_table(given) if given.memory else []
    print("\n".join(page))
    if given.out:
        given.out.write_text("\n".join(page) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    numbers = lambda text: [int(each) for each in text.split(",")]  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--lengths", type=numbers, default=[64, 128, 320, 1024])
    parser.add_argument("--ranks", type=numbers, default=[8, 128])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--loop-rows", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--precision", choices=("float32", "bfloat16"))
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--threads", type=int, help="of torch; default: its own")
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--ways", type=lambda text: text.split(","), default=list(WAYS))
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--out", type=Path, help="where the page is written, besides the terminal")
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.precision = given.precision or best_precision(given.device)
    given.batch_tokens = given.batch_tokens or BATCH_TOKENS[given.device]
    return given


class Ways:
    """The model twice, with the same random adapter: watched, and wrapped by PEFT. A method a way, in seconds a row."""

    def __init__(self, given: argparse.Namespace, rank: int, folder: Path, only: str | None = None) -> None:
        self.given, self.device = given, given.device
        self.tuned, self.weights = wrapped(given, rank, folder)
        if only in (None, "ours"):
            base = load_causal_lm(given.model, dtype=given.precision, device=self.device)
            (adapter,) = read_adapters(base, [folder])
            self.watched = WatchedModel(base, adapter, self.device, max(16, given.batch_tokens // 4))
            sketch = CountSketch(sizes([adapter]), given.d, 0, self.device)
            self.sources = [Source(1.0, gradients(self.watched, adapter, sketch, {}))]
        if only == "ours":
            del self.tuned, self.weights
        self.seconds_a_column = 0.0

    def ours(self, found: Conversations) -> float:
        with clock(self.device) as took:
            unit_rows(self.sources, self.given.d, found, self.given.batch_tokens, self.watched.positions)
        return took[0] / found.count

    def bare(self, found: Conversations) -> float:
        self.tuned.requires_grad_(False)
        return self.batched(found, lambda: None)

    def step(self, found: Conversations) -> float:
        self.trainable()
        optimizer = torch.optim.AdamW(self.weights, lr=0.0)

        def finish() -> None:
            optimizer.step()
            optimizer.zero_grad()

        return self.batched(found, finish)

    def batched(self, found: Conversations, finish: Callable[[], None]) -> float:
        """Forward and backward over the batches of ours, then `finish`."""
        made = list(batches(found.ids, found.longest, self.given.batch_tokens, found.pad))
        with clock(self.device) as took:
            for batch in made:
                answers = answers_of(batch, found.masks, 1)
                labels = np.full(batch.ids.size, -100)
                labels[answers.places] = answers.labels
                self.backward(batch.ids, labels.reshape(batch.ids.shape))
                finish()
        return took[0] / found.count

    def loop(self, found: Conversations) -> float:
        return self.one_by_one(found)[0]

    def dense(self, found: Conversations) -> float:
        """The loop and 8,192 columns, of which some are timed once for each number of parameters."""
        each, rows = self.one_by_one(found)
        if not self.seconds_a_column:
            columns = min(128, max(1, MEMORY_ENTRIES // rows.shape[1]))
            generator = torch.Generator(self.device).manual_seed(0)
            with clock(self.device) as took:
                signs = torch.empty(rows.shape[1], columns, dtype=rows.dtype, device=self.device)
                signs.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
                rows @ signs
            self.seconds_a_column = took[0] / columns
        return each + self.seconds_a_column * DENSE_D / DENSE_ROWS

    def bergson(self, found: Conversations) -> float:
        return self.timed(bergson(self.tuned, found, self.given.batch_tokens), found)

    def dattri(self, found: Conversations) -> float:
        """As many rows a batch as ours has for rows of the mean length."""
        rows = max(1, self.given.batch_tokens * found.count // sum(map(len, found.ids)))
        return self.timed(dattri(self.tuned, found, rows), found)

    def timed(self, run: Callable[[], Any], found: Conversations) -> float:
        with silent(), clock(self.device) as took:
            run()
        return took[0] / found.count

    def one_by_one(self, found: Conversations) -> tuple[float, Any]:
        """Seconds a row, and 16 gradients (the first one repeated where the loop is over fewer rows)."""
        self.trainable()
        count, rows = min(self.given.loop_rows, found.count), []
        with clock(self.device) as took:
            for ids, mask in zip(found.ids[:count], found.masks[:count], strict=True):
                labels = np.full(len(ids), -100)
                labels[:-1] = np.where(mask[1:], ids[1:], -100)
                self.backward(np.array([ids]), labels[None])
                rows.append(torch.cat([weight.grad.flatten() for weight in self.weights]))
                for weight in self.weights:
                    weight.grad = None
        rows += [rows[0]] * (DENSE_ROWS - len(rows))
        return took[0] / count, torch.stack(rows[:DENSE_ROWS])

    def backward(self, ids: np.ndarray, labels: np.ndarray) -> None:
        """As transformers does it: logits of all positions, cross-entropy in float32."""
        there = torch.from_numpy(labels).to(self.device).flatten()
        logits = self.tuned(input_ids=torch.from_numpy(ids).to(self.device), use_cache=False).logits
        flat = logits.flatten(0, 1).float()
        torch.nn.functional.cross_entropy(flat, there, ignore_index=-100, reduction="sum").backward()

    def trainable(self) -> None:
        self.tuned.requires_grad_(False)
        for weight in self.weights:
            weight.requires_grad_(True)


def wrapped(given: argparse.Namespace, rank: int, folder: Path) -> tuple[Any, list[Any]]:
    """The model with an adapter of PEFT's, saved in `folder`, and the adapter's weights, in the model's type."""
    import peft

    base = load_causal_lm(given.model, dtype=given.precision, device=given.device)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGETS, task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = peft.get_peft_model(base, config, autocast_adapter_dtype=False).eval()
    weights = [weight for name, weight in tuned.named_parameters() if "lora_" in name]
    generator = torch.Generator().manual_seed(0)
    for weight in weights:
        weight.data = (0.01 * torch.randn(weight.shape, generator=generator)).to(given.device, base.dtype)
    tuned.save_pretrained(folder)
    for name, module in tuned.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda _, __, out: out if out.requires_grad else out.requires_grad_())
    return tuned, weights


def rows_of(given: argparse.Namespace, length: int) -> Conversations:
    """Rows with lengths from a half to three halves of `length`, cut out of Dolly's text."""
    tokenizer = chat_tokenizer(given.model)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "dolly_3k.jsonl.gz"
        copy.write_bytes(files("coretune.data").joinpath(copy.name).read_bytes())
        pool = read_pool(str(copy))
    text = "\n".join(message.content for row in pool.examples(np.arange(1000)) for message in row.messages)
    stream = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    rng = np.random.default_rng(length)
    lengths = np.linspace(0.5, 1.5, given.rows + 2)[1:-1] * length
    ids = []
    for size in rng.permutation(lengths.round().astype(int)).tolist():
        start = int(rng.integers(len(stream) - size))
        ids.append(stream[start : start + size])
    masks = [np.arange(len(each)) >= len(each) // 3 for each in ids]
    return Conversations(np.arange(len(ids)), ids, masks, {}, len(ids), 2048, tokenizer.pad_token_id or 0)


def compared(ways: Ways, given: argparse.Namespace, rank: int, length: int) -> Iterator[str]:
    """A line a way; one turn before is not counted, as first calls of a shape are slow."""
    found = rows_of(given, length)
    tokens = sum(map(len, found.ids)) / found.count
    took: dict[str, list[float]] = {way: [] for way in given.ways}
    for run in range(given.runs + 1):
        for way in given.ways if run % 2 else given.ways[::-1]:
            seconds = getattr(ways, way)(found)
            if run:
                took[way].append(seconds)
    for way, all_seconds in took.items():
        ratios = [one / ours for one, ours in zip(all_seconds, took.get("ours", all_seconds), strict=True)]
        each, shown = median(all_seconds), ", ".join(f"{ratio:.2f}" for ratio in ratios)
        yield f"| {rank} | {length} | {way} | {1 / each:.2f} | {tokens / each:.0f} | {median(ratios):.2f} | {shown} |"


def memory_table(given: argparse.Namespace) -> list[str]:
    """Peak memory of ours and of a step, in processes of their own, at the longest rows and each rank."""
    lines = ["| rank | mean length | ours MiB | step MiB | ours / step |", "|---:|---:|---:|---:|---:|"]
    for rank in given.ranks:
        peaks = {}
        for way in ("ours", "step"):
            same = [f"--{name.replace('_', '-')}={getattr(given, name)}" for name in SAME if getattr(given, name)]
            same += [f"--lengths={max(given.lengths)}", f"--ranks={rank}", f"--only={way}", "--rows=8"]
            done = subprocess.run([sys.executable, __file__, *same], stdout=subprocess.PIPE, check=True, text=True)
            peaks[way] = json.loads(done.stdout.splitlines()[-1])
        ours, step = peaks["ours"], peaks["step"]
        lines.append(f"| {rank} | {max(given.lengths)} | {ours:.0f} | {step:.0f} | {ours / step:.2f} |")
    return lines


SAME = ("model", "precision", "batch_tokens", "threads", "device", "d")


def peak_memory(given: argparse.Namespace) -> float:
    """MiB at the most while one way runs over a few rows: of the process, or of the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        ways = Ways(given, given.ranks[0], Path(folder), only=given.only)
        found = rows_of(given, given.lengths[0])
        reset_peak_memory()
        if given.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        getattr(ways, given.only)(found)
    return (torch.cuda.max_memory_allocated() if given.device == "cuda" else peak_memory_bytes()) / 2**20


@contextmanager
def clock(device: str) -> Iterator[list[float]]:
    """Seconds of the block, in a list."""
    took: list[float] = []
    finish = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    finish()
    start = time.perf_counter()
    yield took
    finish()
    took.append(time.perf_counter() - start)


def machine(given: argparse.Namespace) -> str:
    if given.device == "cuda":
        return f"{torch.cuda.get_device_name()}; torch {torch.__version__}, Python {platform.python_version()}."
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    threads = torch.get_num_threads()
    return f"{name}, {threads} threads; torch {torch.__version__}, Python {platform.python_version()}."


if __name__ == "__main__":
    main()
