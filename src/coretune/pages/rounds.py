"""The course of a run in rounds: weights of its cells, what entered when, and what the model of each round learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coretune.pages import charts, wording
from coretune.pages.rounds_entered import HUES, MOST_TICKS, entered, height
from coretune.pages.run_files import RunFiles
from coretune.pages.verdict_curves import Box, Drawing, Line
from coretune.round_folder_reading import Course, RoundFiles, read_course
from coretune.run_folder import ROUNDS

NAMED = 12  # cells that are drawn by name
LINES = Box(560, 330, 50, 14)


def rounds_facts(files: RunFiles) -> dict[str, Any] | None:
    """Everything that the page says of rounds; None for a run of one step."""
    if not (files.folder / ROUNDS).is_dir():
        return None
    course = read_course(files.folder)
    return {
        "summary": _summary(course),
        "weights": _weights(course),
        "entered": entered(files, course),
        "losses": _losses(course),
        "rows": _rows(course),
        "models": [
            (each.number, wording.visible(str(each.model["path"]), 300)) for each in course.rounds if each.model
        ],
    }


def _summary(course: Course) -> str:
    """How many rounds, and what became of the losses."""
    text = f"The rows came in {wording.plural(len(course.rounds), 'round')}."
    for name, values in _loss_curves(course):
        if len(values) > 1:
            (first, start), (_, end) = values[0], values[-1]
            at_first = "before any tuning" if first == 0 else f"in round {first}"
            text += f" {name} went from {start:.4g} {at_first} to {end:.4g} in round {values[-1][0]}."
    return text


# ---- weights of the cells


def _weights(course: Course) -> dict[str, Any] | None:
    """The share of the weight that each cell has, round by round; None where rounds give none, or other cells each."""
    told = [each for each in course.rounds if each.weights is not None]
    if not told or any(each.names != told[-1].names for each in told):
        return None
    shares = np.array([each.weights for each in told])
    numbers = [each.number for each in told]
    names = [wording.visible(name, 60) for name in told[-1].names]
    order = np.argsort(-np.ptp(shares, axis=0), kind="stable")[:NAMED]
    named = sorted(order.tolist(), key=lambda cell: (-shares[-1, cell], cell))
    tones = {cell: f"hue-{i % HUES} dash-{i // HUES}" for i, cell in enumerate(named)}
    span = (numbers[0], numbers[-1])
    top = float(shares.max())
    rest = [cell for cell in range(len(names)) if cell not in tones]
    lines = [
        _line(LINES, span, (0.0, top), list(zip(numbers, shares[:, cell], strict=True)), tones.get(cell, "rest"), name)
        for cell, name in [(cell, names[cell]) for cell in (*rest, *named)]
    ]
    sizes = _sizes(told[-1])
    return {
        "chart": Drawing(
            LINES,
            "Share of the weight by round. "
            + "; ".join(f"{names[c]} {shares[0, c]:.1%} to {shares[-1, c]:.1%}" for c in named),
            "round",
            "share of the weight",
            _round_ticks(LINES, numbers, span),
            [charts.Tick(height(LINES, (0.0, top), v), f"{100 * v:.3g}%") for v in charts.nice(0, top, 4)],
            lines,
            [],
        ),
        "cells": [
            {
                "name": names[cell],
                "tone": tones[cell],
                "size": "–" if sizes is None else f"{sizes[cell]:.1%}",
                "first": f"{shares[0, cell]:.1%}",
                "last": f"{shares[-1, cell]:.1%}",
                "change": points(shares[-1, cell] - shares[0, cell]),
            }
            for cell in named
        ],
        "first": numbers[0],
        "last": numbers[-1],
        "others": len(rest),
    }


def _sizes(made: RoundFiles) -> np.ndarray | None:
    """Each cell's share of the rows that are in one."""
    if made.cells is None or "size" not in made.cells.column_names:
        return None
    found: np.ndarray = made.cells["size"].to_numpy().astype(np.float64)
    shares: np.ndarray = found / max(1.0, found.sum())
    return shares


# ---- what was learned


def _loss_curves(course: Course) -> list[tuple[str, list[tuple[int, float]]]]:
    """Losses by round, as far as they were measured."""
    every = [*([course.untuned] if course.untuned else []), *course.rounds]
    found = (
        ("Held-out loss", [(each.number, each.heldout_loss) for each in every]),
        ("Training loss", [(each.number, each.training_loss) for each in every]),
    )
    return [(name, [(n, v) for n, v in values if v is not None and math.isfinite(v)]) for name, values in found]


def _losses(course: Course) -> dict[str, Any] | None:
    """Losses by round; None where there is no model in any."""
    curves = [(name, values) for name, values in _loss_curves(course) if values]
    if not curves:
        return None
    every = [value for _, values in curves for _, value in values]
    numbers = sorted({number for _, values in curves for number, _ in values})
    room = 0.06 * ((max(every) - min(every)) or abs(max(every)) or 1.0)
    span, ends = (numbers[0], numbers[-1]), (min(every) - room, max(every) + room)
    said = "; ".join(f"{name}: {', '.join(f'{value:.4g}' for _, value in values)}" for name, values in curves)
    tones = {"Held-out loss": "hue-0 dash-0", "Training loss": "hue-1 dash-1"}
    return {
        "chart": Drawing(
            LINES,
            f"Losses by round. {said}",
            "round, 0 is before any tuning" if numbers[0] == 0 else "round",
            "loss, nats a token",
            _round_ticks(LINES, numbers, span),
            [charts.Tick(height(LINES, ends, value), wording.number(value)) for value in charts.nice(*ends, 4)],
            [_line(LINES, span, ends, values, tones[name], name) for name, values in curves],
            [],
        ),
        "curves": [(name, tones[name]) for name, _ in curves],
        "held_out": any(name == "Held-out loss" for name, _ in curves),
    }


# ---- the table, and geometry


def _rows(course: Course) -> list[dict[str, Any]]:
    """A row a round, and one for the untuned model where it was read."""
    made = []
    if course.untuned is not None:
        made.append(_row(course.untuned, ([], [])))
    return made + [_row(each, course.moved(place, 2)) for place, each in enumerate(course.rounds)]


def _row(each: RoundFiles, moved: tuple[list[tuple[str, float]], list[tuple[str, float]]]) -> dict[str, Any]:
    said: Mapping[str, Any] = each.said
    rose, fell = ([f"{wording.visible(name, 40)} {points(by)}" for name, by in part] for part in moved)
    return {
        "number": each.number,
        **{name: wording.count(said[name]) if name in said else "–" for name in ("rows", "new_rows", "answer_tokens")},
        "gone": wording.count(said["gone_rows"]) if said.get("gone_rows") else "",
        "training": "–" if each.training_loss is None else f"{each.training_loss:.4f}",
        "heldout": "–" if each.heldout_loss is None else f"{each.heldout_loss:.4f}",
        "more": rose,
        "less": fell,
        "took": wording.seconds(float(said["seconds"])) if "seconds" in said else "–",
    }


def points(change: float) -> str:
    """A change of a share in points of percent, `+1.2`."""
    return f"{round(100 * float(change), 1) + 0.0:+.1f}"


def _along(box: Box, span: tuple[int, int], number: int) -> float:
    """Where a round lies; a single one in the middle."""
    share = (number - span[0]) / (span[1] - span[0]) if span[1] > span[0] else 0.5
    return round(box.left + 12 + share * (box.width - box.left - box.right - 24), 1)


def _round_ticks(box: Box, numbers: Sequence[int], span: tuple[int, int]) -> list[charts.Tick]:
    step = math.ceil(len(numbers) / MOST_TICKS)
    return [charts.Tick(_along(box, span, number), str(number)) for number in numbers[::step]]


def _line(
    box: Box,
    span: tuple[int, int],
    ends: tuple[float, float],
    points: Sequence[tuple[int, float]],
    tone: str,
    name: str,
) -> Line:
    """A curve over rounds; in grey ones the points are not marked."""
    spots = [(_along(box, span, number), height(box, ends, float(value))) for number, value in points]
    path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in spots) if len(spots) > 1 else ""
    titles = [f"{name}, round {number}: {value:.4g}" for number, value in points]
    marked = [] if tone == "rest" and len(spots) > 1 else spots
    return Line(name, tone, "", path, [], [(x, y, title) for (x, y), title in zip(marked, titles, strict=False)])
