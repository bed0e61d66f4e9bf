"""Mean states: by hand, against one conversation at a time, with an adapter, and padding that never counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coretune.chat import KINDS, Refused, chat_tokenizer, encode
from coretune.errors import ModelError
from coretune.features._answer_losses import merged
from coretune.features._encoders import POOLINGS
from coretune.features._pooled_states import NOT_FINITE
from coretune.features.lora_gradient import AdapterAt
from coretune.features.mean_states import MeanStates
from coretune.models import load_causal_lm
from coretune.pool import Example, Message, content_key
from tests.laws.feature_examples import varied_pool
from tests.made_adapters import adapter_folder
from tests.made_models import WIDTH, WINDOW, causal_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(causal_folder(tmp_path_factory.mktemp("models") / "causal"))


@pytest.fixture(scope="module")
def adapter(model: str, tmp_path_factory: pytest.TempPathFactory) -> AdapterAt:
    folder = adapter_folder(tmp_path_factory.mktemp("adapters") / "adapter", Path(model))
    return AdapterAt("made", str(folder))


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    pool = varied_pool()
    return pool.examples(np.arange(len(pool)))


def one_by_one(model: str, example: Example, most: int, adapter: AdapterAt | None) -> np.ndarray | None:
    """The naive twin: one conversation alone, in float64 after the model."""
    try:
        ids = encode(chat_tokenizer(model), example.messages, tools=example.tools, max_tokens=most).ids
    except Refused:
        return None
    with torch.inference_mode():
        lm = load_causal_lm(model, device="cpu")
        lm = lm if adapter is None else merged(lm, Path(adapter.path))
        states = lm.base_model(torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state[0].double().numpy()
    return np.asarray(states.mean(axis=0))


def test_pooling_by_hand_and_padding_never_counts() -> None:
    rows = torch.tensor([[[1.0, 0], [0, 1], [2, 2], [9, 9]]])
    mask = torch.tensor([[True, True, True, False]])
    np.testing.assert_allclose(POOLINGS["mean"](rows, mask), [[1.0, 1.0]])
    assert not np.allclose(POOLINGS["mean"](rows, torch.ones(1, 4, dtype=torch.bool)), [[1.0, 1.0]])


@pytest.mark.parametrize("batch_tokens", [64, 500])
@pytest.mark.parametrize("tuned", [False, True])
def test_rows_are_those_of_one_conversation_at_a_time(
    batch_tokens: int, tuned: bool, model: str, adapter: AdapterAt, examples: list[Example]
) -> None:
    at = adapter if tuned else None
    spec = MeanStates(model, at, max_tokens=WINDOW, precision="float32", batch_tokens=batch_tokens).resolved()
    got = spec.load()(examples)
    assert got.values.shape == (len(examples), WIDTH) and got.values.dtype == np.float32
    counted = 0
    for row, example in enumerate(examples):
        want = one_by_one(model, example, WINDOW, at)
        if want is None:
            assert np.isnan(got.values[row]).all()
            continue
        np.testing.assert_allclose(got.values[row], want, atol=2e-5)
        counted += 1
    assert counted > 20
    refused = [got.marks[name] for name in KINDS.values()]
    assert (np.isnan(got.values).any(axis=1) == np.any(refused, axis=0)).all()
    assert got.marks["truncated"].sum() > 3 and not got.marks[NOT_FINITE].any()


def test_an_adapter_changes_the_rows_and_normalizing_their_length(
    model: str, adapter: AdapterAt, examples: list[Example]
) -> None:
    plain = MeanStates(model, precision="float32", max_tokens=WINDOW)
    rows = plain.load()(examples[:4]).values
    tuned = replace(plain, adapter=adapter).load()(examples[:4]).values
    assert (np.abs(rows - tuned).max(axis=1) > 1e-2).all()
    units = replace(plain, normalize=True).load()(examples[:4]).values
    lengths = np.linalg.norm(rows, axis=1)
    assert (np.abs(lengths - 1) > 0.1).all()
    np.testing.assert_allclose(units, rows / lengths[:, None], rtol=1e-6)


def test_prompt_and_answer_both_count(model: str) -> None:
    def talk(prompt: str, answer: str) -> Example:
        turns = (Message("user", prompt), Message("assistant", answer))
        return Example("row", turns, content_key(turns))

    measure = MeanStates(model, precision="float32", max_tokens=WINDOW).load()
    rows = measure([talk("Name a colour", "Blue."), talk("Name a colour", "Red."), talk("I like", "Blue.")]).values
    assert len(np.unique(rows, axis=0)) == 3


def test_512_tokens_are_read_unless_told_otherwise(model: str) -> None:
    assert MeanStates(model).resolved().max_tokens == 512
    assert MeanStates(model, max_tokens=None).resolved().max_tokens == WINDOW
    with pytest.raises(ValueError, match="max_tokens 0 asked of a mean states"):
        MeanStates(model, max_tokens=0)


def test_a_checkpoint_s_weight_is_no_part_of_what_is_measured(model: str, adapter: AdapterAt) -> None:
    spec = MeanStates(model, adapter)
    assert spec.resolved() == replace(spec, adapter=replace(adapter, weight=0.1)).resolved()
    assert (spec.detail, MeanStates(model).detail) == ("tuned", "")


def test_states_that_are_not_finite_are_marked(tmp_path: Path, examples: list[Example]) -> None:
    from safetensors.torch import load_file, save_file

    folder = causal_folder(tmp_path / "broken")
    whole = MeanStates(str(folder), precision="float32", max_tokens=WINDOW).load()(examples)
    read = [set(encode(chat_tokenizer(str(folder)), each.messages, max_tokens=WINDOW).ids) for each in examples[:9]]
    odd = max(read[5] - set.union(*read[:5], *read[6:]))  # only row 5 has this token
    assert odd > 48  # none that models are tried with when they are loaded
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][odd] = float("inf")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    got = MeanStates(str(folder), precision="float32", max_tokens=WINDOW).load()(examples)
    assert got.marks[NOT_FINITE][:9].tolist() == [row == 5 for row in range(9)]
    assert np.isnan(got.values[5]).all()
    np.testing.assert_array_equal(got.values[:5], whole.values[:5])


def test_an_adapter_of_another_model_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no adapter"):
        MeanStates(model, AdapterAt("none", str(tmp_path))).load()
