"""From the probabilities that a model gives to the digits of a rating to one number a row."""

from __future__ import annotations

import numpy as np

from coretune.shapes import Float


def expected_rating(probabilities: Float[np.ndarray, "*rows K"], low: int = 1) -> Float[np.ndarray, "*rows"]:
    """The mean rating under the probabilities of the ratings `low`, `low` + 1, ..., made to sum to 1.

    Raises `ValueError` where a probability is negative or not finite, or all of a row are 0.
    Source: DEITA, Liu et al. (2024), arXiv 2312.15685: its scorers rate 1 to 6.
    """
    shares = _shares(probabilities)
    return np.asarray(shares @ np.arange(low, low + shares.shape[-1], dtype=np.float64))


def uncertainty_weighted_rating(probabilities: Float[np.ndarray, "n P K"]) -> Float[np.ndarray, "n P"]:
    """The likeliest rating of 1 to K times how far the others stay behind it: S_base / (K-1) sum |P'_i - P'_base|.

    `probabilities` are those of the K rating tokens under each of P prompts, made to sum to 1 as P'; of equally likely
    ratings the lower counts. The result is from 0 (all equal) to K (certain of the highest). Raises `ValueError` where
    K is below 2, a probability is negative or not finite, or all of a row are 0.

    Source: SelectIT, Liu et al. (2024), arXiv 2402.16705, token-level self-reflection, by its formula; the authors'
    code takes a softmax of P' before, which gives other numbers.
    """
    shares = _shares(probabilities)
    count = shares.shape[-1]
    if count < 2:
        raise ValueError(f"{count} rating cannot be compared with others; give the probabilities of at least 2")
    behind = (shares.max(axis=-1, keepdims=True) - shares).sum(axis=-1) / (count - 1)
    return np.asarray((shares.argmax(axis=-1) + 1) * behind)


def agreeing_rating(token: Float[np.ndarray, "n P"], *, alpha: float = 0.2) -> Float[np.ndarray, " n"]:
    """The mean of a row's ratings under P prompts / (1 + `alpha` times their standard deviation).

    The standard deviation is that of the population (divided by P), so one prompt is fine. Raises `ValueError` where
    there is no prompt or `alpha` is negative.
    Source: SelectIT, arXiv 2402.16705, sentence-level self-reflection; alpha 0.2 is the paper's.
    """
    values = np.asarray(token, dtype=np.float64)
    if not values.shape[1] or not alpha >= 0:
        raise ValueError(f"{values.shape[1]} prompts and alpha {alpha} given; give at least 1 prompt, and alpha from 0")
    return np.asarray(values.mean(axis=1) / (1 + alpha * values.std(axis=1)))


def _shares(probabilities: Float[np.ndarray, "*rows K"]) -> Float[np.ndarray, "*rows K"]:
    """In float64, each row made to sum to 1."""
    values = np.asarray(probabilities, dtype=np.float64)
    totals = values.sum(axis=-1, keepdims=True)
    fine = (values >= 0).all(axis=-1) & (totals[..., 0] > 0) & np.isfinite(totals[..., 0])
    if not fine.all():
        row = tuple(np.argwhere(~fine)[0].tolist())
        raise ValueError(
            f"ratings at {row} have probabilities {values[row].tolist()[:10]}: they must be finite, not negative, and "
            "not all 0"
        )
    return np.asarray(values / totals)
