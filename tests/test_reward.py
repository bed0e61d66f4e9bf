"""Rewards: what the model itself gives for each row alone, however long, padded or laid out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from coretune.chat import chat_tokenizer, encode
from coretune.errors import ModelError
from coretune.features.reward import Reward, rewards_of
from coretune.models import load_tokenizer
from coretune.models.classifying import load_reward_model
from coretune.pool import Example, Message, content_key
from tests.made_models import causal_folder
from tests.made_rewards import bidirectional_folder, reward_folder

WORDS = ["why", "does", "the", "river", "run", "under", "seven", "old", "bridges", "while", "nobody", "counts", "them"]
LAYOUT = "###Human: {prompt} ###Assistant: {answer}"


def example(*said: str) -> Example:
    turns = tuple(Message(("user", "assistant")[i % 2], text) for i, text in enumerate(said))
    return Example("made", turns, content_key(turns))


def talks(count: int = 23) -> list[Example]:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, (count, 2))
    return [example(*(" ".join(rng.choice(WORDS, size)) for size in each)) for each in sizes]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(reward_folder(tmp_path_factory.mktemp("reward")))


def own(name: str, ids: list[int]) -> float:
    """The twin: the model's own forward pass over one row."""
    import torch

    loaded = load_reward_model(name)
    with torch.inference_mode():
        return float(loaded(input_ids=torch.tensor([ids])).logits[0, 0])


def test_a_reward_is_the_models_own_of_the_conversation(model: str) -> None:
    rows, tokenizer = talks(), chat_tokenizer(model)
    found = Reward(model).load()(rows)
    twins = [own(model, encode(tokenizer, each.messages, max_tokens=96).ids.tolist()) for each in rows]
    assert isinstance(found.values, np.ndarray)
    assert found.values.dtype == np.float32 and np.std(found.values) > 0.05
    np.testing.assert_allclose(found.values, twins, atol=1e-4)


def test_a_layout_replaces_the_template(model: str) -> None:
    rows, tokenizer = talks(9), load_tokenizer(model)
    found = Reward(model, layout=LAYOUT).load()(rows)
    texts = [f"###Human: {each.prompt} ###Assistant: {each.answer}" for each in rows]
    np.testing.assert_allclose(found.values, [own(model, tokenizer(text)["input_ids"]) for text in texts], atol=1e-4)
    assert Reward(model).resolved() != Reward(model, layout=LAYOUT).resolved()


@pytest.mark.parametrize("padding", [None, 5])
def test_the_end_of_a_text_is_found_as_the_model_finds_it(tmp_path: Path, padding: int | None) -> None:
    name = str(reward_folder(tmp_path, padding=padding))
    rows = [np.array([7, 5, 9, 5, 5]), np.array([5, 5]), np.arange(1, 30), np.array([3])]
    found = rewards_of(load_reward_model(name), 96, 256)(rows)
    np.testing.assert_allclose(found, [own(name, row.tolist()) for row in rows], atol=1e-4)


def test_a_bidirectional_model_is_read_row_by_row(tmp_path: Path) -> None:
    name, rows = str(bidirectional_folder(tmp_path)), talks(9)
    tokenizer = chat_tokenizer(name)
    found = Reward(name).load()(rows)
    twins = [own(name, encode(tokenizer, each.messages, max_tokens=96).ids.tolist()) for each in rows]
    np.testing.assert_allclose(found.values, twins, atol=1e-4)


def test_only_the_turns_up_to_the_last_answer_are_read(model: str) -> None:
    whole = example("One?", "1", "And then?")
    found = Reward(model).load()([whole, example("One?", "1"), example("Nobody answers.")])
    assert found.values[0] == found.values[1] and np.isnan(found.values[2])
    assert found.marks["no answer"].tolist() == [False, False, True]


@pytest.mark.parametrize("layout", [None, LAYOUT])
def test_long_conversations_lose_their_beginning_first(model: str, layout: str | None) -> None:
    long = " ".join(WORDS * 9)
    measure = Reward(model, layout=layout).load()
    found = measure([example(long, "Yes."), example("Well?", long), example("Well?", "Yes.")])
    assert found.marks["truncated"].tolist() == [True, True, False]
    assert found.marks["answer_cut"].tolist() == [False, True, False]
    assert np.isfinite(found.values).all()
    other = measure([example("Another beginning. " + long, "Yes."), example(long, "No.")])
    if layout is None:  # the same window: what differs stood before it
        assert other.values[1] != found.values[0]
    else:
        assert other.values[0] == found.values[0] != other.values[1]


def test_causal_models_are_read_in_batches_and_others_are_not(model: str, tmp_path: Path) -> None:
    assert rewards_of(load_reward_model(model), 96, 256).__name__ == "together"
    other = bidirectional_folder(tmp_path)
    assert rewards_of(load_reward_model(other), 96, 256).__name__ == "alone"
    assert rewards_of(load_reward_model(model), 3, 256)([np.array([7])])[0] == pytest.approx(own(model, [7]), abs=1e-4)


def test_models_of_other_kinds_are_refused(tmp_path: Path) -> None:
    causal = str(causal_folder(tmp_path / "causal"))
    with pytest.raises(ModelError, match="LlamaForCausalLM; one that gives a text a number"):
        Reward(causal).load()
    two = str(reward_folder(tmp_path / "two", outputs=2))
    with pytest.raises(ModelError, match="has 2 outputs"):
        Reward(two).load()


def test_a_changed_model_and_a_layout_without_places_are_refused(model: str) -> None:
    spec = dataclasses.replace(Reward(model).resolved(), digest="0" * 32)
    with pytest.raises(ModelError, match="has changed since the run began"):
        spec.load()
    with pytest.raises(ValueError, match=r"must have \{prompt\} and \{answer\}"):
        Reward(model, layout="Rate {prompt}")
