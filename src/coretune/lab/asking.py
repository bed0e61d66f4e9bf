"""What is asked of the lab: rows checked, specs in words, refusals before anything is measured."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from coretune.errors import FolderError
from coretune.features import FeatureSpec
from coretune.lab.feature import Feature
from coretune.pool import Pool
from coretune.shapes import Int64


def title(spec: FeatureSpec) -> str:
    """What a feature is called in stages and messages: `embedding minilm`, its class and its first field, if text.

    What tells it from others of its class and model, its `detail`, follows: `answer loss smollm2-135m, alone`.
    """
    name = words_of_class(spec)
    fields = dataclasses.fields(spec) if dataclasses.is_dataclass(spec) else ()
    first = getattr(spec, fields[0].name) if fields else None
    whole = f"{name} {Path(first).name or first}" if isinstance(first, str) else name
    detail = getattr(spec, "detail", "")
    return f"{whole}, {detail}" if detail else whole


def words_of_class(spec: object) -> str:
    """The name of an object's class in words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", type(spec).__name__).lower()


def refuse_too_large(spec: FeatureSpec, rows: int, store: Path, name: str) -> None:
    """Raise `FolderError`, with the arithmetic, where the store's disk has no room for what will be measured."""
    row_bytes = int(getattr(spec, "row_bytes", 0))
    there = next(each for each in (store, *store.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if rows * row_bytes > free:
        raise FolderError(
            f"{name} takes {rows:,} rows x {row_bytes:,} bytes = {rows * row_bytes / 2**30:,.1f} GiB, and {store} has "
            f"{free / 2**30:,.1f} GiB free; take another disk with --store DIR, or a smaller width"
        )


def first_reason(feature: Feature, barred: Int64[np.ndarray, " b"], name: str) -> tuple[np.ndarray, str]:
    """The rows without a value for one reason, and the reason: a mark that the first of them has, if it has one."""
    for mark, flags in feature.marks.items():
        if flags[barred[0]]:
            return barred[flags[barred]], f"{mark.replace('_', ' ')} ({name})"
    return barred, f"non-finite feature {name}"


def rows_of(pool: Pool, rows: Any) -> Int64[np.ndarray, " k"]:
    """Rows of a pool, checked."""
    asked = np.asarray(rows)
    if asked.size == 0:
        return np.empty(0, dtype=np.int64)
    if asked.ndim != 1 or asked.dtype.kind not in "iu":
        raise ValueError(f"rows are asked as {asked.dtype} {asked.shape}; give row numbers, one axis of integers")
    if asked.min() < 0 or asked.max() >= len(pool):
        raise ValueError(f"rows {asked.min()} to {asked.max()} asked of a pool with {len(pool)} rows")
    return asked.astype(np.int64)


def pool_rows(asked: np.ndarray | slice, places: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """The pool rows at these places of what is asked; a slice stands for the whole pool."""
    return places if isinstance(asked, slice) else asked[places]
