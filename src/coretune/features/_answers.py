"""Where a batch of conversations carries loss, and which tokens must be predicted there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coretune.features._batches import Batch
from coretune.shapes import Bool, Float32, Int64


@dataclass(frozen=True)
class Answers:
    """Where a batch carries loss: flat `places` in `(b, w)`, the `labels` they must give, and each one's `weights`.

    Padded to a multiple of what the output layer takes at a time, with weight 0.
    """

    places: Int64[np.ndarray, " a"]
    labels: Int64[np.ndarray, " a"]
    weights: Float32[np.ndarray, " a"]


def answers_of(batch: Batch, masks: Sequence[Bool[np.ndarray, " t"]], step: int) -> Answers:
    """Answers of a batch, from the mask of answer tokens of every piece; `step` positions go together."""
    asked = np.zeros(batch.ids.shape, dtype=bool)
    for row, piece in enumerate(batch.pieces.tolist()):
        asked[row, : len(masks[piece]) - 1] = masks[piece][1:]  # the token before an answer token predicts it
    rows, places = np.nonzero(asked)
    padded = -(-len(rows) // step) * step
    answers = Answers(
        np.zeros(padded, dtype=np.int64), np.zeros(padded, dtype=np.int64), np.zeros(padded, dtype=np.float32)
    )
    answers.places[: len(rows)] = rows * batch.ids.shape[1] + places
    answers.labels[: len(rows)] = batch.ids[rows, places + 1]
    answers.weights[: len(rows)] = (1 / np.maximum(asked.sum(1), 1))[rows]
    return answers
