"""Labels of rows as numbers: tags that a judge gave, or a column of the data holds."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.errors import Unmeasurable
from coretune.features.tags import Tags
from coretune.judge import Judge
from coretune.methods._judging import in_store
from coretune.pool import Pool
from coretune.shapes import Int64

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Labels:
    """Row i has `labels[offsets[i]:offsets[i + 1]]`, which are places in `names`; rare ones are left out."""

    names: tuple[str, ...]
    labels: Int64[np.ndarray, " t"]
    offsets: Int64[np.ndarray, " n1"]


def labelled(pool: Pool, lab: Lab, judge: Judge | None, column: str | None, least: int) -> Labels:
    """The labels of every row, from a column of the data or from a judge; those of fewer than `least` rows are dropped.

    A column holds a JSON list, or words between commas. Raises `ValueError` where neither is given, or both are, and
    `Unmeasurable` for rows whose labels are not known.
    """
    if (judge is None) == (column is None):
        raise ValueError(
            "tags come from a judge (judge.url, judge.model) or from a column of the data (tags): give one"
        )
    if judge is not None:
        said: Sequence[str | None] = lab.features(Tags(in_store(judge, lab)), pool).texts()
    else:
        said = [None if each is None else str(each) for each in pool.column(str(column)).tolist()]
        missing = np.array([row for row, each in enumerate(said) if each is None], np.int64)
        if len(missing):
            raise Unmeasurable(missing, f"no tags in column {column}", pool)
    return numbered([split(each or "") for each in said], least)


def split(text: str) -> list[str]:
    """Tags of a row in plain form: lower case, letters and digits, single spaces; none twice."""
    try:
        parts = json.loads(text)
    except ValueError:
        parts = None
    words = parts if isinstance(parts, list) else text.split(",")
    plain = (" ".join(re.findall(r"\w+", str(word).lower())) for word in words)
    return list(dict.fromkeys(word for word in plain if word))


def numbered(rows: Sequence[Sequence[str]], least: int) -> Labels:
    """Labels by number, in alphabetical order; those of fewer than `least` rows are left out."""
    counts = Counter(word for row in rows for word in row)
    names = sorted(word for word, count in counts.items() if count >= least)
    number = {word: place for place, word in enumerate(names)}
    kept = [[number[word] for word in row if word in number] for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in kept])]).astype(np.int64)
    return Labels(tuple(names), np.array([each for row in kept for each in row], np.int64), offsets)
