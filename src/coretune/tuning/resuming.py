"""Going on after a kill: the Trainer's own checkpoints in the folder of an unfinished tuning.

    work/checkpoint-STEP/   what transformers writes: weights, optimizer, schedule and random states, some of it pickled
                  visits-P.npy   the visits that process P has noted
                  chooser.npz    where the chooser stands, if rows are chosen in the training
                  complete.json  written last: a checkpoint without it was cut off and is not gone on from

The folder is removed when the tuning is finished; nothing pickled is part of a finished one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from coretune.store.folders import sync
from coretune.tuning.choosing import STATE
from coretune.tuning.tuned import VISIT

COMPLETE, TRAINED = "complete.json", "trained.json"


def last_resumable(work: Path) -> str | None:
    """The newest complete checkpoint of the Trainer in a work folder; what was cut off is removed."""
    found: dict[int, Path] = {}
    for each in work.glob("checkpoint-*"):
        if (each / COMPLETE).is_file():
            found[int(each.name.rpartition("-")[2])] = each
        else:
            shutil.rmtree(each, ignore_errors=True)
    return str(found[max(found)]) if found else None


def write_visits(folder: Path, process: int, visits: list[np.ndarray]) -> None:
    """Write what one process has noted so far."""
    noted = np.concatenate([np.empty(0, dtype=VISIT), *visits])
    np.save(folder / f"visits-{process}.npy", noted, allow_pickle=False)


def read_visits(folder: Path) -> list[np.ndarray]:
    """What all processes had noted at a checkpoint, however many there were then."""
    return [np.load(each, allow_pickle=False) for each in sorted(folder.glob("visits-*.npy"))]


def complete(folder: Path, said: dict[str, Any]) -> None:
    """Say that a checkpoint is complete, once it is on the disk, and remove the older ones."""
    for each in folder.iterdir():
        sync(each)
    (folder / COMPLETE).write_text(json.dumps(said), encoding="utf-8")
    sync(folder / COMPLETE)
    sync(folder)
    for older in folder.parent.glob("checkpoint-*"):
        if older != folder:
            shutil.rmtree(older, ignore_errors=True)


def said_at(folder: Path) -> dict[str, Any]:
    """What `complete` was told."""
    said: dict[str, Any] = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
    return said


def forget_trained(work: Path) -> None:
    """Remove what a training that was over, but not yet put in place, has left."""
    for each in (*work.glob("visits-*.npy"), work / STATE, work / TRAINED):
        each.unlink(missing_ok=True)


def write_trained(work: Path, said: dict[str, Any]) -> None:
    """Say that the training is over, and what it took."""
    (work / TRAINED).write_text(json.dumps(said), encoding="utf-8")


def read_trained(work: Path) -> dict[str, Any]:
    """What `write_trained` was told."""
    said: dict[str, Any] = json.loads((work / TRAINED).read_text(encoding="utf-8"))
    return said
