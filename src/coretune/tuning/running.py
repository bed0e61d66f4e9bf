"""A tuning carried out: from examples to a finished folder in the store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from coretune.pool import Example
from coretune.shapes import Float32
from coretune.store import folders
from coretune.store.digests import array_digest, digest, spec_words
from coretune.tuning import resuming
from coretune.tuning.job import EachStep, Job
from coretune.tuning.launching import devices, train_in_processes
from coretune.tuning.memory import refuse_what_cannot_work
from coretune.tuning.schedule import mean_rates
from coretune.tuning.spec import Tuning
from coretune.tuning.tokens import Tokens, encoded
from coretune.tuning.training import train
from coretune.tuning.tuned import CHECKPOINTS, Tuned, find_tuned, row_means, step_losses, write_words

WORK = "work"  # of an unfinished tuning, under its address


def words_of(spec: Tuning, keys: np.ndarray, weights: Float32[np.ndarray, " k"]) -> dict[str, Any]:
    """What a tuning is, in words: the resolved spec, the rows by content, in order, and their weights."""
    said = spec_words(spec)
    given = {"rows": {"array": array_digest(keys)}, "weights": {"array": array_digest(weights)}}
    return {**said, "fields": {**said["fields"], **given}}


def identity_of(spec: Tuning, keys: np.ndarray, weights: Float32[np.ndarray, " k"] | None) -> str:
    """The address of a tuning with a resolved spec: what stands for it in the store."""
    return digest(words_of(spec, keys, checked_weights(weights, len(keys))))


def checked_weights(weights: np.ndarray | None, rows: int) -> Float32[np.ndarray, " k"]:
    """What each row counts: 1 where nothing is given. Raises `ValueError` for weights that mean nothing."""
    counted = np.ones(rows, dtype=np.float32) if weights is None else np.asarray(weights, dtype=np.float32)
    if counted.shape != (rows,):
        raise ValueError(f"weights {counted.shape} given for {rows} rows; give one for each")
    if rows and not (np.isfinite(counted).all() and counted.min() >= 0 and counted.max() > 0):
        raise ValueError(
            f"weights from {counted.min()} to {counted.max()} given; give numbers of 0 and more, not all 0"
        )
    return counted


def bytes_of(tuned: Tuned) -> int:
    """The bytes that a tuning takes in the store."""
    return folders.size_of(tuned.path.parents[1])


def notable(tuned: Tuned) -> dict[str, int]:
    """Counts of a tuning that its stage in a run tells: tokens, what was cut or left out, memory on a GPU."""
    plan = ("rows", "learned_rows", "steps", "planned_steps")
    return {name.replace("_", " "): count for name, count in tuned.counts.items() if name not in plan}


def tune(
    spec: Tuning,
    examples: Iterable[Example],
    weights: Float32[np.ndarray, " k"],
    place: Path,
    each_step: EachStep = lambda step, steps, loss: None,
    *,
    processes: int | None = None,
) -> Tuned:
    """Tune on examples, with a resolved spec, at an address of the store; what is finished there is given at once.

    `each_step(step, steps, loss)` is called after each optimizer step. After an error, a Ctrl-C or a kill the same call
    goes on where it stopped; another process that asks for the same waits. With several `processes` (by default one a
    GPU) they are started for it. Raises `PoolError` where no row has an
    answer token, `ModelError` where the model is not as it was, `CoretuneError` where the loss is not finite.
    """
    with folders.alone(place):
        if (found := find_tuned(place)) is not None:
            return found
        work = place / WORK
        work.mkdir(exist_ok=True)
        resuming.forget_trained(work)
        tokens = encoded(spec, examples)
        job = Job.of(spec, tokens, weights, work)
        refuse_what_cannot_work(spec, tokens, job.device)
        count = devices(job.device) if processes is None else processes
        if count > 1:
            train_in_processes(job, count, each_step)
        else:
            train(job, each_step)
        finish(job, place, resuming.read_trained(work))
        shutil.rmtree(work, ignore_errors=True)
    tuned = find_tuned(place)
    assert tuned is not None
    return tuned


def finish(job: Job, place: Path, trained: dict[str, Any]) -> None:
    """Put what a training has left in its work folder into a finished folder."""
    visits = np.concatenate(resuming.read_visits(job.work))
    visits = visits[np.lexsort((visits["row"], visits["step"]))]
    shares = {step: job.batch(step)[1] for step in range(1, job.plan.run + 1)}
    seen = zip(visits["step"].tolist(), visits["row"].tolist(), strict=True)
    share = np.array([shares[step][row] for step, row in seen])
    arrays = {
        "visits": visits,
        "losses": step_losses(visits, share, job.plan.run),
        "learning_rates": job.plan.rates,
        "row_losses": row_means(visits, len(job.tokens)),
    }
    words = {
        "model": job.spec.model,
        "seconds": round(trained["seconds"], 3),
        "counts": counts_of(job, visits, trained),
    }
    with folders.new_folder(place, "tuned", {"rows": len(job.tokens)}) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        shutil.copytree(job.work / CHECKPOINTS, folder / CHECKPOINTS, copy_function=_linked)
        write_words(folder, words, job.plan.checkpoints, mean_rates(job.plan.rates, job.plan.checkpoints))


def counts_of(job: Job, visits: np.ndarray, trained: dict[str, Any]) -> dict[str, int]:
    """Rows, steps and tokens of a training, and its memory on a GPU."""
    tokens: Tokens = job.tokens
    return {
        "rows": len(tokens),
        "learned_rows": len(job.learned),
        "steps": job.plan.run,
        "planned_steps": job.plan.planned,
        "tokens": int(tokens.lengths[visits["row"]].sum()),
        "answer_tokens": int(tokens.answer_lengths[visits["row"]].sum()),
        "cut": tokens.cut_rows,
        **tokens.left_out,
        **({"gpu_mib": trained["gpu_bytes"] >> 20} if trained["gpu_bytes"] else {}),
    }


def _linked(source: str, target: str) -> None:
    """The same file under another name, so that a kill in between leaves the work folder as it was."""
    try:
        os.link(source, target)
    except OSError:  # a disk without links
        shutil.copyfile(source, target)
