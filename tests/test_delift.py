"""DELIFT's three stages: what they pick by, against their formulas; kernels by hand; what they say of their cost."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coretune.cli import main
from coretune.distances import Given
from coretune.features.answer_loss import AnswerLoss
from coretune.features.answer_token_losses import AnswerTokenLosses
from coretune.features.demonstration_distance import DemonstrationDistance, distances
from coretune.features.demonstration_loss import DemonstrationLoss
from coretune.features.embedding import Embedding
from coretune.features.reference_pool import ReferencePool
from coretune.lab import Lab, release
from coretune.methods._in_context import Anchors, Utilities, clip, min_max, similarities
from coretune.methods.delift import Delift
from coretune.pickers import facility_location, repeated_facility_location
from coretune.pool import Pool
from coretune.rounds import Round, run
from coretune.runs import make_method
from coretune.selection import Budget
from tests.made_models import causal_folder
from tests.made_pools import HashedWords, pool_of, records, write_jsonl

ROWS = 30
SHORT = {"anchors": 3, "max_tokens": 384}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    yield str(causal_folder(tmp_path_factory.mktemp("model"), window=4096))
    release()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Shared, so that each pair is read once."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    return pool_of(tmp_path_factory.mktemp("pool"), ROWS)


@pytest.fixture(autouse=True)
def _hashed_words(monkeypatch):
    monkeypatch.setattr(Embedding, "resolved", lambda self: HashedWords())


def last_round(name, pool, budget, store, **options) -> Round:
    return run(make_method(name, {**SHORT, **options}), pool, Budget.parse(budget), Lab(store)).rounds[-1]


def utility_of(model, store, rows: Pool, anchors: Pool, which) -> np.ndarray:
    """U (n, m) from the features, without the method."""
    lab, known = Lab(store), {"max_tokens": SHORT["max_tokens"]}
    examples = ReferencePool.of(anchors.examples(np.asarray(which)))
    alone = distances(lab.features(AnswerTokenLosses(model, **known), anchors, np.asarray(which)).ragged())
    return alone - lab.features(DemonstrationDistance(model, examples, **known), rows).array()


def greedy(value, n: int, k: int) -> list[int]:
    """The plain loop, as long as something is added."""
    picks: list[int] = []
    while len(picks) < k:
        adds = [-1.0 if j in picks else value([*picks, j]) - value(picks) for j in range(n)]
        if max(adds) <= 1e-7:
            break
        picks.append(int(np.argmax(adds)))
    return picks


def best(s: np.ndarray, picks: list[int]) -> np.ndarray:
    return s[picks].max(axis=0) if picks else np.zeros(s.shape[1])


def test_kernels_by_hand() -> None:
    """Column sums of three rows and anchors: clip keeps ratios, min-max flattens; the row itself is outside its range.

    The zeros on the diagonal are utilities of other examples in the first two.
    """
    u = np.array([[0, 0.3, -0.2], [0.1, 0, 0.05], [-0.1, 0.2, 0]])
    none, same = np.zeros((3, 3), bool), np.eye(3, dtype=bool)
    assert clip(u, none).sum(axis=0) == pytest.approx([0.1, 0.5, 0.05])
    assert min_max(u, none).sum(axis=0) == pytest.approx([1.2, 2.2, 0.9])
    leaking = np.where(same, 5.0, u)
    np.testing.assert_allclose(min_max(leaking, same), np.where(same, 1.0, min_max(u, none)))
    assert not min_max(np.full((2, 2), 0.3), none[:2, :2]).any()


def test_stage_one_covers_anchors_by_weight(pool, model, store, caplog) -> None:
    made = last_round("delift", pool, "8", store, model=model)
    assert "30 rows before each of 3 anchors: 90 answers to read" in caplog.text
    anchors, w = made.notes["anchors"], np.array(made.notes["anchor_weights"])
    assert len(anchors) == 3 and w.sum() == ROWS
    u = utility_of(model, store, pool, pool, anchors)
    assert np.abs(u).max() <= 1
    s = np.maximum(u, 0).astype(float)
    want = greedy(lambda picks: float(w @ best(s, picks)), ROWS, 8)
    rows = made.selection.rows.tolist()
    assert rows[: len(want)] == want
    total = made.selection.gains[: len(want)].sum(dtype=float)
    assert total == pytest.approx(w @ best(s, want), rel=1e-5)
    np.testing.assert_allclose(made.columns["mean_utility"], u @ w / w.sum(), atol=1e-6)
    np.testing.assert_allclose(made.columns["helped"], (u > 0) @ w / w.sum(), atol=1e-6)
    assert (made.selection.weights == 1).all()


def test_stage_two_is_like_the_target(pool, model, store, tmp_path) -> None:
    target = pool_of(tmp_path, 2, seed=5)
    made = last_round("delift_targeted", pool, "8", store, model=model, target=target, eta=0.5)
    u = utility_of(model, store, pool, target, [0, 1])
    s = np.maximum(u, 0).astype(float)
    want = greedy(lambda picks: float(best(s, picks).sum() + 0.5 * s[picks].max(axis=1, initial=0).sum()), ROWS, 8)
    assert made.selection.rows.tolist()[: len(want)] == want
    kept = Anchors.of(Delift(model), target, 2, Lab(store), np.random.default_rng(0))
    assert kept.rows.tolist() == [0, 1] and kept.weights.tolist() == [1, 1]


def test_stage_two_saturates_where_the_target_has_no_more(pool, model, store, tmp_path) -> None:
    target = pool_of(tmp_path, 2, seed=5)
    made = last_round("delift_targeted", pool, "8", store, model=model, target=target, objective="saturating")
    anchors, w = made.notes["anchors"], np.array(made.notes["anchor_weights"])
    s, t = (np.maximum(utility_of(model, store, each, pool, anchors), 0).astype(float) for each in (pool, target))
    want = greedy(lambda picks: float(w @ np.minimum(best(s, picks), t.max(axis=0))), ROWS, 8)
    assert made.selection.rows.tolist()[: len(want)] == want
    far = last_round("delift_targeted", pool, "8", store, model=model, target=target, objective="saturating", eta=1e9)
    plain = greedy(lambda picks: float(w @ np.where(t.max(axis=0) > 0, best(s, picks), 0)), ROWS, 8)
    assert far.selection.rows.tolist()[: len(plain)] == plain


def test_stage_three_goes_beyond_what_was_learned(pool, model, store, tmp_path) -> None:
    existing = pool_of(tmp_path, 2, seed=6)
    made = last_round("delift_continual", pool, "8", store, model=model, existing=existing, nu=0.5)
    anchors, w = made.notes["anchors"], np.array(made.notes["anchor_weights"])
    s, known = (np.maximum(utility_of(model, store, each, pool, anchors), 0).astype(float) for each in (pool, existing))
    want = greedy(lambda picks: float(w @ np.maximum(best(s, picks) - 0.5 * known.max(axis=0), 0)), ROWS, 8)
    assert made.selection.rows.tolist()[: len(want)] == want
    nothing = last_round("delift_continual", pool, "8", store, model=model, existing=existing, nu=0.0)
    plain = last_round("delift", pool, "8", store, model=model)
    if nothing.notes["anchors"] == plain.notes["anchors"]:  # the same clusters
        np.testing.assert_array_equal(nothing.selection.rows, plain.selection.rows)


def test_log_probabilities_are_the_theorem_s_utility(pool, model, store) -> None:
    """The same anchors; summed over an answer's tokens, in nats."""
    made = last_round("delift", pool, "4", store, model=model, gain="log_probability")
    anchors, w = np.array(made.notes["anchors"]), np.array(made.notes["anchor_weights"])
    lab, known = Lab(store), {"max_tokens": SHORT["max_tokens"]}
    alone = lab.features(AnswerTokenLosses(model, **known), pool, anchors).ragged()
    count = np.diff(alone.offsets)
    behind = DemonstrationLoss(model, ReferencePool.of(pool.examples(anchors)), **known)
    shown = lab.features(behind, pool).array() * count
    u = shown + [alone[row].sum() for row in range(len(anchors))]
    np.testing.assert_allclose(made.columns["mean_utility"], u @ w / w.sum(), atol=1e-3)
    assert lab.features(AnswerLoss(model, **known), pool, anchors).numbers["tokens"].tolist() == count.tolist()


def test_rows_that_add_nothing_follow_by_mean_utility() -> None:
    """Rows 1 and 3 cover two anchors, 0 covers one again, 2 and 4 help with none."""
    table = np.array([[0.2, -0.4], [0.5, -0.1], [-0.3, -0.2], [0.1, 0.4], [-0.1, -0.1], [0, 0]], np.float32)
    score = np.append(table[:5].mean(axis=1), -9).astype(np.float32)
    found = Utilities(table[:5], np.arange(5), score, {}, {})
    source = Given(np.maximum(table[:5].T, 0))
    for k, want in ((2, [1, 3]), (3, [1, 3, 0]), (5, [1, 3, 0, 4, 2]), (6, [1, 3, 0, 4, 2, 5])):
        budget = Budget.parse(f"{k}").on(6, 6)
        picked = found.fill(budget, np.random.default_rng(0), lambda k: repeated_facility_location(source, k))
        assert picked.rows.tolist() == want
        plain = found.fill(budget, np.random.default_rng(0), lambda k: facility_location(source, k))
        assert plain.rows.tolist()[:2] == [1, 3]
    assert picked.gains[3:].tolist() == [0, 0, 0]


def test_similarities_have_one_scale_and_know_copies(pool, model) -> None:
    asked = Delift(model, kernel="min_max")
    anchors = Anchors(pool, np.array([3, 7]), np.ones(2))
    one, other = np.array([[0.9, 0.1], [0.2, 0.3]]), np.array([[-0.2, 0.8]])
    s, t = similarities(asked, anchors, (one, pool, np.array([3, 4])), (other, pool, np.array([5])))
    np.testing.assert_allclose(s, np.array([[1.0, 0.4], [0.3, 0.5]]))  # 0.9 is row 3 of itself: not the highest
    np.testing.assert_allclose(t, np.array([[0.0], [1.0]]))


def test_screening_tries_few_rows(pool, model, store) -> None:
    made = last_round("delift", pool, "5", store, model=model, screen="length", keep=0.3)
    said = made.notes["screen"]
    length = np.array([len(example.answer) for example in pool])
    assert said["survivors"] == 9
    assert set(made.selection.rows) <= set(np.argsort(-length, kind="stable")[:9].tolist())
    assert np.isfinite(made.columns["mean_utility"]).sum() == said["measured"]


@pytest.mark.parametrize("odd", [{"gain": "pmi"}, {"kernel": "cosine"}, {"anchors": 0}, {"keep": 0.0}])
def test_options_that_mean_nothing_are_refused_before_anything_is_spent(pool, model, tmp_path, odd) -> None:
    lab = Lab(tmp_path / "store")
    with pytest.raises(ValueError, match="asked"):
        run(make_method("delift", {"model": model, **odd}), pool, Budget.parse("5"), lab)
    assert [stage.rows for stage in lab.stages if stage.name != "choose"] == []


def test_the_command_takes_target_and_existing_data_as_files(capsys, tmp_path, model, store) -> None:
    files = {name: write_jsonl(tmp_path / f"{name}.jsonl", records(n, n)) for name, n in (("pool", 20), ("other", 2))}
    for method, flag in (("delift_targeted", "--target"), ("delift_continual", "--delift_continual.existing")):
        out = tmp_path / method
        asked = ["select", files["pool"], "--method", method, "--budget", 4, "--model", model, "--out", out, flag]
        asked += [files["other"], f"--{method}.anchors", 2, f"--{method}.max-tokens", 384, "--store", store]
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in asked])
            raise SystemExit(0)
        assert not ended.value.code, capsys.readouterr().err
        assert len([json.loads(line) for line in (out / "selected.jsonl").read_text().splitlines()]) == 4
