"""Tuning: a language model tuned on chosen rows, with LoRA or of all weights. `Tuning` is the spec, `tune` does it.

Rows are read through the model's chat template and loss is taken on answer tokens alone. An optimizer step is
`batch_rows` rows, computed in micro-batches of about `batch_tokens` tokens, with exactly the gradient of one batch.
"""

from __future__ import annotations

from coretune.tuning.job import EachStep
from coretune.tuning.running import bytes_of, checked_weights, identity_of, notable, tune, words_of
from coretune.tuning.spec import Tuning
from coretune.tuning.tuned import Checkpoint, Tuned, find_tuned

__all__ = [
    "Checkpoint", "EachStep", "Tuned", "Tuning", "bytes_of", "checked_weights", "find_tuned", "identity_of", "notable",
    "tune", "words_of",
]  # fmt: skip
