"""Anchors behind demonstrations: against whole conversations read one at a time, with and without a cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coretune.chat import KINDS, chat_tokenizer, encode
from coretune.errors import ModelError
from coretune.features import _one_shot
from coretune.features._causal import Causal
from coretune.features._demonstrations import Demonstrations, behind
from coretune.features._one_shot import CUT, keeps
from coretune.features.answer_loss import AnswerLoss
from coretune.features.demonstration_loss import DemonstrationLoss
from coretune.features.lora_gradient import AdapterAt
from coretune.features.reference_pool import ReferencePool
from coretune.pool import Example, Message, content_key
from coretune.store.digests import address
from tests.laws.feature_examples import varied_pool
from tests.made_adapters import adapter_folder
from tests.made_models import causal_folder, no_bars
from tests.made_tokenizers import tokenizer_for
from tests.test_lora_gradient import FAMILIES, SMALL

WINDOW = 256
NUMBERED = "{% for m in messages %}[{{ loop.index }}] {{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
NO_STOP = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n\n{% endfor %}"


def said(*turns: tuple[str, str]) -> Example:
    messages = tuple(Message(*turn) for turn in turns)
    return Example(turns[0][1], messages, content_key(messages))


ANCHORS = [
    said(("user", "Name a colour that I like."), ("assistant", "Blue.")),
    said(("user", "Hm?"), ("assistant", "1, 2"), ("user", "More?"), ("assistant", "3, 4 and five")),
    said(("system", "Be brief."), ("user", "Why?"), ("assistant", "So.")),
    said(("user", "A" * 30), ("assistant", "B" * 20)),
    said(("system", "Be brief."), ("user", "Who?"), ("assistant", "I, the " * 5)),
]
ROWS = [
    said(("user", "Another?"), ("assistant", "Red, I think.")),
    said(("system", "Be kind."), ("user", "One?"), ("assistant", "1"), ("user", "Two?"), ("assistant", "2")),
    said(("user", "One?"), ("assistant", "1"), ("user", "And then?")),
    said(("user", "Nobody answers.")),
    said(("user", "Long " * 90), ("assistant", "Short.")),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(causal_folder(tmp_path_factory.mktemp("model"), window=WINDOW))


@pytest.fixture
def spec(model: str) -> DemonstrationLoss:
    return DemonstrationLoss(model, ReferencePool.of(ANCHORS), precision="float32")


def naive(model: Any, tokenizer: Any, row: list[Message], anchor: Example) -> float:
    """Mean log-probability of an anchor's answers behind a row's turns: one conversation, all logits, no cache."""
    one = encode(tokenizer, behind(row, anchor))
    whole = encode(tokenizer, anchor.messages)
    scored = np.flatnonzero(one.answer_mask)[-int(whole.answer_mask.sum()) :]
    ids = torch.from_numpy(one.ids.astype(np.int64))
    with torch.inference_mode():
        likely = torch.log_softmax(model(input_ids=ids[None]).logits[0].float(), 1)
    return float(likely[scored - 1, ids[scored]].mean())


def turns_of(row: Example) -> list[Message]:
    """A row's turns as a demonstration shows them, by hand."""
    kept = [turn for turn in row.messages if turn.role != "system"]
    while kept and kept[-1].role != "assistant":
        kept.pop()
    system = "".join(f"{turn.content}\n\n" for turn in row.messages if turn.role == "system")
    return [replace(kept[0], content=system + kept[0].content), *kept[1:]]


@pytest.mark.parametrize("template", [None, NO_STOP, NUMBERED])
@pytest.mark.parametrize("cache", [True, False])
def test_values_are_mean_log_probabilities_of_whole_conversations(
    spec: DemonstrationLoss, model: str, template: str | None, cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cache and without; without stop tokens; where what follows depends on the demonstration's turns."""
    from transformers import AutoModelForCausalLM

    if not cache:
        monkeypatch.setattr(_one_shot, "keeps", lambda model: False)
    with no_bars():
        whole = AutoModelForCausalLM.from_pretrained(model).eval()
    found = replace(spec, template=template, max_tokens=2048).load()(ROWS[:3])
    tokenizer = chat_tokenizer(model, template)
    want = [[naive(whole, tokenizer, turns_of(row), anchor) for anchor in ANCHORS] for row in ROWS[:3]]
    assert found.values.dtype == np.float32
    np.testing.assert_allclose(found.values, want, atol=DemonstrationLoss.tolerance)
    assert not any(flags.any() for flags in found.marks.values())


def test_what_cannot_be_a_demonstration_is_marked_and_what_is_too_long_is_cut(spec: DemonstrationLoss) -> None:
    found = spec.load()(ROWS)
    assert found.marks[KINDS["no_answer"]].tolist() == [False, False, False, True, False]
    assert found.marks[CUT].tolist() == [False, False, False, False, True]
    assert np.isnan(found.values[3]).all() and np.isfinite(found.values[[0, 1, 2, 4]]).all()


def test_a_cut_demonstration_keeps_its_head_and_its_end(model: str) -> None:
    tokenizer = chat_tokenizer(model)
    placed = Demonstrations(tokenizer, ANCHORS, WINDOW)
    whole = Demonstrations(tokenizer, ANCHORS, 4096)
    for short, long in zip(placed.before(ROWS[4]), whole.before(ROWS[4]), strict=True):
        assert short.cut and not long.cut and short.suffixes == long.suffixes
        most = max(len(ids) for group in placed.groups for ids in group.suffixes)
        assert len(short.prefix) + most == WINDOW
        head = next(group.head for group in placed.groups if group.anchors == short.anchors)
        assert 0 < head < 60 and short.prefix[:head] == long.prefix[:head]
        assert short.prefix[head:] == long.prefix[-(len(short.prefix) - head) :]


@pytest.mark.parametrize("family", ["llama3", "qwen2_5", "qwen3", "gemma3", "mistral3", "smollm2", "phi3", "zephyr"])
def test_shared_and_own_tokens_are_those_of_the_whole_conversation(family: str) -> None:
    tokenizer = tokenizer_for(family)
    anchors = [each for each in ANCHORS if each.messages[0].role != "system" or family not in ("zephyr",)]
    placed = Demonstrations(tokenizer, anchors, 4096)
    seen = set()
    for row in ROWS[:3]:
        for group in placed.before(row):
            for number, suffix, mask in zip(group.anchors, group.suffixes, group.masks, strict=True):
                one = encode(tokenizer, behind(turns_of(row), anchors[number]))
                assert [*group.prefix, *suffix] == one.ids.tolist()
                own = encode(tokenizer, anchors[number].messages).answer_mask.sum()
                assert mask.sum() == own and one.answer_mask[len(group.prefix) :][mask].all() and not mask[0]
                seen.add(number)
    assert seen == set(range(len(anchors)))


def test_what_follows_is_tokenized_anew_where_a_demonstration_changes_it(model: str) -> None:
    """Turns are numbered, so the anchors of a demonstration of four turns have other numbers."""
    placed = Demonstrations(chat_tokenizer(model, NUMBERED), ANCHORS, 4096)
    two, four = ([each for each in placed.before(row)] for row in ROWS[:2])
    for group, one, other in zip(placed.groups, two, four, strict=True):
        assert one.suffixes is group.suffixes and other.suffixes != group.suffixes


def test_a_demonstration_changes_what_zero_shot_says(spec: DemonstrationLoss, model: str) -> None:
    """`AnswerLoss` of the anchors says, with the sign turned, what they are without a demonstration."""
    zero = -AnswerLoss(model, precision="float32").load()(ANCHORS).values
    shown = spec.load()(ROWS[:2]).values
    assert zero.shape == shown[0].shape
    assert np.abs(shown - zero).min() > 1e-4 and np.abs(shown[0] - shown[1]).min() > 1e-4


def test_neighbours_do_not_matter(spec: DemonstrationLoss) -> None:
    measure = spec.load()
    whole = measure(ROWS).values
    for row in (0, 1, 4):
        np.testing.assert_array_equal(measure([ROWS[row]]).values[0], whole[row])


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_batches_change_rounding_alone(spec: DemonstrationLoss, batch_tokens: int) -> None:
    one, other = spec.load()(ROWS[:2]), replace(spec, batch_tokens=batch_tokens).load()(ROWS[:2])
    np.testing.assert_allclose(one.values, other.values, atol=DemonstrationLoss.tolerance)


@pytest.mark.parametrize("family", [*FAMILIES, "mistral"])
def test_the_cache_of_every_family_is_kept_or_left_alone(family: str) -> None:
    """Windows of attention slide over what is kept as over what is read anew."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = FAMILIES[family][0] if family in FAMILIES else {**SMALL, "sliding_window": 6}
    with no_bars():
        whole = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config)).eval()
    read = Causal(whole, family, "cpu")
    assert keeps(read) == (family != "falcon_h1")
    if not keeps(read):
        return
    ids = np.arange(40) % 37 + 1
    own = _one_shot.Batch(np.arange(2), np.stack([ids[30:], ids[30:]]), np.ones((2, 10), dtype=bool))
    states = _one_shot.after(read, ids[:30].tolist())(own)
    want = read.read(ids[None]).last_hidden_state[:, 30:]
    np.testing.assert_allclose(states, want.expand(2, -1, -1), atol=1e-4)


def test_an_adapter_changes_values(spec: DemonstrationLoss, model: str, tmp_path: Path) -> None:
    tuned = replace(spec, adapter=AdapterAt("d", str(adapter_folder(tmp_path, Path(model)))))
    assert np.abs(tuned.load()(ROWS[:2]).values - spec.load()(ROWS[:2]).values).min() > 1e-4


def test_references_are_data_with_a_digest(spec: DemonstrationLoss) -> None:
    pool = varied_pool()
    examples = pool.examples(np.arange(len(pool)))
    made = ReferencePool.of(examples)
    assert [(each.messages, each.tools, each.key) for each in made.examples()] == [
        (each.messages, each.tools, each.key) for each in examples
    ]
    assert len({ReferencePool.of(some).digest for some in (ANCHORS, ANCHORS[::-1], ANCHORS[:2])}) == 3
    with pytest.raises(ValueError, match=r"ReferencePool\.of"):
        ReferencePool("0" * 32, made.records)
    known = spec.resolved()
    assert address(known) != address(replace(known, anchors=ReferencePool.of(ANCHORS[::-1])))
    assert address(known) == address(
        replace(known, anchors=ReferencePool.of([replace(each, id="x") for each in ANCHORS]))
    )


def test_anchors_that_cannot_be_used_are_refused(spec: DemonstrationLoss) -> None:
    with pytest.raises(ValueError, match="without anchors"):
        replace(spec, anchors=ReferencePool.of([]))
    with pytest.raises(ModelError, match="anchor 1 cannot stand behind"):
        replace(spec, anchors=ReferencePool.of([ANCHORS[0], ROWS[3]])).load()
    with pytest.raises(ModelError, match=r"anchor 3 takes .* no room"):
        replace(spec, max_tokens=80).load()


@pytest.mark.models
def test_a_demonstration_of_the_answer_s_form_helps_the_real_model() -> None:
    anchors = [said(("user", "dog"), ("assistant", "DOG!!")), said(("user", "tree"), ("assistant", "TREE!!"))]
    rows = [said(("user", "cat"), ("assistant", "CAT!!")), said(("user", "Tell me a story."), ("assistant", "Once."))]
    spec = DemonstrationLoss("smollm2-135m", ReferencePool.of(anchors), precision="float32")
    found = spec.load()(rows).values
    zero = -AnswerLoss("smollm2-135m", precision="float32").load()(anchors).values
    assert (found[0] > found[1]).all() and (found[0] > zero).all()
