"""Charts as geometry: paths, marks and ticks in the units of their own box; the template draws them as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.pages import wording
from coretune.pages.comparison import Comparison
from coretune.shapes import Bool, Float

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 24, 40
FEWEST_BINS, MOST_BINS = 10, 40
CLIPPED = 0.005  # of the rows at each end may lie outside a histogram's range
BAND = 2.576  # 99 of 100 uniform draws


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart's geometry. `label` says in words what a reader who cannot see it would want to know."""

    label: str
    x_title: str
    y_title: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    pool_area: str = ""
    chosen_area: str = ""
    line: str = ""
    guide: str = ""
    dots: Sequence[tuple[float, float, float, str]] = ()  # x, y, radius, title
    pool_mark: float | None = None
    chosen_mark: float | None = None


Scale = Callable[[Any], np.ndarray]


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    width = (high - low) or 1.0
    return lambda values: start + (np.asarray(values, dtype=np.float64) - low) / width * (end - start)


def _across(low: float, high: float) -> Scale:
    return _linear(low, high, LEFT, WIDTH - RIGHT)


def _up(low: float, high: float) -> Scale:
    return _linear(low, high, HEIGHT - BOTTOM, TOP)


def nice(low: float, high: float, most: int = 5) -> list[float]:
    """Round values from `low` to `high`, at most `most + 1` of them, in steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))
    first = np.ceil(low / step - 1e-9)
    last = np.floor(high / step + 1e-9)
    return [float(round(step * i, 12)) + 0.0 for i in np.arange(first, last + 1)]  # + 0.0: no -0


def whole(count: int) -> list[float]:
    """Round whole numbers from 1 to `count`: places, or steps."""
    return [value for value in nice(1, count) if value == int(value)]


def histogram(name: str, values: Float[np.ndarray, " n"], selected: Bool[np.ndarray, " n"]) -> Chart | None:
    """How `values` spread over the pool and over the chosen, each adding up to 1; None without two different values."""
    known = np.isfinite(values)
    pool, chosen = values[known], values[known & selected]
    if not len(pool) or pool.min() == pool.max():
        return None
    low, high = np.quantile(pool, (CLIPPED, 1 - CLIPPED))
    low, high = (low, high) if high > low else (pool.min(), pool.max())
    bins = int(np.clip(1.5 * np.sqrt(len(chosen)), FEWEST_BINS, MOST_BINS))  # few chosen rows make fine bins ragged
    edges = np.linspace(low, high, bins + 1)
    heights = [np.histogram(np.clip(part, low, high), edges)[0] / max(1, len(part)) for part in (pool, chosen)]
    top = float(max(heights[0].max(), heights[1].max()))
    across, up = _across(float(low), float(high)), _up(0, top)
    return Chart(
        label=f"Distribution of {name}: the pool's median is {wording.number(float(np.median(pool)))}"
        + (f", that of the chosen {wording.number(float(np.median(chosen)))}" if len(chosen) else ""),
        x_title=name,
        y_title="share of rows",
        x_ticks=_ticks(across, nice(float(low), float(high)), wording.number),
        y_ticks=_ticks(up, nice(0, top, 4), _percent),
        pool_area=_steps(across(edges), up(heights[0])),
        chosen_area=_steps(across(edges), up(heights[1])) if len(chosen) else "",
        pool_mark=float(across(np.clip(np.median(pool), low, high))),
        chosen_mark=float(across(np.clip(np.median(chosen), low, high))) if len(chosen) else None,
    )


def gain_curve(gains: Float[np.ndarray, " k"]) -> Chart | None:
    """Gain by place in the order of picking; None where fewer than three picks have one, or all the same."""
    places = np.flatnonzero(np.isfinite(gains))
    if len(places) < 3 or gains[places].min() == gains[places].max():
        return None
    drawn = np.unique(np.linspace(0, len(places) - 1, 400).round().astype(np.int64))
    at, known = places[drawn], gains[places]
    low, high = float(min(0, known.min())), float(known.max())
    across, up = _across(1, float(len(gains))), _up(low, high)
    falling = bool((np.diff(known) <= 1e-6 * (high - low)).all())  # picks by turns from several cells are not
    spots = np.stack([across(at + 1), up(gains[at])], axis=1)
    return Chart(
        label=f"Gain by place: {wording.number(float(known[0]))} at first, {wording.number(float(known[-1]))} at last",
        x_title="place in the order of picking",
        y_title="gain",
        x_ticks=_ticks(across, whole(len(gains)), wording.count),
        y_ticks=_ticks(up, nice(low, high, 4), wording.number),
        line=_path(across(at + 1), up(gains[at])) if falling else "",
        dots=[] if falling else [(float(x), float(y), 1.6, "") for x, y in spots.round(1)],
    )


def loss_curve(losses: Float[np.ndarray, " s"]) -> Chart | None:
    """Loss by optimizer step, as dots, and its mean over the last steps, as a line; None for a single step."""
    known = np.isfinite(losses)
    if known.sum() < 2 or len(losses) < 2:
        return None
    step = np.arange(1, len(losses) + 1)
    low, high = float(min(0.0, losses[known].min())), float(losses[known].max())
    across, up = _across(1, len(losses)), _up(low, high or 1.0)
    drawn = np.unique(np.linspace(0, len(losses) - 1, 600).round().astype(np.int64))
    window = max(1, len(losses) // 20)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, losses, 0.0))])
    starts = np.maximum(step - window, 0)
    smooth = (sums[step] - sums[starts]) / (step - starts)
    spots = np.stack([across(step), up(np.where(known, losses, low))], axis=1)[drawn].round(1)
    return Chart(
        label=f"Loss by step: {wording.number(float(losses[0]))} at first, {wording.number(float(losses[-1]))} at last",
        x_title="optimizer step",
        y_title="loss",
        x_ticks=_ticks(across, whole(len(losses)), wording.count),
        y_ticks=_ticks(up, nice(low, high, 4), wording.number),
        line=_path(across(step[drawn]), up(smooth[drawn])) if len(losses) > 20 else "",
        dots=[(float(x), float(y), 1.6 if len(losses) > 60 else 3.0, "") for x, y in spots],
    )


def rate_curve(rates: Float[np.ndarray, " s"]) -> Chart | None:
    """Learning rate by optimizer step; None for a single step."""
    if len(rates) < 2:
        return None
    step = np.unique(np.linspace(1, len(rates), 400).round().astype(np.int64))
    across, up = _across(1, len(rates)), _up(0, float(rates.max()))
    return Chart(
        label=f"Learning rate by step, {rates.max():.3g} at the highest",
        x_title="optimizer step",
        y_title="learning rate, millionths",
        x_ticks=_ticks(across, whole(len(rates)), wording.count),
        y_ticks=_ticks(up, nice(0, float(rates.max()), 4), lambda value: f"{1e6 * value:.4g}"),
        line=_path(across(step), up(rates[step - 1])),
    )


def funnel(cells: Comparison) -> Chart | None:
    """Each cell by its size and the share of it that was chosen, with the band of a uniform draw of the same size."""
    n, k = cells.total, sum(group.chosen for group in cells.groups)
    if not cells.groups or not k:
        return None
    sizes = np.array([group.pool for group in cells.groups], dtype=np.float64)
    rates = np.array([group.chosen / group.pool for group in cells.groups])
    rate, top = k / n, float(max(rates.max(), min(1.0, 2 * k / n)))
    span = np.log10([sizes.min(), max(sizes.max(), 2 * sizes.min())])
    across, up = _across(float(span[0]), float(span[1])), _up(0, float(np.sqrt(top)))
    along = np.logspace(span[0], span[1], 60)
    spread = BAND * np.sqrt(rate * (1 - rate) / along * np.clip(n - along, 0, None) / max(1, n - 1))
    band = [up(np.sqrt(np.clip(edge, 0, top))) for edge in (rate - spread, rate + spread)]
    steps = (
        [10.0**i for i in range(9)] if span[1] - span[0] > 1.2 else [m * 10.0**i for i in range(9) for m in (1, 2, 5)]
    )
    shown = [value for value in steps if span[0] - 1e-9 <= np.log10(value) <= span[1] + 1e-9] or [sizes.min()]
    radius = 3.2 if len(sizes) <= 200 else 2.2
    return Chart(
        label=f"{wording.plural(len(sizes), 'cell')} by size and share chosen; overall {wording.share(k, n)}",
        x_title="rows in the cell (log scale)",
        y_title="share of the cell chosen",
        x_ticks=[Tick(float(across(np.log10(value))), wording.count(value)) for value in shown],
        y_ticks=_ticks(lambda value: up(np.sqrt(value)), _root_ticks(top), _percent),
        pool_area=_path(
            np.append(across(np.log10(along)), across(np.log10(along[::-1]))), np.append(band[0], band[1][::-1])
        ),
        guide=_path(across(span), up(np.sqrt([rate, rate]))),
        dots=[
            (round(float(x), 1), round(float(y), 1), radius, f"{group.name}: {group.chosen} of {group.pool} rows")
            for x, y, group in zip(across(np.log10(sizes)), up(np.sqrt(rates)), cells.groups, strict=True)
        ],
    )


def silhouette(notes: Mapping[str, Any]) -> Chart | None:
    """The corrected silhouette by number of cells, the chosen number larger; None where notes hold no such curve."""
    curve = notes.get("silhouette")
    if not isinstance(curve, Mapping):
        return None
    clusters, heights = (curve.get(name) for name in ("clusters", "corrected"))
    if not isinstance(clusters, list) or not isinstance(heights, list) or not 2 <= len(clusters) == len(heights):
        return None
    x, y = np.log2(np.array(clusters, dtype=np.float64)), np.array(heights, dtype=np.float64)
    low, high = float(min(0.0, y.min())), float(max(y.max(), 1e-6))
    across, up = _across(float(x.min()), float(x.max())), _up(low, high)
    spots = np.stack([across(x), up(y)], axis=1).round(1)
    chosen = curve.get("chosen")
    return Chart(
        label=f"Corrected silhouette for {', '.join(str(each) for each in clusters)} cells; chosen: {chosen}",
        x_title="number of cells (log scale)",
        y_title="corrected silhouette",
        x_ticks=[Tick(float(at), wording.count(each)) for at, each in zip(spots[:, 0], clusters, strict=True)],
        y_ticks=_ticks(up, nice(low, high, 4), wording.number),
        line=_path(spots[:, 0], spots[:, 1]),
        dots=[
            (float(a), float(b), 5.5 if each == chosen else 3.0, f"{each} cells: {wording.number(height)}")
            for (a, b), each, height in zip(spots, clusters, y.tolist(), strict=True)
        ],
    )


def _root_ticks(top: float) -> list[float]:
    """Shares that stand apart on a square-root axis."""
    kept: list[float] = [0.0]
    for value in (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0):
        if value <= top * 1.001 and np.sqrt(value) - np.sqrt(kept[-1]) > 0.12 * np.sqrt(top):
            kept.append(value)
    return kept if len(kept) > 1 else [0.0, top]


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"


def _ticks(scale: Scale, values: Sequence[float], say: Callable[[float], str]) -> list[Tick]:
    return [Tick(round(float(scale(np.float64(value))), 1), say(value)) for value in values]


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """An SVG path through these points."""
    return "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _steps(edges: np.ndarray, tops: np.ndarray) -> str:
    """An SVG path around the bars of a histogram."""
    floor = f"{HEIGHT - BOTTOM:.1f}"
    bars = "".join(f"L{a:.1f},{t:.1f}H{b:.1f}" for a, b, t in zip(edges[:-1], edges[1:], tops, strict=True))
    return f"M{edges[0]:.1f},{floor}{bars}V{floor}Z"
