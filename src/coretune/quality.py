"""Quality by name: the score that a quality-aware method draws by, or that screens rows for a costlier one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from coretune.errors import Unmeasurable, nearest
from coretune.features.answer_loss import AnswerLoss
from coretune.features.answer_tokens import AnswerTokens
from coretune.features.column import column
from coretune.features.length import Length
from coretune.features.yes_probability import YesProbability
from coretune.pool import Pool
from coretune.scores.surprise import ifd_loss_ratio, ifd_perplexity_ratio
from coretune.shapes import Float32

if TYPE_CHECKING:
    from coretune.lab import Lab

Read = Callable[[str, str | None, Pool, "Lab"], np.ndarray]
"""A score that a model gives: from its name, a chat template or None, the pool and the lab."""


def losses(model: str, template: str | None, pool: Pool, lab: Lab, *, alone: bool = False) -> np.ndarray:
    """Mean negative log-probability of each row's answer tokens, `(n,)`, after the conversation, or alone."""
    return lab.features(AnswerLoss(model, "nothing" if alone else "conversation", template=template), pool).array()


def _losses_of_ifd(model: str, template: str | None, pool: Pool, lab: Lab) -> tuple[np.ndarray, np.ndarray]:
    return losses(model, template, pool, lab), losses(model, template, pool, lab, alone=True)


READ: dict[str, Read] = {
    "answer_tokens": lambda model, template, pool, lab: lab.features(AnswerTokens(model, template), pool).array(),
    "low_loss": lambda *asked: -losses(*asked),
    "high_loss": losses,
    "ifd": lambda *asked: ifd_loss_ratio(*_losses_of_ifd(*asked)),
    "ifd_perplexity": lambda *asked: ifd_perplexity_ratio(*_losses_of_ifd(*asked)),
    "yes_probability": lambda model, template, pool, lab: lab.features(
        YesProbability(model, template=template), pool
    ).array(),
}  # by a model, higher is better


def named_score(
    name: str, pool: Pool, lab: Lab, *, model: str | None = None, template: str | None = None
) -> Float32[np.ndarray, " n"]:
    """The score called `name`, `(n,)`, higher is better: `length` (answer characters), what `model` says, or a column.

    By a model: `answer_tokens`, `low_loss`, `high_loss`, `ifd`, `ifd_perplexity`, `yes_probability`. Raises
    `ValueError`, naming the nearest, where there is no such score or it needs a model, and `Unmeasurable` for rows
    without a value. A column of the data goes before a model's score of the same name.
    """
    known = ("length", *READ, *pool.fields)
    if name not in known:
        raise ValueError(f"no score {name!r}{nearest(name, known)} Known here: {', '.join(known)}")
    if name in pool.fields:
        values = column(pool, name)
        missing = np.flatnonzero(~np.isfinite(values))
        if len(missing):
            raise Unmeasurable(missing, f"no number in column {name}", pool)
        return values
    if name == "length":
        return lab.features(Length("answer"), pool).array()
    if model is None:
        raise ValueError(f"score {name!r} is what a model says of a row; name one, with --model or --select-model")
    return READ[name](model, template, pool, lab).astype(np.float32)
