"""One run carried out: tuned on what was chosen, and read by every task. It runs here or in a worker process.

Arms that tune before they choose, or meanwhile, may choose in a worker too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coretune import run_folder
from coretune.compare.arms import Run
from coretune.compare.choosing import choose, write_chosen
from coretune.compare.ground import Ground
from coretune.errors import CoretuneError
from coretune.evaluation import Reading, Subject, Task
from coretune.features.lora_gradient import AdapterAt
from coretune.lab import Lab
from coretune.pool import Pool
from coretune.tuning import Tuned, Tuning

TUNED, READING, ITEMS = "tuned.json", "reading.json", "items.parquet"


@dataclass(frozen=True, eq=False)
class Job:
    """A run to be carried out; `pool` None reads the model as it comes, or with the `adapter` that a method has tuned.

    `folder` gets `tuned.json`, and a folder for each of `tasks`, by its digest; what is there is not done again.
    """

    folder: Path
    store: Path
    pool: Pool | None
    weights: np.ndarray | None
    tuning: Tuning
    tasks: tuple[tuple[str, Task], ...]
    adapter: AdapterAt | None = None

    @property
    def missing(self) -> tuple[tuple[str, Task], ...]:
        """The tasks that were not yet read."""
        return tuple((name, task) for name, task in self.tasks if not (self.folder / name / READING).is_file())

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return not self.missing and (self.folder / TUNED).is_file()


@dataclass(frozen=True, eq=False)
class ChoiceJob:
    """Runs that are to choose, one after the other: each for a tuning of so many epochs, written under a folder."""

    ground: Ground
    runs: tuple[tuple[Run, float, Path], ...]
    store: Path


def choose_there(job: ChoiceJob) -> str | None:
    """Choose, and write the choices down. Returns why it cannot be done, where it cannot."""
    for run, epochs, folder in job.runs:
        lab = Lab(job.store)
        try:
            write_chosen(folder / "chosen", choose(job.ground, run, lab, epochs), lab.stages)
        except (CoretuneError, ValueError) as error:
            return f"at {run.budget}: {error}" if len(job.runs) > 1 else str(error)
    return None


def carry_out(job: Job) -> str | None:
    """Tune and read what is missing; what is finished stays. Returns why it cannot be carried out, where it cannot."""
    return attempt(job, Lab(job.store))


def attempt(job: Job, lab: Lab) -> str | None:
    """The same with a lab that may have an engine and tell its progress."""
    try:
        work(job, lab)
    except (CoretuneError, ValueError) as error:
        return str(error)
    return None


def work(job: Job, lab: Lab) -> None:
    """Tune and read. Raises what tuning and reading raise."""
    if job.pool is None:
        subject = Subject(job.tuning.model, lab, job.adapter, job.tuning.template)
        _write_tuned(job.folder, None, {})
    else:
        before = len(lab.stages)
        tuned = lab.tune(job.tuning, job.pool, np.arange(len(job.pool)), job.weights)
        subject = Subject.of(tuned, lab, job.tuning.template)
        _write_tuned(job.folder, tuned, _spent(lab, before))
    for name, task in job.missing:
        before = len(lab.stages)
        reading = task.read(subject)
        _write_reading(job.folder / name, reading, _spent(lab, before))


def _spent(lab: Lab, before: int) -> dict[str, Any]:
    """What the stages since then took, with what the store has spared."""
    stages = lab.stages[before:]
    return {
        "seconds": sum(each.seconds + each.spared_seconds for each in stages),
        "tokens": sum(each.tokens + each.spared_tokens for each in stages),
        "tokens_back": sum(each.tokens_back + each.spared_tokens_back for each in stages),
        "judge_tokens": sum(each.judge_tokens for each in stages),
        "money": sum(each.money for each in stages),
        "stages": [run_folder.stage_words(each) for each in stages],
    }


def _write_tuned(folder: Path, tuned: Tuned | None, spent: dict[str, Any]) -> None:
    if (folder / TUNED).is_file():
        return
    said: dict[str, Any] = {"address": None, "spent": spent}
    if tuned is not None:
        first, last = tuned.ends
        said |= {
            "address": tuned.address,
            "seconds": tuned.seconds,
            "counts": dict(tuned.counts),
            "loss_first": first,
            "loss_last": last,
        }
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{TUNED}"
    draft.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    draft.replace(folder / TUNED)


def _write_reading(folder: Path, reading: Reading, spent: dict[str, Any]) -> None:
    """A reading as files: scores of all metrics a row, texts, and what is said of it, in place at once."""
    with run_folder.in_place_at_once(folder) as draft:
        every = {reading.metric: reading.items, **reading.others}
        columns: dict[str, Any] = {"item": list(reading.ids), "group": list(reading.groups)}
        pq.write_table(pa.table({**columns, **every}), draft / ITEMS, compression="zstd")
        if reading.texts:
            texts = {"item": columns["item"], **{name: list(each) for name, each in reading.texts.items()}}
            pq.write_table(pa.table(texts), draft / "texts.parquet", compression="zstd")
        said = {
            "task": reading.task,
            "metric": reading.metric,
            "metrics": list(every),
            "unit": reading.unit,
            "higher_is_better": reading.higher_is_better,
            "figures": dict(reading.figures),
            "counts": dict(reading.counts),
            "notes": json.loads(json.dumps(dict(reading.notes), default=str)),
            "spent": spent,
        }
        (draft / READING).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
