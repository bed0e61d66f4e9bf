"""A tuning carried out: from examples to a finished folder in the store."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from coretune.orders import Order
from coretune.pool import Example
from coretune.shapes import Float32
from coretune.store import folders
from coretune.store.digests import array_digest, digest, spec_words, words
from coretune.tuning import resuming
from coretune.tuning.choosing import read_state, write_order
from coretune.tuning.job import EachStep, Job
from coretune.tuning.launching import devices, train_in_processes
from coretune.tuning.memory import refuse_what_cannot_work
from coretune.tuning.schedule import mean_rates
from coretune.tuning.spec import Tuning
from coretune.tuning.tokens import Tokens, encoded
from coretune.tuning.training import train
from coretune.tuning.tuned import CHECKPOINTS, Tuned, find_tuned, row_means, step_losses, write_words

log = logging.getLogger(__name__)

WORK = "work"  # of an unfinished tuning, under its address


def words_of(
    spec: Tuning, keys: np.ndarray, weights: Float32[np.ndarray, " k"], order: Order | None = None
) -> dict[str, Any]:
    """What a tuning is, in words: the resolved spec, the rows by content, in order, their weights, and any order."""
    said = spec_words(spec)
    given = {"rows": {"array": array_digest(keys)}, "weights": {"array": array_digest(weights)}}
    if order is not None:
        given["order"] = words(order)
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
    order: Order | None = None,
) -> Tuned:
    """Tune on examples, with a resolved spec, at an address of the store; what is finished there is given at once.

    `each_step(step, steps, loss)` is called after each optimizer step. After an error, a Ctrl-C or a kill the same call
    goes on where it stopped; another process that asks for the same waits. With several `processes` (by default one a
    GPU) they are started for it. With an `order` each step's rows are chosen when it is there, in one process. Raises
    `PoolError` where no row has an answer token, `ModelError` where the model is not as it was, `CoretuneError` where
    the loss is not finite, `ValueError` for several processes where rows are chosen.
    """
    if order is not None and (processes or 1) > 1:
        raise ValueError(
            f"{processes} processes asked of a training that chooses its rows; it runs in one: processes=1"
        )
    with folders.alone(place):
        if (found := find_tuned(place)) is not None:
            return found
        work = place / WORK
        work.mkdir(exist_ok=True)
        resuming.forget_trained(work)
        tokens = encoded(spec, examples)
        job = Job.of(spec, tokens, weights, work, order)
        refuse_what_cannot_work(spec, tokens, job.device)
        count = devices(job.device) if processes is None else processes
        if order is not None and count > 1:
            log.warning("a training that chooses its rows runs on one of the %d GPUs", count)
            count = 1
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
    ends = np.searchsorted(visits["step"], np.arange(1, visits["step"][-1] + 1), side="right")
    steps = np.split(visits["row"].astype(np.int64), ends[:-1])
    share = np.concatenate([list(job.shares(rows).values()) for rows in steps])
    state, rates = ({}, job.plan.rates) if job.chooser is None else read_state(job.work)
    arrays = {
        "visits": visits,
        "losses": step_losses(visits, share, len(steps)),
        "learning_rates": rates,
        "row_losses": row_means(visits, len(job.tokens)),
    }
    said = {
        "model": job.spec.model,
        "seconds": round(trained["seconds"], 3),
        "counts": counts_of(job, visits, trained),
    }
    kept = kept_steps(job, len(steps))
    with folders.new_folder(place, "tuned", {"rows": len(job.tokens)}) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        write_order(folder, state)
        shutil.copytree(job.work / CHECKPOINTS, folder / CHECKPOINTS, copy_function=_linked)
        write_words(folder, said, kept, mean_rates(rates, kept))


def counts_of(job: Job, visits: np.ndarray, trained: dict[str, Any]) -> dict[str, int]:
    """Rows, steps and tokens of a training, and its memory on a GPU."""
    tokens: Tokens = job.tokens
    return {
        "rows": len(tokens),
        "learned_rows": len(job.learned) if job.chooser is None else len(np.unique(visits["row"])),
        "steps": int(visits["step"][-1]),
        "planned_steps": job.plan.planned if job.chooser is None else int(visits["step"][-1]),
        "tokens": int(tokens.lengths[visits["row"]].sum()),
        "answer_tokens": int(tokens.answer_lengths[visits["row"]].sum()),
        "cut": tokens.cut_rows,
        **tokens.left_out,
        **({"gpu_mib": trained["gpu_bytes"] >> 20} if trained["gpu_bytes"] else {}),
    }


def kept_steps(job: Job, made: int) -> tuple[int, ...]:
    """The steps whose checkpoints were kept, of so many that were made; says which were asked and never came."""
    if job.chooser is None:
        return job.plan.checkpoints
    late = [each for each in job.plan.checkpoints if made < each < job.plan.run]
    if late:
        log.warning("checkpoints at steps %s were asked, but the rows of the training ended at step %d", late, made)
    return tuple(sorted(int(each.name) for each in (job.work / CHECKPOINTS).iterdir() if each.name.isdigit()))


def _linked(source: str, target: str) -> None:
    """The same file under another name, so that a kill in between leaves the work folder as it was."""
    try:
        os.link(source, target)
    except OSError:  # a disk without links
        shutil.copyfile(source, target)
