"""Distances to certainty behind demonstrations: worked numbers, whole conversations read one at a time, no example."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from coretune.chat import KINDS, chat_tokenizer, encode
from coretune.features import Ragged, _one_shot
from coretune.features._answer_losses import causal_of
from coretune.features._demonstrations import Behind, behind
from coretune.features._one_shot import CUT, losses_behind
from coretune.features.answer_token_losses import AnswerTokenLosses
from coretune.features.demonstration_distance import DemonstrationDistance, distances, root_mean_squares
from coretune.features.reference_pool import ReferencePool
from coretune.pool import Example, Message
from tests.made_models import causal_folder, no_bars
from tests.test_demonstration_loss import ANCHORS, ROWS, WINDOW, turns_of

TOLERANCE = DemonstrationDistance.tolerance


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(causal_folder(tmp_path_factory.mktemp("model"), window=WINDOW))


@pytest.fixture
def spec(model: str) -> DemonstrationDistance:
    return DemonstrationDistance(model, ReferencePool.of(ANCHORS), precision="float32")


def naive(model: Any, tokenizer: Any, messages: list[Message], anchor: Example) -> float:
    """sqrt(mean (1 - p)^2) of an anchor's answers at the end of one conversation: all logits, no cache."""
    one, alone = encode(tokenizer, messages), encode(tokenizer, anchor.messages)
    scored = np.flatnonzero(one.answer_mask)[-int(alone.answer_mask.sum()) :]
    ids = torch.from_numpy(one.ids.astype(np.int64))
    with torch.inference_mode():
        p = torch.softmax(model(input_ids=ids[None]).logits[0].float(), 1)[scored - 1, ids[scored]]
    return float(((1 - p) ** 2).mean().sqrt())


def test_worked_numbers() -> None:
    """Three answer tokens: as they stand, behind a good example, behind a bad one; then which token counts most."""
    p = [[0.5, 0.2, 0.8], [0.9, 0.6, 0.8], [0.4, 0.1, 0.8], [0.01, 0.9], [0.1, 0.9], [0.01, 0.99]]
    losses = Ragged.of([-np.log(each) for each in p])
    d = distances(losses)
    assert d[:3] == pytest.approx([0.5568, 0.2646, 0.6351], abs=5e-5)
    assert d[0] - d[1:3] == pytest.approx([0.2922, -0.0783], abs=5e-5)
    assert d[3] - d[4:] == pytest.approx([0.0633, 0.0035], abs=5e-5)
    nats = np.array([-losses[row].sum() for row in range(6)])
    assert nats[1:3] - nats[0] == pytest.approx([1.6864, -0.9163], abs=5e-5)
    assert nats[4:] - nats[3] == pytest.approx([2.3026, 0.0953], abs=5e-5)


def test_rows_without_an_answer_have_no_distance() -> None:
    found = distances(Ragged.of([[], [np.log(2)], [], [np.inf, 0.0], []]))
    np.testing.assert_allclose(found, [np.nan, 0.5, np.nan, np.sqrt(0.5), np.nan], rtol=1e-6)
    assert np.isnan(distances(Ragged.of([[]]))).all()


@pytest.mark.parametrize("cache", [True, False])
def test_values_are_those_of_whole_conversations(
    spec: DemonstrationDistance, model: str, cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept keys and values or none, behind an example and without one."""
    from transformers import AutoModelForCausalLM

    if not cache:
        monkeypatch.setattr(_one_shot, "keeps", lambda model: False)
    with no_bars():
        whole = AutoModelForCausalLM.from_pretrained(model).eval()
    tokenizer = chat_tokenizer(model)
    found = spec.load()(ROWS[:3])
    want = [[naive(whole, tokenizer, behind(turns_of(row), one), one) for one in ANCHORS] for row in ROWS[:3]]
    assert found.values.dtype == np.float32 and not any(flags.any() for flags in found.marks.values())
    np.testing.assert_allclose(found.values, want, atol=TOLERANCE)
    alone = distances(AnswerTokenLosses(model, precision="float32").load()(ANCHORS).values)
    np.testing.assert_allclose(alone, [naive(whole, tokenizer, list(one.messages), one) for one in ANCHORS], atol=1e-5)
    for each in (found.values, alone):
        assert each.min() >= 0 and each.max() <= 1
    assert np.abs(alone - found.values).max() > 10 * TOLERANCE


@pytest.mark.parametrize("kept", [True, False])
def test_an_empty_demonstration_changes_nothing(spec: DemonstrationDistance, model: str, kept: bool) -> None:
    """With nothing before a conversation but what it begins with anyway, utility is 0."""
    tokenizer, resolved = chat_tokenizer(model), spec.resolved()
    encoded = [encode(tokenizer, one.messages) for one in (ANCHORS[0], ANCHORS[3])]
    head = 2 if kept else 0
    group = Behind(
        range(2),
        encoded[0].ids[:head].tolist(),
        [one.ids[head:].tolist() for one in encoded],
        [one.answer_mask[head:] for one in encoded],
        False,
    )
    assert len({tuple(one.ids[:head]) for one in encoded}) == 1
    losses, ends = losses_behind(causal_of(resolved), group, 64, 0, kept)
    alone = distances(AnswerTokenLosses(model, precision="float32").load()([ANCHORS[0], ANCHORS[3]]).values)
    np.testing.assert_allclose(root_mean_squares(losses.astype(np.float64), ends), alone, atol=1e-5)


def test_neighbours_padding_and_copies_do_not_matter(spec: DemonstrationDistance) -> None:
    """Alone or among others, in batches of any size; a copy has its original's row, or its column."""
    whole = spec.load()(ROWS)
    np.testing.assert_array_equal(spec.load()([ROWS[1]]).values[0], whole.values[1])
    for batch_tokens in (1, 64, 4096):
        found = replace(spec, batch_tokens=batch_tokens).load()(ROWS[:2]).values
        np.testing.assert_allclose(found, whole.values[:2], atol=TOLERANCE)
    twice = replace(spec, anchors=ReferencePool.of([*ANCHORS, ANCHORS[1]])).load()([ROWS[0], ROWS[1], ROWS[0]]).values
    np.testing.assert_array_equal(twice[0], twice[2])
    np.testing.assert_allclose(twice[:, 1], twice[:, 5], atol=TOLERANCE)
    np.testing.assert_allclose(twice[:2, :5], whole.values[:2], atol=TOLERANCE)


def test_a_long_demonstration_is_cut_and_an_answer_never(spec: DemonstrationDistance) -> None:
    found = spec.load()(ROWS)
    assert found.marks[CUT].tolist() == [False, False, False, False, True]
    assert found.marks[KINDS["no_answer"]].tolist() == [False, False, False, True, False]
    assert np.isnan(found.values[3]).all() and np.isfinite(found.values[[0, 1, 2, 4]]).all()


def test_it_is_of_no_use_without_anchors(model: str) -> None:
    with pytest.raises(ValueError, match="without anchors"):
        DemonstrationDistance(model, ReferencePool.of([]))
