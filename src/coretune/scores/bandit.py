"""Exponential weights over arms (EXP3): from weights to probabilities, and from a reward to new weights."""

from __future__ import annotations

import numpy as np

from coretune.shapes import Float


def exp3_probabilities(weights: Float[np.ndarray, " c"], exploration: float) -> Float[np.ndarray, " c"]:
    """p_k = (1 - gamma) w_k / sum(w) + gamma / K: a draw by weight, mixed with one at even chances.

    Raises `ValueError` for weights that are not above 0 and an exploration outside 0 to 1. Source: Auer et al. (2002),
    "The Nonstochastic Multiarmed Bandit Problem", figure 1.
    """
    w = np.asarray(weights, dtype=np.float64)
    if not len(w) or not (np.isfinite(w).all() and w.min() > 0) or not 0 <= exploration <= 1:
        raise ValueError(f"weights {w} and exploration {exploration} given; give weights above 0, and 0 to 1")
    return np.asarray((1 - exploration) * w / w.sum() + exploration / len(w))


def normalised_reward(reward: float, lowest: float, highest: float) -> float:
    """A reward as a place between the lowest and the highest so far, itself among them: -1 to 1, 0 where all are one.

    Source: the authors' code of LEAD (Lin et al., 2025, arXiv 2505.07437), which passes the first reward as it is.
    EXP3's bound on regret asks for rewards from 0 to 1 on a fixed scale; this is a heuristic.
    """
    low, high = min(lowest, reward), max(highest, reward)
    return 2 * (reward - low) / (high - low) - 1 if high > low else 0.0


def exp3_updated(
    weights: Float[np.ndarray, " c"], arm: int, reward: float, probability: float, exploration: float
) -> Float[np.ndarray, " c"]:
    """w_k exp((gamma / K) reward / p_k) for the arm that was drawn; the other weights as they were.

    Source: Auer et al. (2002), figure 1.
    """
    w = np.array(weights, dtype=np.float64)
    w[arm] *= np.exp(exploration / len(w) * reward / probability)
    return w
