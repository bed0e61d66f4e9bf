"""Examples as gradients read them: token ids and the mask of answer tokens, or the reason why there is no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.chat_template import KINDS
from coretune.errors import ModelError
from coretune.models import find_model
from coretune.pool import Example
from coretune.shapes import Bool, Int64

UNSEEN = "no answer token left to learn"


@dataclass(frozen=True)
class Conversations:
    """Rows with something to learn, by their place among `count`: `ids` and `masks` `(t,)` each; `marks` are of all."""

    rows: Int64[np.ndarray, " r"]
    ids: list[list[int]]
    masks: list[Bool[np.ndarray, " t"]]
    marks: dict[str, Bool[np.ndarray, " n"]]
    count: int
    longest: int
    pad: int

    def offsets(self, ends: Int64[np.ndarray, " p1"]) -> Int64[np.ndarray, " n1"]:
        """Where the values of each row begin, and the last one's end, from where those of each piece do."""
        counts = np.zeros(self.count, dtype=np.int64)
        np.add.at(counts, self.rows, np.diff(ends))
        return np.concatenate([[0], np.cumsum(counts)])


@dataclass(frozen=True)
class Reader:
    """A tokenizer with a chat template, which may be shared by threads."""

    tokenizer: Any

    @property
    def pad(self) -> int:
        """The token that fills rows up; any would do."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(int(each) for each in known if each is not None)

    def read(self, examples: Sequence[Example], longest: int) -> Conversations:
        """Encode examples, cut to `longest` tokens as `chat.encode` cuts."""
        from coretune.chat import Refused, encode

        marks = {name: np.zeros(len(examples), dtype=bool) for name in (*KINDS.values(), UNSEEN)}
        marks |= {name: np.zeros(len(examples), dtype=bool) for name in ("answer_cut", "truncated")}
        rows, ids, masks = [], [], []
        for row, example in enumerate(examples):
            try:
                one = encode(self.tokenizer, example.messages, tools=example.tools, max_tokens=longest)
            except Refused as error:
                marks[KINDS[error.kind]][row] = True
                continue
            marks["truncated"][row] = one.cut_context + one.cut_answer > 0
            marks["answer_cut"][row] = one.cut_answer > 0
            if not one.answer_mask[1:].any():
                marks[UNSEEN][row] = True
                continue
            rows.append(row)
            ids.append(one.ids.tolist())
            masks.append(one.answer_mask)
        return Conversations(np.array(rows, dtype=np.int64), ids, masks, marks, len(examples), longest, self.pad)


def conversations(model: str, template: str | None, digest: str | None, tokenizer: str | None) -> Reader:
    """The reader of a resolved feature. Raises `ModelError` where model or tokenizer are others than were resolved."""
    from coretune.chat import chat_tokenizer, tokenizer_digest

    found = chat_tokenizer(model, template)
    for what, then, now in (
        ("model", digest, find_model(model).digest),
        ("tokenizer", tokenizer, tokenizer_digest(found)),
    ):
        if then != now:
            raise ModelError(f"the {what} of {model} was {then} when the run began and is {now} now; run again")
    return Reader(found)
