"""Gathering a feature from what is stored, while other processes may be joining the very same arrays."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import numpy as np

from coretune.errors import FolderError
from coretune.lab.feature import Feature
from coretune.store.arrays import KeyedArray, scan
from coretune.store.joining import join
from coretune.store.keys import locate

log = logging.getLogger(__name__)

MOST_ARRAYS = 64  # arrays that a feature may be read from, where they cannot be joined
ATTEMPTS = 10  # at opening arrays while other processes join them


def look_up(place: Path, keys: np.ndarray) -> tuple[list[KeyedArray], np.ndarray, np.ndarray]:
    """The arrays stored at an address, and for each key `(n, 2)` which of them holds it (-1: none), and where."""
    arrays = scan(place)
    return arrays, *locate([each.keys for each in arrays], keys)


def gathered(place: Path, keys: np.ndarray) -> Feature:
    """The feature of rows that are all stored. Raises `FolderError` where some are gone again."""
    gone = 0
    for _ in range(ATTEMPTS):
        arrays, which, at = look_up(place, keys)
        gone = int((which < 0).sum())
        if gone:
            break
        with contextlib.suppress(FileNotFoundError):  # another process has just joined them: look again
            return Feature(place.name, keys, arrays, which, at)
    raise FolderError(f"of {len(keys)} rows just stored at {place}, {gone} are gone: is something pruning the store?")


def join_loose(place: Path, small_rows: int) -> None:
    """Join what lies loose. Where the disk refuses, that can wait, unless there is too much to read from."""
    try:
        join(place, small_rows)
    except FolderError as error:
        if len(scan(place)) > MOST_ARRAYS:
            raise
        log.warning("stored shards stay as they are: %s", error)
