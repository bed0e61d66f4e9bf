"""What a learning curve points to at a size that nobody measured, such as the full pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coretune.shapes import Float
from coretune.statistics.curves import FARTHEST, PowerLaws, fit_power_laws, refined_power_law
from coretune.statistics.measured import MeasuredCurve, measure_curve

DRAWS = 2000


@dataclass(frozen=True)
class Extrapolated:
    """An estimate, never a measurement: the value at `size`, in the task's own unit, with its interval.

    `reasons` say why it is not to be relied on; none where the power law is followed at most to twice the largest size
    and fits what was measured.
    """

    size: float
    value: float
    low: float | None
    high: float | None
    """Ends of the interval if the curve is a power law; None where no size has two runs."""
    times_beyond: float
    """The size over the largest one measured."""
    reasons: tuple[str, ...]


def extrapolated(
    sizes: Sequence[float],
    scores: Sequence[Float[np.ndarray, "_ i"]],
    *,
    size: float,
    higher_is_better: bool,
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> Extrapolated:
    """The power law through scores `(runs, items)` at three or more rising sizes, read off at `size`.

    The interval holds what the same fit gives for values that the means might have been, runs and items both drawn.
    Raises `ValueError` for fewer than 3 sizes, and scores that make no curve.
    """
    curve = measure_curve(sizes, scores, higher_is_better=higher_is_better)
    count, turn = len(curve.sizes), -1.0 if higher_is_better else 1.0
    noise = curve.covariance[:count, :count]
    law = refined_power_law(curve.sizes, -curve.rising[:count], covariance=noise)
    at = np.array([size], dtype=np.float64)
    ends: list[float | None] = [None, None]
    if curve.run_freedom:
        drawn = fit_power_laws(curve.sizes, -curve.draws(DRAWS, rng)[:, :count], covariance=noise)
        tail = (1 - confidence) / 2
        ends = sorted(turn * np.quantile(drawn.at(at)[:, 0], (tail, 1 - tail)))
    times = float(size / curve.sizes[-1])
    return Extrapolated(
        float(size), float(turn * law.at(at)[0, 0]), ends[0], ends[1], times, _why_unsure(curve, law, times)
    )


def _why_unsure(curve: MeasuredCurve, law: PowerLaws, times: float) -> tuple[str, ...]:
    reasons = []
    if times > FARTHEST:
        reasons.append(f"the curve is followed {times:.1f} times beyond the largest size that was measured")
    if law.scale[0] == 0:
        reasons.append("more data has made nothing better so far, so the curve is a flat line")
    if not curve.run_freedom:
        reasons.append("no size has two runs, so there is no interval")
    return tuple(reasons)
