"""What a checkpoint of the Trainer holds of an order: its chooser and the visits so far.

checkpoint-STEP/   as the Trainer writes it
    coretune_order.npz   the arrays, written before `trainer_state.json`, which holds their digest and is written last:
                         a checkpoint that was cut off names none, or another one
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from coretune.errors import FolderError

FILE = "coretune_order.npz"


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Write arrays into a checkpoint, and give the digest of the file."""
    with (folder / FILE).open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return _digest(folder / FILE)


def read_arrays(folder: Path, digest: str | None) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint. Raises `FolderError` where they are not those that it was written with."""
    if digest is None:
        raise FolderError(f"{folder} says nothing of an order; go on from a checkpoint that was written with one")
    if not (folder / FILE).is_file() or _digest(folder / FILE) != digest:
        raise FolderError(f"{folder / FILE} is missing or of another checkpoint; go on from an earlier one")
    with np.load(folder / FILE, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
