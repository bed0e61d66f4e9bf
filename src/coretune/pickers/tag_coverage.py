"""Tag coverage: the rows with the most tags first, each only if it has a tag that no earlier one had."""

from __future__ import annotations

import numpy as np

from coretune.selection import Selection
from coretune.shapes import Bool, Int, Int64

BLOCK = 4096  # rows looked at together before they are gone through one by one


def tag_coverage(tags: Int[np.ndarray, " t"], offsets: Int[np.ndarray, " n1"], k: int) -> Selection:
    """Sweeps over the rows, those with the most tags first, each taking every row with a tag not covered in it yet.

    `tags`: the tags of all rows as numbers from 0, one row after the other; row i's are `offsets[i]` to `offsets[i +
    1]`, and a tag that a row has twice counts once. Rows with equally many tags are in order. When nothing more is
    added, coverage begins anew and the next sweep goes over the rows left; rows without tags come last, in order. The
    first k picks are those of k + 1. Gains: how many tags a row covers newly in its sweep; 0 for rows without tags.

    Raises `ValueError` where `k` is not from 0 to n, a tag is negative, or the offsets do not fit the tags.

    Source: InsTag, Lu et al. (2024), arXiv 2308.07074, complexity-first diverse sampling; that coverage begins anew is
    how the sampling reaches its budget by a summary of the paper.
    """
    n = len(offsets) - 1
    if not 0 <= k <= n:
        raise ValueError(f"{k} rows asked of {n}")
    owned = _without_repeats(np.asarray(tags, dtype=np.int64), np.asarray(offsets, dtype=np.int64))
    order = np.argsort(-owned.sizes, kind="stable")
    picks: list[int] = []
    gains: list[int] = []
    left = order[owned.sizes[order] > 0]
    while len(picks) < k and len(left):
        taken, new = _sweep(owned, left, k - len(picks))
        picks += left[taken].tolist()
        gains += new
        left = np.delete(left, taken)
    bare = order[owned.sizes[order] == 0][: k - len(picks)]
    return Selection.of([*picks, *bare.tolist()], np.array([*gains, *np.zeros(len(bare))], dtype=np.float64))


class _Owned:
    """Each row's tags, every one once: row i's are `tags[starts[i]:starts[i] + sizes[i]]`."""

    def __init__(self, tags: Int64[np.ndarray, " t"], sizes: Int64[np.ndarray, " n"]) -> None:
        self.tags, self.sizes = tags, sizes
        self.starts = np.cumsum(sizes) - sizes
        self.count = int(tags.max(initial=-1)) + 1

    def of(self, row: int) -> Int64[np.ndarray, " l"]:
        """The tags of one row."""
        return self.tags[self.starts[row] : self.starts[row] + self.sizes[row]]

    def any_new(self, rows: Int64[np.ndarray, " b"], covered: Bool[np.ndarray, " tags"]) -> Int64[np.ndarray, " l"]:
        """The places of those of these rows (none of them without tags) that have a tag not covered yet."""
        sizes = self.sizes[rows]
        first = np.cumsum(sizes) - sizes
        places = np.arange(int(sizes.sum())) + np.repeat(self.starts[rows] - first, sizes)
        return np.flatnonzero(np.logical_or.reduceat(~covered[self.tags[places]], first))


def _without_repeats(tags: Int64[np.ndarray, " t"], offsets: Int64[np.ndarray, " n1"]) -> _Owned:
    """The rows' tags, checked, each once a row."""
    if offsets[0] != 0 or offsets[-1] != len(tags) or (np.diff(offsets) < 0).any() or tags.min(initial=0) < 0:
        raise ValueError(
            f"{len(tags)} tags from {tags.min(initial=0)} with offsets from {offsets[0]} to {offsets[-1]}: tags are "
            "numbers from 0, and offsets ascend from 0 to the number of tags"
        )
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((tags, row))
    row, tags = row[order], tags[order]
    first = np.ones(len(tags), bool)
    first[1:] = (row[1:] != row[:-1]) | (tags[1:] != tags[:-1])
    return _Owned(tags[first], np.bincount(row[first], minlength=len(offsets) - 1))


def _sweep(owned: _Owned, rows: Int64[np.ndarray, " m"], most: int) -> tuple[list[int], list[int]]:
    """Places of the rows that one sweep takes, at most so many, and how many tags each covers newly."""
    covered = np.zeros(owned.count, bool)
    taken: list[int] = []
    new: list[int] = []
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        for place in owned.any_new(block, covered).tolist():
            own = owned.of(int(block[place]))
            added = len(own) - int(np.count_nonzero(covered[own]))
            if added:
                covered[own] = True
                taken.append(start + place)
                new.append(added)
                if len(taken) == most:
                    return taken, new
    return taken, new
