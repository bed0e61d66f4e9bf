"""Rows as a tuning reads them: token ids and the mask of answer tokens, flat, and the shapes they are computed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coretune.chat import KINDS, Refused, chat_tokenizer, encode, tokenizer_digest
from coretune.errors import ModelError, PoolError
from coretune.pool import Example
from coretune.shapes import Bool, Float32, Int32, Int64
from coretune.tuning.spec import Tuning

NARROWEST = 32  # widths of batches are 32, 48, 64, 96, 128, ...: few shapes, since kernels are made ready for each
CUT = "no answer token within max_tokens"


@dataclass(frozen=True)
class Tokens:
    """Conversations as tokens: row i lies at `ends[i-1]:ends[i]` of `ids` and `answers`; one left out has no token.

    `left_out` counts rows by the reason why nothing of them is learned, `cut_rows` those that lost tokens.
    """

    ids: Int32[np.ndarray, " t"]
    answers: Bool[np.ndarray, " t"]
    ends: Int64[np.ndarray, " k"]
    pad: int
    cut_rows: int
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.ends)

    @cached_property
    def starts(self) -> Int64[np.ndarray, " k"]:
        """Where each row begins."""
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    @cached_property
    def lengths(self) -> Int64[np.ndarray, " k"]:
        """Tokens of each row."""
        found: np.ndarray = self.ends - self.starts
        return found

    @cached_property
    def answer_lengths(self) -> Int64[np.ndarray, " k"]:
        """Answer tokens of each row that have a token before them: what loss is taken on."""
        learned = self.answers.copy()
        learned[self.starts[self.lengths > 0]] = False
        return np.diff(np.concatenate([[0], np.cumsum(learned)])[np.concatenate([[0], self.ends])])


@dataclass(frozen=True)
class MicroBatch:
    """Rows computed at once: token ids `(b, w)`, padded on the right; row i is `rows[i]`, further ones are dummies.

    `places` are the flat positions whose next token is an answer token, `labels` those tokens, `owner` the row (of the
    batch) each belongs to.
    """

    rows: Int64[np.ndarray, " r"]
    ids: Int64[np.ndarray, "b w"]
    places: Int64[np.ndarray, " a"]
    labels: Int64[np.ndarray, " a"]
    owner: Int64[np.ndarray, " a"]


def encoded(spec: Tuning, examples: Iterable[Example]) -> Tokens:
    """The tokens of examples under a resolved spec. Raises `ModelError` where the tokenizer is not the resolved one."""
    tokenizer = chat_tokenizer(spec.model, spec.template)
    if spec.tokenizer not in (None, found := tokenizer_digest(tokenizer)):
        raise ModelError(
            f"the tokenizer of {spec.model} was {spec.tokenizer} when the tuning was asked and is {found}; run again"
        )
    ids, answers, cut, left_out = [], [], 0, Counter[str]()
    for example in examples:
        row, mask = np.empty(0, dtype=np.int32), np.empty(0, dtype=bool)
        try:
            one = encode(tokenizer, example.messages, tools=example.tools, max_tokens=spec.max_tokens)
            cut += bool(one.cut_context or one.cut_answer)
            if one.answer_mask[1:].any():
                row, mask = one.ids, one.answer_mask
            else:
                left_out[CUT] += 1
        except Refused as error:
            left_out[KINDS[error.kind]] += 1
        ids.append(row)
        answers.append(mask)
    ends = np.cumsum([len(row) for row in ids], dtype=np.int64)
    if not ids:
        raise PoolError("a tuning was asked on no rows; give at least one")
    if not ends[-1]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise PoolError(
            f"none of {len(ids)} rows has an answer token to learn from ({reasons}); "
            f"give other rows, or more than {spec.max_tokens} max_tokens if answers were cut"
        )
    pad = next(each for each in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if each is not None)
    return Tokens(np.concatenate(ids), np.concatenate(answers), ends, pad, cut, dict(left_out))


def widths(longest: int) -> Int64[np.ndarray, " s"]:
    """The widths of batches for rows of up to `longest` tokens: 32, 48, 64, 96, 128, 192, ..."""
    found = [min(NARROWEST, longest)]
    while found[-1] < longest:
        octave = 1 << (found[-1].bit_length() - 1)
        found.append(min(longest, found[-1] + octave // 2))
    return np.array(found, dtype=np.int64)


def micro_batches(tokens: Tokens, rows: Int64[np.ndarray, " b"], batch_tokens: int) -> Iterator[MicroBatch]:
    """The rows of an optimizer step, longest first, in batches of about `batch_tokens` tokens.

    A width always has the same number of rows, or a smaller power of two for the last of a step: few shapes.
    """
    lengths = tokens.lengths
    known = widths(int(lengths.max()))
    left = rows[np.argsort(-lengths[rows], kind="stable")]
    while len(left):
        width = int(known[np.searchsorted(known, lengths[left[0]])])
        most = max(1, batch_tokens // width)
        size = most if len(left) >= most else min(most, 1 << (len(left) - 1).bit_length())
        yield _batch(tokens, left[:size], size, width)
        left = left[size:]


def _batch(tokens: Tokens, rows: Int64[np.ndarray, " r"], size: int, width: int) -> MicroBatch:
    ids = np.full((size, width), tokens.pad, dtype=np.int64)
    places, labels, owner = [], [], []
    starts, ends = tokens.starts[rows], tokens.ends[rows]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        ids[number, : end - start] = tokens.ids[start:end]
        at = np.flatnonzero(tokens.answers[start + 1 : end])
        places.append(number * width + at)
        labels.append(tokens.ids[start + 1 : end][at].astype(np.int64))
        owner.append(np.full(len(at), number, dtype=np.int64))
    return MicroBatch(rows, ids, np.concatenate(places), np.concatenate(labels), np.concatenate(owner))


def coefficients(
    tokens: Tokens, rows: Int64[np.ndarray, " b"], weights: Float32[np.ndarray, " k"], average: str
) -> dict[int, float]:
    """What each row's mean answer loss counts in the loss of an optimizer step with these rows."""
    lengths = tokens.answer_lengths[rows].astype(np.float64)
    shares = lengths / lengths.sum() if average == "tokens" else np.full(len(rows), 1 / len(rows))
    return dict(zip(rows.tolist(), (shares * weights[rows]).tolist(), strict=True))
