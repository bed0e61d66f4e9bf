"""MIG: rows that add most information to labels, of which the first pieces about a label count most."""

from __future__ import annotations

import heapq
import math

import numpy as np

from coretune.pickers.label_graph import LabelGraph
from coretune.selection import Selection
from coretune.shapes import Float, Int, Int64


def mig(
    labels: Int[np.ndarray, " t"],
    offsets: Int[np.ndarray, " n1"],
    score: Float[np.ndarray, " n"],
    k: int,
    *,
    shares: LabelGraph,
    exponent: float = 0.8,
    floor: float = 1e-6,
) -> Selection:
    """Greedy picks for the information E = sum over labels of phi(what has reached the label), phi(x) = x^`exponent`.

    `labels`: the labels of all rows as numbers from 0, one row after the other; row i's are `offsets[i]` to `offsets[i
    + 1]`, and count once each. `score`, from 0: what a row says about each of its labels (a fixed sum a row is `score`
    divided by its number of labels). `shares`: what part of it goes to which labels, `propagation` of a `LabelGraph`.

    Each pick is the row with the largest gain, the slope of E towards it: its score times the sum over its labels p of
    sum_q a_pq phi'(x_q), with phi'(x) = exponent (x + `floor`)^(exponent - 1) and x the information so far; equal gains
    go to the lower row. Gains fall, so a row is looked at again only when its last gain is the largest (lazy greedy;
    Minoux 1978), and the picks are those of the loop over all rows, up to rounding. Rows without labels come last. The
    first k picks are those of k + 1. Memory: some 150 bytes a row.

    Raises `ValueError` where `k` is not from 0 to n, a label is not in the graph, the offsets do not fit, a score is
    negative or not finite, or `exponent` is not between 0 and 1 or `floor` not above 0.

    Source: MIG, Chen et al. (2025), arXiv 2504.13835, algorithm 1; `floor` is the authors' code's.
    """
    n = len(offsets) - 1
    if not 0 <= k <= n:
        raise ValueError(f"{k} rows asked of {n}")
    if not 0 < exponent < 1 or not floor > 0:
        raise ValueError(f"exponent {exponent} and floor {floor} asked; give one between 0 and 1, and one above 0")
    values = np.asarray(score, dtype=np.float64)
    row, own, starts = _checked(np.asarray(labels), np.asarray(offsets), values, len(shares))
    reached = _Reached(shares, exponent, floor)
    gains = values * np.bincount(row, reached.gain[own], minlength=n)
    heap = [(-gain * (1 + 1e-9), i, -1) for i, gain in enumerate(gains.tolist())]  # above what is summed exactly
    heapq.heapify(heap)
    picks: list[int] = []
    found: list[float] = []
    while len(picks) < k:
        bound, i, seen = heap[0]
        some = own[starts[i] : starts[i + 1]]
        if seen < len(picks):
            gain = float(values[i]) * math.fsum(reached.gain[some].tolist())
            heapq.heapreplace(heap, (-gain, i, len(picks)))
            continue
        heapq.heappop(heap)
        picks.append(i)
        found.append(-bound)
        reached.add(some, float(values[i]))
    return Selection.of(picks, np.array(found))


def _checked(
    labels: Int[np.ndarray, " t"], offsets: Int[np.ndarray, " n1"], score: Float[np.ndarray, " n"], count: int
) -> tuple[Int64[np.ndarray, " u"], Int64[np.ndarray, " u"], Int64[np.ndarray, " n1"]]:
    """Each row's labels once, in order: the row, the label, and where each row begins."""
    n = len(offsets) - 1
    if len(score) != n or not ((score >= 0) & (score < np.inf)).all():
        raise ValueError(f"{n} rows need a score each, finite and from 0; found {len(score)}")
    if offsets[0] != 0 or offsets[-1] != len(labels) or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets must ascend from 0 to {len(labels)}; found {offsets[0]} to {offsets[-1]}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < count:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} with a graph of {count}; number them from 0")
    pairs = np.unique(np.repeat(np.arange(n), np.diff(offsets)) * count + labels)
    row, own = np.divmod(pairs, count)
    return row, own, np.searchsorted(row, np.arange(n + 1))


class _Reached:
    """How much information has reached each label, and `gain`: the slope of E towards more of it at each label."""

    def __init__(self, shares: LabelGraph, exponent: float, floor: float) -> None:
        self._shares, self._exponent, self._floor = shares, exponent, floor
        order = np.argsort(shares.others, kind="stable")
        self._senders = shares.labels[order]
        self._sent = np.searchsorted(shares.others[order], np.arange(len(shares) + 1))
        self._information = np.zeros(len(shares))
        self._slope = self._slopes(np.arange(len(shares)))
        self.gain = np.zeros(len(shares))
        self._renew(np.arange(len(shares)))

    def add(self, labels: Int64[np.ndarray, " l"], amount: float) -> None:
        """One more row: so much information at each of these labels."""
        edges = _runs(self._shares.starts, labels)
        reached = self._shares.others[edges]
        np.add.at(self._information, reached, amount * self._shares.weights[edges])
        reached = np.unique(reached)
        self._slope[reached] = self._slopes(reached)
        self._renew(np.unique(self._senders[_runs(self._sent, reached)]))

    def _slopes(self, labels: Int64[np.ndarray, " l"]) -> Float[np.ndarray, " l"]:
        return np.asarray(self._exponent * (self._information[labels] + self._floor) ** (self._exponent - 1))

    def _renew(self, labels: Int64[np.ndarray, " l"]) -> None:
        """What each of these labels would add, anew."""
        edges = _runs(self._shares.starts, labels)
        place = np.repeat(np.arange(len(labels)), np.diff(self._shares.starts)[labels])
        adds = self._shares.weights[edges] * self._slope[self._shares.others[edges]]
        self.gain[labels] = np.bincount(place, adds, minlength=len(labels))


def _runs(starts: Int64[np.ndarray, " s"], which: Int64[np.ndarray, " l"]) -> Int64[np.ndarray, " e"]:
    """The places from `starts[i]` to `starts[i + 1]` of each i, one run after the other."""
    sizes = starts[which + 1] - starts[which]
    return np.asarray(np.arange(int(sizes.sum())) + np.repeat(starts[which] - (np.cumsum(sizes) - sizes), sizes))
