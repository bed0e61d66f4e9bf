"""What entered when: the rows that each round added, by source or by cell, as bars beside the pool's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.pages import charts, wording
from coretune.pages.run_files import RunFiles
from coretune.pages.verdict_curves import Box
from coretune.round_folder_reading import Course

HUES, MOST_TICKS = 6, 16
BARS = Box(560, 300, 54, 14)


@dataclass(frozen=True)
class Part:
    """A piece of a bar. `tone` is a class of the style sheet."""

    tone: str
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Bars:
    """A chart of bars that are stacked of parts; `label` says in words what it shows."""

    box: Box
    label: str
    x_title: str
    y_title: str
    x_ticks: Sequence[charts.Tick]
    y_ticks: Sequence[charts.Tick]
    parts: Sequence[Part]


def entered(files: RunFiles, course: Course) -> dict[str, Any] | None:
    """New rows of each round by source, or by cell where there is one source; None where neither tells rows apart."""
    codes, names = files.groups("source")
    what = "source"
    if len(names) < 2:
        codes, names, what = files.cells, _cell_names(course, files.cells), "cell"
    known = np.flatnonzero(codes >= 0)
    if len(names) < 2 or not len(known):
        return None
    pool = np.bincount(codes[known], minlength=len(names))
    new = [each.rows.filter(each.rows["new"])["row"].to_numpy() for each in course.rounds]
    counts = np.array([np.bincount(codes[rows][codes[rows] >= 0], minlength=len(names)) for rows in new])
    order = np.argsort(-(counts.sum(axis=0) * len(codes) + pool), kind="stable")
    own, rest = order[:HUES], order[HUES:]
    shown = [wording.visible(names[group], 60) for group in own] + ([f"{len(rest)} others"] if len(rest) else [])
    tones = [f"hue-{i}" for i in range(len(own))] + (["rest"] if len(rest) else [])
    table = np.vstack([pool, counts])
    merged = np.hstack([table[:, own], table[:, rest].sum(axis=1, keepdims=True)]) if len(rest) else table[:, own]
    labels = ["pool", *(str(each.number) for each in course.rounds)]
    shares = merged / np.maximum(1, merged.sum(axis=1, keepdims=True))
    return {
        "what": what,
        "chart": _bars(labels, shown, tones, merged, shares),
        "groups": [
            {"name": name, "tone": tone, "shares": [f"{each:.1%}" for each in shares[:, i]]}
            for i, (name, tone) in enumerate(zip(shown, tones, strict=True))
        ],
        "labels": labels,
    }


def _cell_names(course: Course, cells: np.ndarray) -> list[str]:
    count = int(cells.max(initial=-1)) + 1
    told = course.rounds[-1].names
    return told if len(told) == count else [f"cell {number}" for number in range(count)]


def _bars(
    labels: Sequence[str], groups: Sequence[str], tones: Sequence[str], counts: np.ndarray, shares: np.ndarray
) -> Bars:
    """One bar for the pool, and one a round."""
    room = (BARS.width - BARS.left - BARS.right) / len(labels)
    width = min(46.0, 0.72 * room)
    parts, ticks = [], []
    step = math.ceil(len(labels) / MOST_TICKS)
    for i, label in enumerate(labels):
        middle, below = BARS.left + (i + 0.5) * room, 0.0
        if i % step == 0:
            ticks.append(charts.Tick(round(middle, 1), label))
        for group, tone, count, share in zip(groups, tones, counts[i], shares[i], strict=True):
            top = height(BARS, (0.0, 1.0), below + share)
            tall = round(height(BARS, (0.0, 1.0), below) - top, 1)
            where = "the pool" if label == "pool" else f"round {label}"
            title = f"{group}: {wording.count(count)} rows, {share:.1%} of {where}"
            if count:
                parts.append(Part(tone, round(middle - width / 2, 1), top, round(width, 1), tall, title))
            below += float(share)
    most = [groups[int(np.argmax(row))] for row in shares[1:]]
    return Bars(
        BARS,
        f"New rows of each round by group, beside the pool; the largest: {', '.join(most[:12])}",
        "round",
        "share of the new rows",
        ticks,
        [charts.Tick(height(BARS, (0.0, 1.0), v), f"{100 * v:.0f}%") for v in (0, 0.25, 0.5, 0.75, 1)],
        parts,
    )


def height(box: Box, ends: tuple[float, float], value: float) -> float:
    """Where a value lies."""
    share = (value - ends[0]) / ((ends[1] - ends[0]) or 1.0)
    return round(box.height - box.bottom - share * (box.height - box.bottom - box.top), 1)
