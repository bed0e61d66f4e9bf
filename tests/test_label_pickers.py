"""Pickers by labels and tags: MIG with its graph, tag coverage; and the quotas of S2L."""

from __future__ import annotations

import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.partitions import equal, smallest_first
from coretune.pickers import (
    LabelGraph,
    mig,
    propagation,
    propagation_by_receiver,
    similar_labels,
    tag_coverage,
)

ALONE = propagation(LabelGraph.of(np.eye(4)))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def flat(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([one for own in lists for one in own], np.int64), np.cumsum([0, *map(len, lists)])


def dense(graph: LabelGraph) -> np.ndarray:
    matrix = np.zeros((len(graph), len(graph)))
    matrix[graph.labels, graph.others] = graph.weights
    return matrix


# the graph


def some_weights(seed: int, labels: int) -> np.ndarray:
    weights = np.triu(rng(seed).random((labels, labels)) * (rng(seed + 1).random((labels, labels)) < 0.3), 1)
    return weights + weights.T + np.eye(labels)


def test_propagation_by_hand() -> None:
    weights = np.array([[1, 0.9, 0], [0.9, 1, 0.95], [0, 0.95, 1]])
    graph = LabelGraph.of(weights)
    assert (dense(graph) == weights).all()
    want = np.array([[1 / 1.9, 0.9 / 1.9, 0], [0.9 / 2.85, 1 / 2.85, 0.95 / 2.85], [0, 0.95 / 1.95, 1 / 1.95]])
    assert dense(propagation(graph)) == pytest.approx(want)
    assert dense(propagation_by_receiver(graph)) == pytest.approx(want.T)  # the weights being symmetric
    half = dense(propagation(graph, alpha=0.5))
    assert half[0] == pytest.approx([1 / 1.45, 0.45 / 1.45, 0])
    assert dense(propagation(graph, alpha=0.0)) == pytest.approx(np.eye(3))


def test_only_by_rows_is_no_information_lost() -> None:
    graph = LabelGraph.of(some_weights(3, 30))
    information = rng(5).random(30)
    assert propagation(graph).spread(information) == pytest.approx(information @ dense(propagation(graph)))
    assert propagation(graph, alpha=0.7).spread(information).sum() == pytest.approx(information.sum())
    assert abs(propagation_by_receiver(graph).spread(information).sum() - information.sum()) > 0.01


def test_labels_that_are_alike_have_an_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["coretune.pickers.label_graph"], "BLOCK", 3)
    x = rng(2).normal(size=(11, 3)).astype(np.float32)
    unit = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    want = np.where(unit @ unit.T >= 0.6, unit @ unit.T, 0)
    assert dense(similar_labels(x, threshold=0.6)) == pytest.approx(want)
    assert np.diag(dense(similar_labels(x))).tolist() == [1] * 11
    with pytest.raises(ValueError, match="must be above 0"):
        similar_labels(x, threshold=0.0)


def test_a_graph_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        LabelGraph.of(np.ones((2, 3)))
    with pytest.raises(ValueError, match="finite numbers from 0"):
        LabelGraph.of(-np.eye(2))
    bare = LabelGraph.of(np.array([[1.0, 0], [0, 0]]))
    for normalised in (propagation, propagation_by_receiver):
        with pytest.raises(ValueError, match="label 1 has no weight"):
            normalised(bare)
        with pytest.raises(ValueError, match=r"alpha -1\.0"):
            normalised(bare, alpha=-1.0)


# mig


def mig_by_loop(lists: list[list[int]], score: np.ndarray, k: int, shares: np.ndarray) -> tuple[list[int], list[float]]:
    """The twin: G = A phi'(what has reached the labels), and the row with the largest G . e."""
    e = np.zeros((len(lists), len(shares)))
    for i, own in enumerate(lists):
        e[i, own] = score[i]
    reached, picks, gains = np.zeros(len(shares)), [], []
    for _ in range(k):
        gain = e @ (shares @ (0.8 * (reached + 1e-6) ** -0.2))
        gain[picks] = -1
        picks.append(int(gain.argmax()))
        gains.append(float(gain[picks[-1]]))
        reached += e[picks[-1]] @ shares
    return picks, gains


def test_a_first_pick_gains_the_slope_at_nothing() -> None:
    picked = mig(*flat([[0], [1], [0, 2]]), np.array([3.0, 2, 1.4]), 3, shares=ALONE)
    assert picked.rows.tolist() == [0, 1, 2]
    assert picked.gains == pytest.approx([12.68 * 3, 12.68 * 2, 12.68 * 1.4 + 1.4 * 0.8 * 3**-0.2], rel=1e-3)


def test_what_is_known_already_counts_less() -> None:
    """Two rows on label 0; a worse one on label 1 comes between them, but not if 1 hears of 0."""
    lists, score = flat([[0], [0], [1]]), np.array([5.0, 4.9, 0.5])
    assert mig(*lists, score, 3, shares=ALONE).rows.tolist() == [0, 2, 1]
    shared = propagation(LabelGraph.of(np.array([[1.0, 1.0], [1.0, 1.0]])))
    assert mig(*lists, score, 3, shares=shared).rows.tolist() == [0, 1, 2]


@given(st.integers(0, 10**6), st.booleans())
def test_mig_is_the_loop_over_all_rows(seed: int, by_row: bool) -> None:
    random = rng(seed)
    labels, n = int(random.integers(1, 12)), int(random.integers(1, 60))
    lists = [random.permutation(labels)[: random.integers(0, labels + 1)].tolist() for _ in range(n)]
    score, k = random.random(n), int(random.integers(n + 1))
    shares = (propagation if by_row else propagation_by_receiver)(LabelGraph.of(some_weights(seed, labels)))
    picked = mig(*flat(lists), score, k, shares=shares)
    rows, gains = mig_by_loop(lists, score, k, dense(shares))
    valued = [i for i, gain in enumerate(gains) if gain > 0]  # rows without labels tie with those already picked
    assert picked.rows[valued].tolist() == [rows[i] for i in valued]
    assert picked.gains[valued] == pytest.approx([gains[i] for i in valued], rel=1e-6)
    bare = [i for i, own in enumerate(lists) if not own]
    assert picked.rows[len(valued) :].tolist() == bare[: k - len(valued)]


def test_mig_on_equal_rows_takes_the_lower_and_counts_a_label_once() -> None:
    lists = [[2, 0, 1], [0, 1, 2], [1, 2, 0, 0, 1]] * 5
    assert mig(*flat(lists), np.full(15, 0.3), 15, shares=ALONE).rows.tolist() == list(range(15))


def information(lists: list[list[int]], score: np.ndarray, picks: list[int], shares: np.ndarray) -> float:
    e = np.zeros(len(shares))
    for i in picks:
        e[lists[i]] += score[i]
    return float(((e @ shares) ** 0.8).sum())


@pytest.mark.parametrize("seed", range(12))
def test_mig_comes_near_the_best(seed: int) -> None:
    random = rng(seed)
    lists = [random.permutation(7)[: random.integers(1, 4)].tolist() for _ in range(11)]
    score, shares = 0.2 + random.random(11), propagation(LabelGraph.of(some_weights(seed, 7)))
    mine = information(lists, score, mig(*flat(lists), score, 4, shares=shares).rows.tolist(), dense(shares))
    best = max(information(lists, score, list(some), dense(shares)) for some in combinations(range(11), 4))
    assert mine >= (1 - 1 / np.e) * best


def test_mig_refuses_what_it_cannot_do() -> None:
    labels, offsets = flat([[0], [3]])
    with pytest.raises(ValueError, match="2 rows need a score each"):
        mig(labels, offsets, np.array([1.0, -1]), 1, shares=ALONE)
    with pytest.raises(ValueError, match="labels from 0 to 4 with a graph of 4"):
        mig(labels + np.array([0, 1]), offsets, np.ones(2), 1, shares=ALONE)
    with pytest.raises(ValueError, match="offsets must ascend from 0 to 2"):
        mig(labels, np.array([0, 2, 1]), np.ones(2), 1, shares=ALONE)
    for options in ({"exponent": 1.0}, {"floor": 0.0}):
        with pytest.raises(ValueError, match="give one between 0 and 1, and one above 0"):
            mig(labels, offsets, np.ones(2), 1, shares=ALONE, **options)


# tag coverage


def sweeps(lists: list[list[int]], k: int) -> tuple[list[int], list[int]]:
    """The twin: sets, one row after the other."""
    order = sorted(range(len(lists)), key=lambda i: -len(set(lists[i])))
    picks, gains, covered = [], [], set()
    while len(picks) < k:
        before = len(picks)
        for i in order:
            if i not in picks and set(lists[i]) - covered and len(picks) < k:
                picks.append(i)
                gains.append(len(set(lists[i]) - covered))
                covered |= set(lists[i])
        if len(picks) == before and not covered:
            bare = [i for i in order if i not in picks][: k - len(picks)]
            return picks + bare, gains + [0] * len(bare)
        covered = set()
    return picks, gains


def test_tag_coverage_by_hand() -> None:
    """First sweep: 3 (three tags), 0 (tag 3 is new), 4 (tag 5); second: 1; third: 2; then 5, which has none."""
    lists = [[0, 3], [1, 2], [2], [0, 1, 2], [5], []]
    picked = tag_coverage(*flat(lists), 6)
    assert picked.rows.tolist() == [3, 0, 4, 1, 2, 5]
    assert picked.gains.tolist() == [3, 1, 1, 2, 1, 0]


@given(st.integers(0, 10**6), st.booleans())
def test_tag_coverage_is_the_loop(seed: int, small: bool) -> None:
    random = rng(seed)
    n = int(random.integers(1, 50))
    lists = [random.integers(0, 20, size=random.integers(0, 6)).tolist() for _ in range(n)]
    k = int(random.integers(n + 1))
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(sys.modules["coretune.pickers.tag_coverage"], "BLOCK", 4)
        picked = tag_coverage(*flat(lists), k)
    rows, gains = sweeps(lists, k)
    assert picked.rows.tolist() == rows and picked.gains.tolist() == gains


def test_tag_coverage_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="offsets ascend from 0"):
        tag_coverage(np.array([1, 2]), np.array([0, 1]), 1)
    with pytest.raises(ValueError, match="2 tags from -1"):
        tag_coverage(np.array([1, -1]), np.array([0, 2]), 1)


# quotas of S2L


def test_smallest_first_by_hand() -> None:
    assert smallest_first([3, 5, 20], 12).tolist() == [3, 4, 5]
    assert smallest_first([20, 3, 5], 12).tolist() == [5, 3, 4]
    assert smallest_first([3, 5, 20], 100).tolist() == [3, 5, 20]
    assert smallest_first([2, 9, 1, 7], 10, above=2).tolist() == [0, 5, 0, 5]
    assert smallest_first([2, 9, 1, 7], 18, above=2).tolist() == [1, 9, 1, 7]
    with pytest.raises(ValueError, match="-1 rows asked"):
        smallest_first([1], -1)


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(0, 150), st.integers(0, 4))
def test_smallest_first_fills_the_budget(sizes: list[int], k: int, above: int) -> None:
    quota = smallest_first(sizes, k, above=above)
    assert quota.sum() == min(k, sum(sizes)) and (quota <= sizes).all() and (quota >= 0).all()
    assert not sizes or np.abs(smallest_first(sizes, k) - equal(sizes, k)).max() <= 1
    small = np.array(sizes, dtype=int) <= above
    assert not quota[small].any() or (quota[~small] == np.array(sizes, dtype=int)[~small]).all()


def test_sources_outside_and_clusters_inside() -> None:
    sizes = np.array([[3, 0, 1], [2, 8, 10]])
    outer = smallest_first(sizes.sum(axis=1), 14)
    quota = [smallest_first(row, q, above=2).tolist() for row, q in zip(sizes, outer.tolist(), strict=True)]
    assert outer.tolist() == [4, 10] and quota == [[3, 0, 1], [0, 5, 5]]
