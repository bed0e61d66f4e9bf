"""First-order influence: how well each row's gradient points at the gradients of the tasks that are wanted."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from coretune.shapes import Float, Float32, Int


def task_means(gradients: Float[np.ndarray, "m d"], task: Int[np.ndarray, " m"]) -> Float32[np.ndarray, "t d"]:
    """The mean of the target's unit gradients in each task, tasks numbered from 0; a task without rows is refused.

    Their product with a row's unit gradient is the mean cosine of the row with the task's examples.
    """
    sizes = np.bincount(task)
    if len(task) != len(gradients) or not sizes.all():
        raise ValueError(
            f"{len(gradients)} gradients and {len(task)} task numbers, with tasks of {sizes.tolist()} rows"
        )
    totals = np.zeros((len(sizes), gradients.shape[1]))
    for number in range(len(sizes)):
        totals[number] = gradients[task == number].sum(axis=0, dtype=np.float64)
    return (totals / sizes[:, None]).astype(np.float32)


def influence(
    blocks: Iterable[Float[np.ndarray, "b d"]], means: Float32[np.ndarray, "t d"]
) -> Float32[np.ndarray, "n t"]:
    """Mean cosine of each row with each task's examples, from blocks of unit gradients in order, `(n, t)`.

    Source: LESS, arXiv 2402.04333, definition 3.1 for one checkpoint; a row's score is the sum over checkpoints,
    weighted by their learning rates, and the maximum over tasks.
    """
    parts = [block.astype(np.float32) @ means.T for block in blocks]
    return np.concatenate(parts) if parts else np.empty((0, len(means)), np.float32)
