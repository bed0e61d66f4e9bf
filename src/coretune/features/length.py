"""How long an example is in characters, which needs no model; tokens of a model's own are in `answer_tokens`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np

from coretune.features import Measure, Measured
from coretune.features._texts import TEXTS


@dataclass(frozen=True)
class Length:
    """Characters `(n,)` float32, in Unicode code points, of the text that an embedding of the same part would read.

    The empty lines between turns count, roles and markup do not. 0 where there is no such text.
    """

    version: ClassVar[int] = 1
    shard_rows: ClassVar[int] = 65536

    of: Literal["answer", "prompt", "conversation"] = "answer"
    """What is counted: the last answer, all turns before it, or all turns."""

    def __post_init__(self) -> None:
        """Refuse other words."""
        if self.of not in TEXTS:
            raise ValueError(f"length of {self.of!r} asked; known are {', '.join(TEXTS)}")

    def resolved(self) -> Self:
        """The same: nothing is open."""
        return self

    def load(self) -> Measure:
        """Nothing is loaded."""
        read = TEXTS[self.of]
        return lambda examples: Measured(np.array([len(read(example)) for example in examples], dtype=np.float32))
