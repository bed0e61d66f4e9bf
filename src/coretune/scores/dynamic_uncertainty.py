"""A row's loss as it is after a step that was made once it had been measured (LEAD's dynamic uncertainty, IDU).

Source: Lin et al., "LEAD: Iterative Data Selection for Efficient LLM Instruction Tuning", PVLDB 19(3), 2025,
arXiv 2505.07437. The paper's text was not at hand: the correction is that of its code and of a summary that prints it,
the smoothing a reconstruction.

One step of plain gradient descent at rate eta lowers a loss by about eta |g|^2. The gradient g is taken to be
beta g_k + (1 - beta) g_1, a mix of two that were seen: of the last round that trained the same cluster, and of the
round before. Their squared lengths `delta_k` and `delta_1` and the cosine between them give the mix's squared length.
"""

from __future__ import annotations

import numpy as np

from coretune.shapes import Float


def squared_length(delta_k: float, delta_1: float, cosine: float, beta: float) -> float:
    """|beta g_k + (1 - beta) g_1|^2; never below 0."""
    cross = np.sqrt(delta_k * delta_1) * cosine
    return max(0.0, float(beta**2 * delta_k + (1 - beta) ** 2 * delta_1 + 2 * beta * (1 - beta) * cross))


def beta_star(delta_k: float, delta_1: float, cosine: float) -> float:
    """The beta of the shortest mix, whatever its sign; 0 where both are the same and every mix is as short."""
    cross = float(np.sqrt(delta_k * delta_1) * cosine)
    spread = delta_k + delta_1 - 2 * cross
    return 0.0 if spread <= 1e-12 * (delta_k + delta_1) else (delta_1 - cross) / spread


def correction(rate: float, delta_k: float, delta_1: float, cosine: float) -> float:
    """What a step at this learning rate adds to a loss that was measured before it: -eta times the shortest mix.

    Beta is kept between 0 and 1: of two gradients in one direction the shortest mix beyond is 0 whatever their lengths,
    and the correction would vanish, as it always does in the released code. Raises `ValueError` for lengths below 0 and
    a cosine outside -1 to 1.
    """
    if not (delta_k >= 0 and delta_1 >= 0 and rate >= 0 and -1 <= cosine <= 1):
        raise ValueError(
            f"rate {rate}, squared lengths {delta_k}, {delta_1} and cosine {cosine} given; give 0 or more, and -1 to 1"
        )
    beta = min(1.0, max(0.0, beta_star(delta_k, delta_1, cosine)))
    return -rate * squared_length(delta_k, delta_1, cosine, beta)


def smoothed(
    before: Float[np.ndarray, " b"], losses: Float[np.ndarray, " b"], change: float, memory: float
) -> Float[np.ndarray, " b"]:
    """The stored value after a visit, b IDU + (1 - b) (L + change): what was known of a row, and what was just seen.

    Which of the two the paper weighs by b = 0.1 is not known; history, the milder choice, is ours.
    """
    return np.asarray(memory * np.asarray(before, np.float64) + (1 - memory) * (np.asarray(losses) + change))


def cosine_between(one: Float[np.ndarray, " d"], other: Float[np.ndarray, " d"]) -> float:
    """The cosine of two vectors, summed in float64; 0 where one has no length."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    lengths = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / lengths, -1, 1)) if lengths > 0 else 0.0
