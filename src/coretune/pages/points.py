"""The map's data: coordinates, colours and texts of the rows, packed small enough to stand inside the page.

Arrays follow each other in one deflated, base64-coded block: `x, y` uint16, `mark` uint8 (bit 0 chosen, bit 1
excluded), `row` uint32 as differences, `order` uint32 (points in the order of picking), then a column for each way of
colouring. Texts are a second block, one line a point. `report.js` reads both.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.pages.run_files import RunFiles
from coretune.pages.wording import number, visible
from coretune.shapes import Float, Int64

MOST_POINTS = 200_000
TEXT_BYTES = 1_700_000  # of all excerpts together, packed
TRIAL = 2_000  # rows packed to see what fits
EXCERPT, EXCERPT_LEAST = 200, 16  # characters
MOST_NAMES = 254
LEVELS = 256
LEVEL = 6  # of zlib


@dataclass(frozen=True)
class Map:
    """The packed map, and what the page must say about it. `drawn` points of `placed` rows that have coordinates."""

    data: dict[str, Any]
    drawn: int
    placed: int
    missing: int
    left_out: int  # chosen rows that have coordinates and are not drawn
    excerpt: int  # characters of an unchosen row's excerpt


def pack_map(files: RunFiles, rng: np.random.Generator) -> Map | None:
    """The map of a run; None where no row has coordinates.

    Above 200,000 rows the chosen rows stay and of the others a uniform sample is drawn.
    """
    x, y = files.numbers("x"), files.numbers("y")
    placed = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if not len(placed):
        return None
    rows = sampled(placed, files.selected[placed], rng)
    texts, excerpt = pack_texts(files, rows)
    columns = _columns(files, rows)
    arrays = {
        **dict(zip(("x", "y"), quantised(x[rows], y[rows]), strict=True)),
        "mark": (files.selected[rows] + 2 * files.excluded[rows]).astype(np.uint8),
        "row": np.diff(rows, prepend=0).astype(np.uint32),
        "order": _positions(files.order, rows),
        **{f"c{i}": values for i, (values, _) in enumerate(columns)},
    }
    blob = b"".join(np.ascontiguousarray(values).tobytes() for values in arrays.values())
    data = {
        "n": len(rows),
        "arrays": [[name, values.dtype.name, len(values)] for name, values in arrays.items()],
        "columns": [meta for _, meta in columns],
        "points": _packed(blob),
        "texts": texts,
    }
    left_out = int(files.selected[placed].sum() - files.selected[rows].sum())
    return Map(data, len(rows), len(placed), len(files) - len(placed), left_out, excerpt)


def sampled(placed: Int64[np.ndarray, " m"], chosen: np.ndarray, rng: np.random.Generator) -> Int64[np.ndarray, " p"]:
    """At most `MOST_POINTS` of the rows, in order: chosen ones first (at most half of the room), others at random."""
    if len(placed) <= MOST_POINTS:
        return placed
    keep, others = placed[chosen], placed[~chosen]
    room = max(MOST_POINTS // 2, MOST_POINTS - len(others))
    keep = keep if len(keep) <= room else rng.choice(keep, room, replace=False)
    return np.sort(np.concatenate([keep, rng.choice(others, MOST_POINTS - len(keep), replace=False)]))


def quantised(x: Float[np.ndarray, " p"], y: Float[np.ndarray, " p"]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates as uint16 over one square, both axes to the same scale; y grows downwards, as on screens."""
    side = max(float(np.ptp(x)), float(np.ptp(y))) or 1.0
    middle = ((x.max() + x.min()) / 2, (y.max() + y.min()) / 2)
    across = ((x - middle[0]) / side + 0.5) * 65_535
    down = ((middle[1] - y) / side + 0.5) * 65_535
    return across.round().astype(np.uint16), down.round().astype(np.uint16)


def levels(values: Float[np.ndarray, " p"]) -> tuple[np.ndarray, list[str]]:
    """Values as one of 255 equally frequent levels (255: no value), and what each level stands for."""
    known = np.isfinite(values)
    codes = np.full(len(values), LEVELS - 1, dtype=np.uint8)
    if not known.any():
        return codes, []
    edges = np.unique(np.quantile(values[known], np.arange(1, LEVELS) / (LEVELS - 1), method="inverted_cdf"))
    codes[known] = np.searchsorted(edges, values[known], side="left")
    return codes, [number(float(edge)) for edge in edges]


def _columns(files: RunFiles, rows: Int64[np.ndarray, " p"]) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Each way of colouring the points: packed values, and what the legend needs."""
    made: list[tuple[np.ndarray, dict[str, Any]]] = []
    if (files.cells >= 0).any():
        cells = files.cells[rows]
        width = np.uint16 if cells.max() < 65_535 else np.uint32
        none = np.iinfo(width).max
        meta = {"name": "cell", "kind": "cell", "cells": int(files.cells.max()) + 1}
        made.append((np.where(cells < 0, none, cells).astype(width), meta))
    for name, title in (("source", "source"), ("lang", "language")):
        codes, names = files.groups(name)
        if len(names) > 1:
            made.append(_categories(title, codes[rows], names))
    entered = files.numbers("round")[rows]
    if len(np.unique(entered[np.isfinite(entered)])) > 1:
        made.append(_rounds(entered))
    for name in ("answer_tokens", *files.scores):
        values, stands = levels(files.numbers(name)[rows])
        if len(stands) > 1:
            title = f"answer length ({files.unit})" if name == "answer_tokens" else visible(name, 60)
            made.append((values, {"name": title, "kind": "score", "levels": stands}))
    return made


def _categories(title: str, codes: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """Categories, the most frequent first; beyond 254 they are one."""
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    place = np.empty(len(names) + 1, dtype=np.int64)
    place[order] = np.minimum(np.arange(len(names)), MOST_NAMES)
    place[-1] = LEVELS - 1  # where codes are -1
    shown = [visible(names[i], 60) for i in order[:MOST_NAMES]]
    if len(names) > MOST_NAMES:
        shown.append(f"{len(names) - MOST_NAMES} others")
    return place[codes].astype(np.uint8), {"name": title, "kind": "group", "names": shown}


def _rounds(entered: Float[np.ndarray, " p"]) -> tuple[np.ndarray, dict[str, Any]]:
    """The round in which each row entered, in order; beyond 254 they are one."""
    known = np.isfinite(entered)
    first, last = int(entered[known].min()), int(entered[known].max())
    codes = np.full(len(entered), LEVELS - 1, dtype=np.uint8)
    codes[known] = np.minimum(entered[known] - first, MOST_NAMES).astype(np.uint8)
    shown = [f"round {number}" for number in range(first, min(last, first + MOST_NAMES - 1) + 1)]
    if last - first >= MOST_NAMES:
        shown.append("later rounds")
    return codes, {"name": "round", "kind": "group", "names": shown}


def _positions(order: Int64[np.ndarray, " k"], rows: Int64[np.ndarray, " p"]) -> np.ndarray:
    """The chosen rows, in the order of picking, as positions among the points."""
    at = np.minimum(np.searchsorted(rows, order), len(rows) - 1)
    found: np.ndarray = at[rows[at] == order].astype(np.uint32)
    return found


def pack_texts(files: RunFiles, rows: Int64[np.ndarray, " p"]) -> tuple[str, int]:
    """One line a point, packed, and its length for unchosen rows: as long as all of them together have room.

    A stretch of rows is packed first, to see what length will fit.
    """
    texts = files.texts(rows, ("excerpt",)).get("excerpt", [""] * len(rows))
    chosen = files.selected[rows].tolist()

    def pack(first: int, length: int) -> str:
        pairs = zip(texts[:first], chosen, strict=False)
        return _packed("\n".join(visible(text, EXCERPT if kept else length) for text, kept in pairs).encode())

    length = EXCERPT
    while True:
        trial = len(pack(TRIAL, length)) * len(rows) / min(TRIAL, len(rows))
        packed = pack(len(rows), length) if trial <= TEXT_BYTES or length == EXCERPT_LEAST else None
        if packed is not None and (len(packed) <= TEXT_BYTES or length == EXCERPT_LEAST):
            return packed, length
        found = trial if packed is None else len(packed)
        length = max(EXCERPT_LEAST, min(length - 1, int(0.97 * length * TEXT_BYTES / found)))


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, LEVEL)).decode("ascii")
