"""Keys: finding content hashes, pairs of 64-bit numbers, among many others, without a dictionary of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coretune.shapes import Int32, Int64


def locate(held: Sequence[np.ndarray], keys: np.ndarray) -> tuple[Int32[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """For each key `(n, 2)` which array of keys `(m, 2)` holds it, and its place there; -1 where none does."""
    which = np.full(len(keys), -1, dtype=np.int32)
    place = np.full(len(keys), -1, dtype=np.int64)
    for number, array in enumerate(held):
        if len(array) == len(keys) and np.array_equal(array, keys):
            return np.full(len(keys), number, dtype=np.int32), np.arange(len(keys))
    left = np.argsort(keys[:, 0])  # in key order, so that every search runs through memory once
    for number, array in enumerate(held):
        found = find(array, keys[left])
        here = found >= 0
        which[left[here]], place[left[here]] = number, found[here]
        left = left[~here]
        if not len(left):
            break
    return which, place


def find(held: np.ndarray, wanted: np.ndarray) -> Int64[np.ndarray, " k"]:
    """The place of each wanted key `(k, 2)` among those held `(m, 2)`, -1 where it is not; fastest in key order."""
    order = np.argsort(held[:, 0])  # keys stand once in an array, so there are no ties to keep in order
    first, second = held[order, 0], held[order, 1]
    at = np.searchsorted(first, wanted[:, 0])
    places = np.full(len(wanted), -1, dtype=np.int64)
    open_ = np.arange(len(wanted))
    while len(open_):  # once, but for keys that share their first half
        open_ = open_[at[open_] < len(first)]
        open_ = open_[first[at[open_]] == wanted[open_, 0]]
        same = second[at[open_]] == wanted[open_, 1]
        places[open_[same]] = order[at[open_[same]]]
        open_ = open_[~same]
        at[open_] += 1
    return places


def first_of_each(keys: np.ndarray) -> Int64[np.ndarray, " u"]:
    """The positions, ascending, at which a key `(n, 2)` stands for the first time."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ranked = keys[order]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    return np.sort(order[new])
