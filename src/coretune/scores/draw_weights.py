"""From a quality score to the logarithm of draw weights: how much likelier a better row is."""

from __future__ import annotations

import numpy as np

from coretune.shapes import Float


def softmax_weights(scores: Float[np.ndarray, " n"], *, temperature: float = 1.0) -> Float[np.ndarray, " n"]:
    """Log-weights `(n,)` proportional to `exp(score / temperature)`, shifted so that the largest is 0.

    The shift keeps scores of any size finite. Raises `ValueError` for a temperature that is not positive.
    Source: code of Diversify and Conquer, where the temperature is 1.
    """
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} asked; it must be above 0")
    scaled = np.asarray(scores, dtype=np.float64) / temperature
    return scaled - scaled.max() if len(scaled) else scaled


def linear_weights(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Log-weights `(n,)` proportional to the score itself; a score of 0 is -inf, drawn only when nothing else is left.

    Raises `ValueError` where a score is negative. Source: Diversify and Conquer, eq. 3, read as "weighted by".
    """
    values = np.asarray(scores, dtype=np.float64)
    if len(values) and values.min() < 0:
        raise ValueError(f"a score of {values.min():.4g} cannot be a weight; draw by softmax instead")
    with np.errstate(divide="ignore"):
        return np.log(values)


def inverse_weights(density: Float[np.ndarray, " n"], *, clip: float | None = None) -> Float[np.ndarray, " n"]:
    """Log-weights `(n,)` proportional to 1 / density, so that rare regions are as likely as common ones.

    `clip`: the weights above this quantile of them become that quantile, so that a few rows far from all others (which
    may be broken ones) do not come first; `None` leaves all as they are. Raises `ValueError` where a density is not
    above 0 or not finite, or `clip` is not from 0 to 1.

    Source: inverse propensity sampling of Sachdeva et al. (2024), arXiv 2402.09668, section 3 and theorem A.2; its
    algorithm 2 prints a weight proportional to the density itself, which neither the text nor the theorem means. The
    clip is ours.
    """
    values = np.asarray(density, dtype=np.float64)
    if not ((values > 0) & (values < np.inf)).all():
        row = int(np.flatnonzero(~((values > 0) & (values < np.inf)))[0])
        raise ValueError(f"row {row} has density {values[row]}; it must be above 0 and finite")
    if clip is not None and not 0 <= clip <= 1:
        raise ValueError(f"weights are clipped at a quantile from 0 to 1; {clip} asked")
    weights = -np.log(values)
    return weights if clip is None or not len(weights) else np.minimum(weights, np.quantile(weights, clip))
