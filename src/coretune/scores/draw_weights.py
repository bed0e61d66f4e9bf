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
