"""Files of one array each, `.npy` without pickle: written from blocks, read by mapping."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

SMALL_BYTES = 1 << 14  # files of at most so many are read, not mapped


def save_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Write a `.npy` file from consecutive blocks; through the file, so that a full disk is an error, not a crash."""
    with path.open("wb") as handle:
        np.lib.format.write_array_header_1_0(
            handle, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        for block in blocks:
            if block.size:
                handle.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)


def open_array(path: Path, mode: Literal["r", "c"] = "r") -> np.ndarray:
    """A `.npy` file, mapped read-only or (mode `c`) as a private copy that may be written to; a small one is read."""
    mapped = path.stat().st_size > SMALL_BYTES
    return np.asarray(np.load(path, mmap_mode=mode if mapped else None, allow_pickle=False))
