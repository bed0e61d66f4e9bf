"""Weighted states: by hand, against one conversation at a time, and padding that never counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coretune.chat import KINDS, Refused, chat_tokenizer, encode
from coretune.features._encoders import POOLINGS
from coretune.features._pooled_states import NOT_FINITE
from coretune.features.weighted_states import WeightedStates
from coretune.models import load_causal_lm
from coretune.pool import Example, Message, content_key
from tests.laws.feature_examples import varied_pool
from tests.made_models import WIDTH, WINDOW, causal_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(causal_folder(tmp_path_factory.mktemp("models") / "causal"))


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    pool = varied_pool()
    return pool.examples(np.arange(len(pool)))


def test_pooling_by_hand_and_padding_never_counts() -> None:
    rows = torch.tensor([[[1.0, 0], [0, 1], [1, 1]]])
    padded = torch.cat([rows, torch.full((1, 1, 2), 9.0)], dim=1)
    want = [[2 / 3, 5 / 6]]
    np.testing.assert_allclose(POOLINGS["weighted"](rows, torch.ones(1, 3, dtype=torch.bool)), want, rtol=1e-6)
    mask = torch.tensor([[True, True, True, False]])
    np.testing.assert_allclose(POOLINGS["weighted"](padded, mask), want, rtol=1e-6)
    assert not np.allclose(POOLINGS["weighted"](padded, torch.ones(1, 4, dtype=torch.bool)), want)


def one_by_one(model: str, example: Example, most: int) -> np.ndarray | None:
    """The naive twin: one conversation alone, in float64 after the model."""
    try:
        ids = encode(chat_tokenizer(model), example.messages, tools=example.tools, max_tokens=most).ids
    except Refused:
        return None
    with torch.inference_mode():
        body = load_causal_lm(model, device="cpu").base_model
        states = body(torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state[0].double().numpy()
    weights = np.arange(1, len(ids) + 1) / np.arange(1, len(ids) + 1).sum()
    vector = (weights[:, None] * states).sum(axis=0)
    return np.asarray(vector / np.linalg.norm(vector))


@pytest.mark.parametrize("batch_tokens", [64, 500])
def test_rows_are_those_of_one_conversation_at_a_time(batch_tokens: int, model: str, examples: list[Example]) -> None:
    spec = WeightedStates(model, precision="float32", batch_tokens=batch_tokens).resolved()
    got = spec.load()(examples)
    assert got.values.shape == (len(examples), WIDTH) and got.values.dtype == np.float16
    counted = 0
    for row, example in enumerate(examples):
        want = one_by_one(model, example, WINDOW)
        if want is None:
            assert np.isnan(got.values[row]).all()
            continue
        np.testing.assert_allclose(got.values[row], want, atol=5e-4)
        counted += 1
    assert counted > 20
    refused = [got.marks[name] for name in KINDS.values()]
    assert (np.isnan(got.values).any(axis=1) == np.any(refused, axis=0)).all()
    assert got.marks["truncated"].sum() > 3 and not got.marks[NOT_FINITE].any()


def test_response_and_prompt_both_count(model: str) -> None:
    def talk(prompt: str, answer: str) -> Example:
        turns = (Message("user", prompt), Message("assistant", answer))
        return Example("row", turns, content_key(turns))

    measure = WeightedStates(model, precision="float32").resolved().load()
    rows = measure([talk("Name a colour", "Blue."), talk("Name a colour", "Red."), talk("I like", "Blue.")]).values
    assert len(np.unique(rows, axis=0)) == 3
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=2e-3)


def test_the_window_is_2048_tokens_or_the_model_s(model: str) -> None:
    assert WeightedStates(model).resolved().max_tokens == WINDOW
    assert WeightedStates(model, max_tokens=32).resolved().max_tokens == 32
    with pytest.raises(ValueError, match="max_tokens 0 asked of a weighted states"):
        WeightedStates(model, max_tokens=0)


def test_states_that_are_not_finite_are_marked(tmp_path: Path, examples: list[Example]) -> None:
    from safetensors.torch import load_file, save_file

    folder = causal_folder(tmp_path / "broken")
    weights: dict[str, Any] = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][:] = float("inf")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    got = WeightedStates(str(folder), precision="float32").resolved().load()(examples[:2])
    assert got.marks[NOT_FINITE].all() and np.isnan(got.values).all()
