"""What a feature gives, checked before it is stored: a row for each example, of types that can be read again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coretune.features import Measured, Ragged, Texts
from coretune.store.arrays import MISSING


def checked_values(name: str, given: np.ndarray | Ragged | Texts, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The values of `count` rows as they are stored: those of ragged rows (text: its bytes) flat, with their offsets.

    Raises `ValueError` where they are no rows, not so many, or neither numbers, booleans nor text.
    """
    if isinstance(given, Texts):
        given = given.utf8
        if given.values.dtype != np.dtype("S1"):
            raise ValueError(f"{name} gave texts in {given.values.dtype}, not in bytes (S1): make them with `Texts.of`")
        return _checked_ragged(name, given, count)
    values, offsets = _checked_ragged(name, given, count) if isinstance(given, Ragged) else (np.asarray(given), None)
    if values.ndim == 0 or (offsets is None and len(values) != count):
        raise ValueError(f"{name} measured {count} examples and gave values of shape {values.shape}, not one a row")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} gave values of type {values.dtype}; a feature gives numbers, booleans or `Texts`")
    return values, offsets


def _checked_ragged(name: str, given: Ragged, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat values and offsets of ragged rows."""
    values, offsets = np.asarray(given.values), np.asarray(given.offsets)
    if values.ndim != 1:
        raise ValueError(f"{name} gave ragged values of shape {values.shape}; the entries of all rows are one axis")
    if offsets.shape != (count + 1,) or offsets.dtype.kind not in "iu":
        raise ValueError(
            f"{name} measured {count} examples and gave offsets {offsets.dtype} {offsets.shape}, not ({count + 1},) "
            "whole numbers"
        )
    offsets = offsets.astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets of {name} do not ascend from 0 to {len(values)}, the number of entries")
    return values, offsets


def checked_marks(
    name: str, measured: Measured, count: int
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Marks and numbers, one a row; texts that are None are marked `missing`. Raises `ValueError` for other forms."""
    given_marks = list(measured.marks.items())
    if isinstance(measured.values, Texts):
        given_marks.append((MISSING, measured.values.missing))
    marks: dict[str, np.ndarray] = {}
    for mark, given in given_marks:
        flags = np.asarray(given)
        if flags.shape != (count,) or flags.dtype != bool:
            raise ValueError(f"mark {mark!r} of {name} is {flags.dtype} {flags.shape}, not bool ({count},)")
        marks[mark] = marks[mark] | flags if mark in marks else flags
    numbers = {each: np.asarray(given, dtype=np.float32) for each, given in measured.numbers.items()}
    for each, given in numbers.items():
        if given.shape != (count,):
            raise ValueError(f"number {each!r} of {name} is {given.shape}, not ({count},)")
    return marks, numbers
