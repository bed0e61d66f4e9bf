"""Take turns among a target task's examples, each taking the row whose hidden states point most its way (RDS+).

Paper: Ivison et al., "Large-Scale Data Selection for Instruction Tuning", 2025, arXiv 2503.01807.
Needs: examples of the target task (`--target`), and the model to be tuned, or another one (`--select-model`).
Costs: one forward pass over pool and target; n x m similarities for a target of m examples.

1. Every row and every target example becomes one vector: the last layer's states over prompt and answer in the chat
   template, the i-th token counting i, scaled to length 1.
2. Similarity is the cosine of a row with a target example.
3. One sub-task: its examples take turns, each takes the row most similar to it that is still there.
4. Several sub-tasks: a row's similarity to a sub-task is that to its most similar example; sub-tasks take turns.

Notation: e(x) -> `WeightedStates`; S[q, d], S[t, d] -> `similarity`; |D| -> k.
Relations: `less` compares gradients where this compares states; `less.pick=round_robin` takes turns as step 4 does.
Differs: the authors' code counts padding among the tokens unless a batch has one row; here padding never counts. Longer
conversations than 2,048 tokens lose context before answers; the authors cut at the end. Vectors are float16.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.weighted_states import WeightedStates
from coretune.pickers import round_robin
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.selection import Budget
from coretune.shapes import Float, Float32, Int

if TYPE_CHECKING:
    from coretune.lab import Lab


@dataclass(frozen=True)
class Rds:
    """Options of `rds`."""

    model: str
    """The model whose states are compared: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    target: Pool
    """A file of examples of the target task."""
    subtask: str = "source"
    """The column of the target file that names an example's sub-task; by default the file it comes from."""
    max_tokens: int | None = None
    """Tokens of a conversation that are read, context cut before answers; none is 2,048, or the model's window."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """One round: what the target's examples, or its sub-tasks, take in turn."""
        names, task = np.unique(self.target.column(self.subtask).astype(str), return_inverse=True)
        spec = WeightedStates(self.model, template=self.template, max_tokens=self.max_tokens)
        wanted = lab.features(spec, self.target).array()
        turns = task if len(names) > 1 else np.arange(len(wanted))
        scores = similarity(lab.features(spec, pool).blocks(), wanted, turns)
        chosen = budget.fill(lambda k, _: round_robin(scores, k), rng)
        columns = {
            "similarity": scores.max(axis=1),
            "subtask" if len(names) > 1 else "example": scores.argmax(axis=1).astype(np.float32),
        }
        yield Round(chosen, columns=columns, notes={"subtasks": [str(name) for name in names]})


def similarity(
    blocks: Iterable[Float[np.ndarray, "_ d"]], wanted: Float[np.ndarray, "m d"], turns: Int[np.ndarray, " m"]
) -> Float32[np.ndarray, "n t"]:
    """Of unit rows in blocks, in order: the highest cosine with the examples of each turn (from 0), `(n, t)`."""
    order = np.argsort(turns, kind="stable")
    examples = wanted[order].astype(np.float32)
    starts = np.flatnonzero(np.diff(turns[order], prepend=-1))
    parts = [np.maximum.reduceat(block.astype(np.float32) @ examples.T, starts, axis=1) for block in blocks]
    return np.concatenate(parts) if parts else np.empty((0, len(starts)), np.float32)
