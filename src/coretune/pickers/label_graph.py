"""A graph of labels, and how information about one label spreads to those like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.distances import blocks, rows_of
from coretune.distances.similarity import lengths_of
from coretune.shapes import Float, Int64

BLOCK = 1024


@dataclass(frozen=True)
class LabelGraph:
    """Edges with weights: label p has `others[j]` with `weights[j]` for j from `starts[p]` to `starts[p + 1]`."""

    starts: Int64[np.ndarray, " labels1"]
    others: Int64[np.ndarray, " e"]
    weights: Float[np.ndarray, " e"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, weights: Float[np.ndarray, "labels labels"]) -> LabelGraph:
        """The graph of a matrix, whose zeros are no edges. Raises `ValueError` where one is negative or not finite."""
        matrix = np.asarray(weights, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not ((matrix >= 0) & (matrix < np.inf)).all():
            raise ValueError(f"weights must be a square of finite numbers from 0; found {matrix.shape}")
        label, others = np.nonzero(matrix)
        return cls(np.searchsorted(label, np.arange(len(matrix) + 1)), others.astype(np.int64), matrix[label, others])

    @property
    def labels(self) -> Int64[np.ndarray, " e"]:
        """The label that each edge goes out from."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def spread(self, information: Float[np.ndarray, " labels"]) -> Float[np.ndarray, " labels"]:
        """What arrives at each label, where every label sends its information along its edges, times their weights."""
        return np.bincount(self.others, np.asarray(information)[self.labels] * self.weights, minlength=len(self))


def similar_labels(x: Float[Any, "labels d"], *, threshold: float = 0.9) -> LabelGraph:
    """The labels whose embeddings have a cosine of at least `threshold`, weighted by it; each has itself, with 1.

    Raises `ValueError` where a value is not finite or `threshold` is not above 0. Source: MIG, Chen et al. (2025),
    arXiv 2504.13835, section 3; 0.9 is the paper's, for E5-Mistral.
    """
    if not threshold > 0:
        raise ValueError(f"a threshold of {threshold} asked; weights are cosines, and must be above 0")
    rows = rows_of(x)
    unit = rows.take(slice(None)) / lengths_of(rows)[:, None]
    sizes, others, weights = [np.zeros(1, np.int64)], [], []
    for place in blocks(rows.n, BLOCK):
        cosine = unit[place] @ unit.T
        cosine[np.arange(len(cosine)), np.arange(place.start, place.stop)] = 1
        near = cosine >= threshold
        sizes.append(near.sum(axis=1))
        others.append(np.nonzero(near)[1])
        weights.append(cosine[near])
    return LabelGraph(np.cumsum(np.concatenate(sizes)), np.concatenate(others), np.concatenate(weights))


def propagation(graph: LabelGraph, *, alpha: float = 1.0) -> LabelGraph:
    """What part of each label's information goes where: a_pq = alpha w_pq / (w_pp + alpha sum over k not p of w_pk).

    The label itself keeps w_pp over the same sum, so the parts of a label add up to 1 and no information is lost or
    made. Raises `ValueError` where a label has no weight at all or `alpha` is negative. Source: MIG, arXiv 2504.13835.
    """
    weights = _weighed(graph, alpha)
    return LabelGraph(graph.starts, graph.others, weights / _sums(graph.labels, weights, len(graph))[graph.labels])


def propagation_by_receiver(graph: LabelGraph, *, alpha: float = 1.0) -> LabelGraph:
    """As `propagation`, but divided by what arrives at the other label: a_pq = alpha w_pq / (w_qq + alpha sum of w_kq).

    Information is lost at labels with many neighbours and made at those with few, unless all have as much weight.
    Source: the authors' code of MIG, commit 7ad6af1.
    """
    weights = _weighed(graph, alpha)
    return LabelGraph(graph.starts, graph.others, weights / _sums(graph.others, weights, len(graph))[graph.others])


def _weighed(graph: LabelGraph, alpha: float) -> Float[np.ndarray, " e"]:
    if not 0 <= alpha < np.inf:
        raise ValueError(f"alpha {alpha} asked; it must be from 0 and finite")
    return np.asarray(np.where(graph.labels == graph.others, 1.0, alpha) * graph.weights)


def _sums(label: Int64[np.ndarray, " e"], weights: Float[np.ndarray, " e"], count: int) -> Float[np.ndarray, " labels"]:
    totals = np.bincount(label, weights, minlength=count)
    if not (totals > 0).all():
        bare = int(np.flatnonzero(~(totals > 0))[0])
        raise ValueError(f"label {bare} has no weight, so its information goes nowhere; give it an edge to itself")
    return totals
