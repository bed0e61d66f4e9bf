"""Influence by checkpoint, and taking turns."""

import numpy as np
import pytest

from coretune.pickers import round_robin
from coretune.scores.influence import influence, task_means


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_one_checkpoint_and_one_target_is_the_cosine():
    rng = np.random.default_rng(0)
    x, target = unit(rng.normal(size=(50, 16))), unit(rng.normal(size=(1, 16)))
    got = influence([x[:20], x[20:]], task_means(target, np.array([0])))
    np.testing.assert_allclose(got[:, 0], x @ target[0], rtol=1e-5, atol=1e-6)


def test_influence_on_a_task_is_the_mean_cosine_with_its_rows():
    rng = np.random.default_rng(1)
    x, target, task = unit(rng.normal(size=(30, 8))), unit(rng.normal(size=(7, 8))), np.array([0, 1, 1, 2, 0, 1, 2])
    got = influence([x.astype(np.float16)], task_means(target.astype(np.float16), task))
    want = np.stack([(x @ target[task == number].T).mean(axis=1) for number in range(3)], axis=1)
    np.testing.assert_allclose(got, want, atol=2e-3)
    order = rng.permutation(30)
    np.testing.assert_array_equal(
        influence([x[order].astype(np.float16)], task_means(target.astype(np.float16), task)), got[order]
    )


def test_a_task_without_rows_is_refused():
    with pytest.raises(ValueError, match=r"tasks of \[1, 0, 1\] rows"):
        task_means(np.ones((2, 3)), np.array([0, 2]))


def test_rankings_take_turns_by_hand():
    scores = np.array([[9.0, 1.0], [8.0, 9.0], [7.0, 8.0], [6.0, 0.0], [0.0, 7.0]])
    assert round_robin(scores, 5).rows.tolist() == [0, 1, 2, 4, 3]
    assert round_robin(scores[:, :1], 3).rows.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="row 1 has no score"):
        round_robin(np.array([[1.0], [np.nan]]), 1)
