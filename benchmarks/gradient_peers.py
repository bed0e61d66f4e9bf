"""Bergson and dattri on the rows of benchmarks/gradients.py, and whether bergson's gradients agree with ours.

    python benchmarks/gradient_peers.py [--model smollm2-135m] [--rows 200] [--length 48] [--d 8192]

Both take gradients of a LoRA model's factors, with batches, as they come: bergson 16 x 16 numbers a factor by random
signs, dattri's LoGra 16 x 16 by normal numbers. benchmarks/gradients.py times them where they are installed:

    pip install --no-deps bergson dattri natsort petname simple-parsing docstring-parser torchopt ml_dtypes

Run as a script, this compares cosines between rows: ours sketched to d, bergson's gradients formed and unprojected.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from coretune.features._conversations import Conversations

SIDE = 16  # numbers that each side of a factor's gradient is projected to
INSTALLED = [name for name in ("bergson", "dattri") if importlib.util.find_spec(name)]


def labels_of(found: Conversations) -> list[list[int]]:
    return [np.where(mask, ids, -100).tolist() for ids, mask in zip(found.ids, found.masks, strict=True)]


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without the progress bars and logs of peers."""
    logging.disable(logging.WARNING)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
    logging.disable(logging.NOTSET)


def bergson(tuned: Any, found: Conversations, batch_tokens: int, side: int | None = SIDE) -> Callable[[], np.ndarray]:
    """Bergson's in-memory collector on a model of PEFT's, its own batches: a function that gives the rows."""
    from bergson import CollectorComputer, GradientProcessor, InMemoryCollector
    from bergson.config import IndexConfig
    from bergson.data import allocate_batches
    from datasets import Dataset

    tuned.requires_grad_(False)
    tuned.get_input_embeddings().requires_grad_(True)  # as its own loading does
    body = tuned.get_base_model().base_model
    factors = {name for name, _ in body.named_modules() if name.endswith(("lora_A.default", "lora_B.default"))}
    data = Dataset.from_dict({"input_ids": found.ids, "labels": labels_of(found), "length": list(map(len, found.ids))})
    longest = max(map(len, found.ids))
    made = allocate_batches([len(ids) for ids in found.ids], max(batch_tokens, longest))

    def run() -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            cfg = IndexConfig(run_path=f"{folder}/run", projection_dim=side or 0, loss_reduction="mean")
            cfg.partial_run_path.mkdir()
            processor = GradientProcessor(projection_dim=side)
            collector = InMemoryCollector(
                model=body, cfg=cfg, processor=processor, target_modules=factors, data=data, filter_modules=None
            )
            CollectorComputer(tuned, data, collector=collector, batches=made, cfg=cfg).run_with_collector_hooks()
        rows = torch.cat([collector.gradients[name].flatten(1) for name in sorted(collector.gradients)], 1)
        return np.asarray(rows.float().numpy())

    return run


def dattri(tuned: Any, found: Conversations, rows: int) -> Callable[[], None]:
    """LoGra of dattri on a model of PEFT's, `rows` rows a batch, sorted by length and padded."""
    from dattri.algorithm.logra import LoGraAttributor
    from dattri.task import AttributionTask

    tuned.requires_grad_(False)
    tuned.get_input_embeddings().requires_grad_(True)
    factors = [name for name, _ in tuned.named_modules() if name.endswith(("lora_A.default", "lora_B.default"))]
    device = str(next(tuned.parameters()).device)
    order, labels = np.argsort([-len(ids) for ids in found.ids], kind="stable"), labels_of(found)
    made = []
    for start in range(0, len(order), rows):
        members = order[start : start + rows].tolist()
        width = max(len(found.ids[row]) for row in members)
        padded = {
            name: torch.tensor([each[row] + [fill] * (width - len(each[row])) for row in members])
            for name, each, fill in (("input_ids", found.ids, found.pad), ("labels", labels, -100))
        }
        made.append(padded)

    def loss(model: Any, batch: Any, device: str) -> Any:
        logits = model(input_ids=batch["input_ids"].to(device), use_cache=False).logits[:, :-1].flatten(0, 1).float()
        labels = batch["labels"][:, 1:].flatten().to(device)
        return torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")

    def run() -> None:
        task = AttributionTask(loss_func=loss, model=tuned, checkpoints=[dict(tuned.state_dict())])
        attributor = LoGraAttributor(task, factors, "Identity", device=device, proj_dim=SIDE**2)
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # it writes notes where it is called
            attributor.cache(Loader(made, len(found.ids)))

    return run


class Loader:
    """Batches in the form that dattri asks for: a length, a data set and a sampler that does not shuffle."""

    def __init__(self, made: list[Any], rows: int) -> None:
        self.made, self.dataset = made, range(rows)
        self.batch_size, self.sampler = len(made[0]["labels"]), torch.utils.data.SequentialSampler(range(rows))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.made)

    def __len__(self) -> int:
        return len(self.made)


def main() -> None:
    import argparse

    from gradients import Ways, rows_of

    from coretune.features._unit_rows import unit_rows

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--length", type=int, default=48)
    parser.add_argument("--d", type=int, default=8192)
    asked = parser.parse_args()
    given = SimpleNamespace(
        model=asked.model, rows=asked.rows, d=asked.d, precision="float32", batch_tokens=256, device="cpu", loop_rows=1
    )
    with tempfile.TemporaryDirectory() as folder:
        ways, found = Ways(given, 8, Path(folder)), rows_of(given, asked.length)
    ours = unit_rows(ways.sources, asked.d, found, 256, ways.watched.positions)
    with silent():
        theirs = bergson(ways.tuned, found, 256, side=None)()
    one, other = (
        each / np.linalg.norm(each, axis=1, keepdims=True) for each in (ours.values.astype(np.float64), theirs)
    )
    apart = np.triu_indices(asked.rows, 1)
    mine, exact = (one @ one.T)[apart], (other @ other.T)[apart]
    norms = ours.numbers["norm"] / np.linalg.norm(theirs, axis=1)
    print(
        f"{asked.rows} rows, {theirs.shape[1]:,} entries each: cosines differ by {np.std(mine - exact):.4f} (standard "
        f"deviation; 1/sqrt(d) is {asked.d**-0.5:.4f}), at most {np.abs(mine - exact).max():.4f}; correlation "
        f"{np.corrcoef(mine, exact)[0, 1]:.5f}; norms are {norms.mean():.4f} of theirs, from {norms.min():.4f} to "
        f"{norms.max():.4f}."
    )


if __name__ == "__main__":
    main()
