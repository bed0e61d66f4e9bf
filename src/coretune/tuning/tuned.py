"""What a tuning gives: checkpoints, losses and rates, and the finished folder in the store that holds them.

tuned.json            what stands below in words: model, steps, seconds, counts
checkpoints/STEP/     an adapter in PEFT's format (or a whole model), and optimizer.safetensors
losses.npy            loss of each optimizer step; learning_rates.npy likewise
visits.npy            step, row and loss of every visit of a row; row_losses.npy, the mean of each row's
order/NAME.npy        where rows were chosen in the training: the last state of what chose them
done.json             complete
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coretune.shapes import Float, Float32
from coretune.store import folders
from coretune.tuning.choosing import read_order
from coretune.tuning.saving import checkpoint_digest

VISIT = np.dtype([("step", "<i4"), ("row", "<i4"), ("loss", "<f4")])
WORDS, CHECKPOINTS = "tuned.json", "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """Weights and optimizer state after a step; `learning_rate` is the mean since the checkpoint before.

    `path` holds an adapter as PEFT saves it (or a whole model) and `optimizer.safetensors`: float32 tensors
    `exp_avg.NAME` and `exp_avg_sq.NAME`, NAME as in the file of weights, with the strings `step`, `beta1`, `beta2` and
    `eps` as metadata. `digest` stands for all its content.
    """

    step: int
    learning_rate: float
    path: Path
    digest: str


@dataclass(frozen=True, eq=False)
class Tuned:
    """A tuned model. `path` is its last checkpoint, which PEFT (or transformers, where all weights were tuned) loads.

    `losses` and `learning_rates` `(steps,)`; `row_losses` `(k,)` is each row's mean training loss over its visits, NaN
    for a row that was left out or never visited. `seconds` of tuning, `counts` of rows and tokens.
    """

    address: str
    path: Path
    model: str
    checkpoints: tuple[Checkpoint, ...]
    learning_rates: Float[np.ndarray, " steps"]
    losses: Float[np.ndarray, " steps"]
    row_losses: Float32[np.ndarray, " k"]
    seconds: float
    counts: Mapping[str, int]

    @property
    def ends(self) -> tuple[float, float]:
        """The mean loss over the first and over the last tenth of the steps."""
        tenth = max(1, len(self.losses) // 10)
        return float(self.losses[:tenth].mean()), float(self.losses[-tenth:].mean())

    @property
    def visits(self) -> np.ndarray:
        """Every visit of a row, in order: `step`, `row` (its place among the rows given) and mean answer `loss`."""
        found: np.ndarray = np.load(self.path.parents[1] / "visits.npy", allow_pickle=False)
        return found

    @property
    def order(self) -> dict[str, np.ndarray]:
        """The last state of the chooser of the rows, as its order says it; empty where no rows were chosen."""
        return read_order(self.path.parents[1])


def find_tuned(place: Path) -> Tuned | None:
    """The finished tuning at an address of the store; None where there is none."""
    for folder in folders.finished(place):
        with contextlib.suppress(OSError, ValueError, KeyError):
            folders.read_done(folder)
            return read_tuned(folder, place.name)
    return None


def read_tuned(folder: Path, address: str) -> Tuned:
    """The tuning in a finished folder."""
    said = json.loads((folder / WORDS).read_text(encoding="utf-8"))
    arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS}
    checkpoints = tuple(
        Checkpoint(each["step"], each["learning_rate"], folder / CHECKPOINTS / each["name"], each["digest"])
        for each in said["checkpoints"]
    )
    return Tuned(
        address=address,
        path=checkpoints[-1].path,
        model=said["model"],
        checkpoints=checkpoints,
        learning_rates=arrays["learning_rates"],
        losses=arrays["losses"],
        row_losses=arrays["row_losses"],
        seconds=said["seconds"],
        counts=said["counts"],
    )


ARRAYS = ("learning_rates", "losses", "row_losses")


def write_words(folder: Path, words: Mapping[str, Any], steps: Sequence[int], rates: Float[np.ndarray, " c"]) -> None:
    """Write `tuned.json` for a folder whose checkpoints are there."""
    checkpoints = [
        {
            "name": (name := step_name(step)),
            "step": step,
            "learning_rate": float(rate),
            "digest": checkpoint_digest(folder / CHECKPOINTS / name),
        }
        for step, rate in zip(steps, rates, strict=True)
    ]
    text = json.dumps({**words, "checkpoints": checkpoints}, indent=1, ensure_ascii=False)
    (folder / WORDS).write_text(text + "\n", encoding="utf-8")


def step_name(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"{step:07d}"


def row_means(visits: np.ndarray, rows: int) -> Float32[np.ndarray, " k"]:
    """The mean loss of each row over its visits, NaN for rows without any."""
    count = np.bincount(visits["row"], minlength=rows)
    total = np.bincount(visits["row"], weights=visits["loss"].astype(np.float64), minlength=rows)
    with np.errstate(invalid="ignore"):
        means: np.ndarray = (total / count).astype(np.float32)
    return means


def step_losses(visits: np.ndarray, shares: Float[np.ndarray, " v"], steps: int) -> Float[np.ndarray, " steps"]:
    """The loss of each optimizer step: what its rows' losses add up to, each times its share."""
    return np.bincount(visits["step"] - 1, weights=visits["loss"].astype(np.float64) * shares, minlength=steps)
