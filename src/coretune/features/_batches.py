"""Batches of fixed shapes, so that the value of a row never depends on its neighbours.

A batch has one of a few widths, and for each width always the same number of rows: what is missing is filled with
dummy rows. Sorted by length alone, and padded to the longest of its batch, a row's last bits depend on the company.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from coretune.shapes import Bool, Int64

FINEST, PARTS = 16, 8  # widths grow in steps of an eighth of an octave, and never less than 16


@dataclass(frozen=True)
class Batch:
    """Token ids `(b, w)`, padded on the right; `mask` is True on tokens. Row i is `pieces[i]`; the rest are dummies."""

    pieces: Int64[np.ndarray, " p"]
    ids: Int64[np.ndarray, "b w"]
    mask: Bool[np.ndarray, "b w"]


def widths(longest: int, finest: int = FINEST, parts: int = PARTS) -> Int64[np.ndarray, " s"]:
    """The widths of batches for pieces of up to `longest` tokens: 16, 32, ..., 256, 288, ..., 512, 576, ...

    The first is `finest`, and steps are a share `1 / parts` of an octave, but never less than `finest`: fine steps for
    small batches, of which few are part-filled, coarse ones for large batches.
    """
    found = [finest]
    while found[-1] < longest:
        octave = 1 << (found[-1].bit_length() - 1)
        found.append(found[-1] + max(finest, octave // parts))
    found[-1] = longest
    return np.array(found, dtype=np.int64)


def batches(
    pieces: Sequence[Sequence[int]], longest: int, tokens: int, pad: int, *, finest: int = FINEST, parts: int = PARTS
) -> Iterator[Batch]:
    """All pieces (token ids, at least one and at most `longest` each), in batches of about `tokens` tokens.

    Widest first, so that a batch that does not fit into memory fails at the start. `finest` and `parts` as in `widths`.
    """
    lengths = np.fromiter((len(piece) for piece in pieces), dtype=np.int64, count=len(pieces))
    known = widths(longest, finest, parts)
    bucket = np.searchsorted(known, lengths)
    for number in range(len(known))[::-1]:
        width, members = int(known[number]), np.flatnonzero(bucket == number)
        rows = max(1, tokens // width)
        for start in range(0, len(members), rows):
            yield _batch(pieces, members[start : start + rows], rows, width, pad)


def _batch(pieces: Sequence[Sequence[int]], members: Int64[np.ndarray, " p"], rows: int, width: int, pad: int) -> Batch:
    ids = np.full((rows, width), pad, dtype=np.int64)
    mask = np.zeros((rows, width), dtype=bool)
    mask[:, 0] = True  # a dummy has one token: nothing is normalised over no tokens at all
    for row, member in enumerate(members.tolist()):
        piece = pieces[member]
        ids[row, : len(piece)] = piece
        mask[row, : len(piece)] = True
    return Batch(members, ids, mask)


def chunk_sizes(tokens: int, room: int) -> list[int]:
    """Sizes of the fewest chunks of at most `room` tokens that `tokens` tokens take, as equal as can be."""
    count = -(-tokens // room)
    return [tokens // count + (chunk < tokens % count) for chunk in range(count)]
