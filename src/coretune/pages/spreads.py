"""How scores, gains and weights spread over pool and chosen: charts, and a sentence for what has none."""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.pages import charts, wording
from coretune.pages.run_files import RunFiles
from coretune.shapes import Bool, Float


def spreads(files: RunFiles) -> dict[str, Any]:
    """Charts of scores, gains and weights, and a line for each thing that has none."""
    drawn: list[dict[str, Any]] = []
    notes: list[str] = []
    for name in files.scores:
        shown, values = wording.visible(name, 60), files.numbers(name)
        chart = charts.histogram(shown, values, files.selected)
        if chart is None:
            notes.append(f"{shown}: {'the same for every row' if np.isfinite(values).any() else 'no row has a value'}.")
        else:
            drawn.append({"title": shown, "chart": chart, "caption": _score_caption(files, values)})
    gains = files.numbers("gain")[files.order]
    chart = charts.gain_curve(gains)
    if chart is not None:
        caption = (
            "The picker’s own measure of each pick when it was made: a distance, a score or the key it was drawn by, "
            "as the method says. Where it levels off, further rows add little by that measure; cells that take turns "
            "make it jump."
        )
        drawn.append({"title": "Gain by place", "chart": chart, "caption": caption})
    if not files.scores:
        notes.insert(0, "No scores: this method ranks rows by none, so no score is compared with the pool.")
    return {"charts": drawn, "score_notes": notes, "weights": _weights(files)}


def _score_caption(files: RunFiles, values: np.ndarray) -> str:
    above = chance_above(values, files.selected)
    missing = int((~np.isfinite(values)).sum())
    text = "Grey: the pool; colour: the chosen; triangles: their medians. Both areas add up to 1. "
    if np.isfinite(above):
        text += f"A chosen row scores above a row left out {above:.0%} of the time (50%: the score played no part)."
    if missing:
        text += f" {wording.plural(missing, 'row has', 'rows have')} no value."
    return text


def _weights(files: RunFiles) -> str:
    """What the weights of the chosen rows amount to."""
    weights = files.numbers("weight")[files.order]
    weights = weights[np.isfinite(weights)]
    if not len(weights) or np.ptp(weights) < 1e-6:
        return "Every chosen row has the same weight." if len(weights) else "The chosen rows have no weights."
    low, middle, high = (wording.number(float(value)) for value in np.quantile(weights, (0, 0.5, 1)))
    effective = wording.number(float(weights.sum() ** 2 / (weights**2).sum()))
    return (
        f"Weights run from {low} to {high}, median {middle}. {wording.count(len(weights))} rows so weighted carry as "
        f"much information as {effective} of equal weight (Kish’s effective number); a weight stands for how much of "
        "the pool a row speaks for."
    )


def chance_above(values: Float[np.ndarray, " n"], chosen: Bool[np.ndarray, " n"]) -> float:
    """The chance that a chosen row's value is above that of a row not chosen, ties half (Mann-Whitney U / (m n))."""
    known = np.isfinite(values)
    inside, outside = np.sort(values[known & chosen]), np.sort(values[known & ~chosen])
    if not len(inside) or not len(outside):
        return float("nan")
    below = np.searchsorted(outside, inside, side="left") + np.searchsorted(outside, inside, side="right")
    return float(below.mean() / (2 * len(outside)))
