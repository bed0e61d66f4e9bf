"""Losses of answers: against cross-entropy one example at a time, whatever stands before, beside or around them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

from coretune.chat import KINDS, Refused, chat_tokenizer, encode
from coretune.errors import ModelError
from coretune.features import Ragged, _loss_precision
from coretune.features._answer_losses import Waiting, token_losses
from coretune.features._answer_pieces import DROPPED, first_token, with_passages
from coretune.features._batches import widths
from coretune.features._causal import Causal, losses_of
from coretune.features._conversations import Conversations
from coretune.features.answer_loss import AnswerLoss
from coretune.features.answer_token_losses import AnswerTokenLosses
from coretune.features.lora_gradient import AdapterAt
from coretune.lab import Lab
from coretune.pool import Example, Message, content_key
from coretune.store.digests import address
from tests.laws.feature_examples import varied_pool
from tests.made_adapters import adapter_folder, quiet_peft
from tests.made_contexts import Given
from tests.made_models import bert_folder, causal_folder, no_bars
from tests.made_tokenizers import tokenizer_for
from tests.test_lora_gradient import FAMILIES

WINDOW = 64
ANSWERED, ALONE = 0, 1


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(causal_folder(tmp_path_factory.mktemp("model"), window=WINDOW))


@pytest.fixture
def spec(model: str) -> AnswerLoss:
    return AnswerLoss(model, precision="float32")


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    pool = varied_pool()
    return pool.examples(np.arange(len(pool)))


def talk(*said: str) -> Example:
    """Turns of a user and an assistant, one after the other."""
    turns = tuple(Message(("user", "assistant")[place % 2], words) for place, words in enumerate(said))
    return Example(said[0], turns, content_key(turns))


def plain(model: Any, ids: list[int], scored: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Losses and entropies of the scored tokens: one example, all logits, torch's cross-entropy in float32."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        entropies = torch.distributions.Categorical(logits=logits).entropy()
    asked = np.array(scored[1:], dtype=bool)
    return losses.numpy()[asked], entropies.numpy()[asked]


def naive(folder: str, given: list[Example], tuned: Callable[[Any], Any] = lambda each: each) -> list[Any]:
    """`plain` of whole conversations, cut to the window; None where there is nothing to read."""
    from transformers import AutoModelForCausalLM

    with no_bars():
        whole = tuned(AutoModelForCausalLM.from_pretrained(folder).eval())
    tokenizer, found = chat_tokenizer(folder), []
    for example in given:
        try:
            one = encode(tokenizer, example.messages, tools=example.tools, max_tokens=WINDOW)
        except Refused:
            found.append(None)
            continue
        if one.answer_mask[0]:  # the answer fills the window: one token fewer, behind the first token
            kept = one.ids[: WINDOW - 1].tolist()
            found.append(plain(whole, [tokenizer.bos_token_id, *kept], [False] + [True] * len(kept)))
        else:
            found.append(plain(whole, one.ids.tolist(), one.answer_mask.tolist()))
    return found


def test_values_are_mean_cross_entropies(spec: AnswerLoss, model: str, examples: list[Example]) -> None:
    found = spec.load()(examples)
    wanted = naive(model, examples)
    assert found.values.dtype == np.float32 and sum(each is None for each in wanted) >= 2
    for row, want in enumerate(wanted):
        got = {"mean": found.values[row], **{name: each[row] for name, each in found.numbers.items()}}
        if want is None:
            assert np.isnan(got["mean"]) and np.isnan(got["sum"]) and np.isnan(got["entropy"]) and got["tokens"] == 0
            assert any(flags[row] for flags in found.marks.values())
            continue
        losses, entropies = want
        assert got["tokens"] == len(losses)
        assert got["mean"] == pytest.approx(losses.mean(), abs=1e-5)
        assert got["sum"] == pytest.approx(losses.sum(), rel=1e-5)
        assert got["entropy"] == pytest.approx(entropies.mean(), abs=1e-5)


def test_token_losses_are_cross_entropies_in_order(spec: AnswerLoss, model: str, examples: list[Example]) -> None:
    found = AnswerTokenLosses(model, precision="float32").load()(examples)
    assert isinstance(found.values, Ragged) and found.values.values.dtype == np.float32
    for row, want in enumerate(naive(model, examples)):
        assert found.marks["missing"][row] == (want is None)
        np.testing.assert_allclose(found.values[row], [] if want is None else want[0], atol=1e-5, rtol=0)
    sums = spec.load()(examples).numbers["sum"]
    np.testing.assert_allclose([each.sum() or np.nan for each in found.values], sums, rtol=1e-5)


def test_token_losses_come_back_from_the_lab(model: str, examples: list[Example], tmp_path: Path) -> None:
    pool = varied_pool()
    barred = np.flatnonzero(np.array([not any(t.role == "assistant" and t.content for t in e.messages) for e in pool]))
    spec = AnswerTokenLosses(model, precision="float32")
    stored = Lab(tmp_path).features(spec, pool.exclude(barred, "no answer")).ragged()
    fresh = spec.load()(examples).values
    assert isinstance(fresh, Ragged)
    np.testing.assert_array_equal(stored.offsets, fresh.offsets)
    np.testing.assert_array_equal(stored.values, fresh.values)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_s_losses_are_its_own(family: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Caps and scales that models put on logits behind their output layer count, part by part."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = {**FAMILIES[family][0], "vocab_size": 64}
    with no_bars():
        whole = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config)).eval()
    ids = [rng.integers(1, 64, size=size).tolist() for size in (30, 17, 32, 21, 9)]
    masks = [np.arange(len(row)) >= 5 for row in ids]
    want = [plain(whole, row, mask.tolist()) for row, mask in zip(ids, masks, strict=True)]
    read = Causal(whole, family, "cpu")
    read.positions = 16  # several parts, and one that is filled up
    found = Conversations(np.arange(5), ids, masks, {}, 5, 32, 0)
    losses, entropies, ends = token_losses(read, found, 64)
    np.testing.assert_allclose(losses, np.concatenate([one for one, _ in want]), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(entropies, np.concatenate([other for _, other in want]), atol=1e-5, rtol=1e-5)
    assert ends.tolist() == np.cumsum([0, 25, 12, 27, 16, 4]).tolist()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("before", ["conversation", "nothing"])
def test_a_value_is_the_row_s_alone_to_the_last_bit(
    model: str, examples: list[Example], before: Any, precision: Any, rng: np.random.Generator
) -> None:
    """Any order, any company, and as many states a time as may wait."""
    measure = AnswerTokenLosses(model, before, precision=precision).load()
    whole = measure(examples).values
    for rows in (rng.permutation(len(examples)), np.array([3]), np.arange(2, len(examples), 3)):
        part = measure([examples[row] for row in rows]).values
        for place, row in enumerate(rows):
            np.testing.assert_array_equal(part[place], whole[row])  # type: ignore[index]


def test_padding_does_not_matter(spec: AnswerLoss, examples: list[Example]) -> None:
    """Batches of one row against batches of many."""
    one, other = (replace(spec, batch_tokens=tokens).load()(examples) for tokens in (1, 4096))
    np.testing.assert_allclose(one.values, other.values, atol=1e-5)
    np.testing.assert_allclose(one.numbers["entropy"], other.numbers["entropy"], atol=1e-5)


def test_behind_nothing_each_answer_stands_alone(model: str, examples: list[Example]) -> None:
    """The same token ids as in the conversation, each answer behind the first token."""
    from transformers import AutoModelForCausalLM

    found = AnswerTokenLosses(model, "nothing", precision="float32").load()(examples)
    both = AnswerTokenLosses(model, precision="float32").load()(examples)
    with no_bars():
        whole = AutoModelForCausalLM.from_pretrained(model).eval()
    assert found.values.offsets.tolist() == both.values.offsets.tolist()  # type: ignore[union-attr]
    tokenizer, row = chat_tokenizer(model), 8  # two answers
    one = encode(tokenizer, examples[row].messages)
    edges = np.flatnonzero(np.diff(one.answer_mask.astype(int))) + 1
    parts = [part.tolist() for part in np.split(one.ids, edges)[1::2]]
    assert len(parts) == 2
    want = [plain(whole, [tokenizer.bos_token_id, *part], [False] + [True] * len(part))[0] for part in parts]
    np.testing.assert_allclose(found.values[row], np.concatenate(want), atol=1e-5)  # type: ignore[index]


def test_where_an_answer_fills_the_window_both_score_its_beginning(model: str) -> None:
    """Nothing but the first token has room before it, so both losses are the same."""
    long = talk("Why?", "a " * 200)
    one, other = (
        AnswerTokenLosses(model, before, precision="float32").load()([long]) for before in ("conversation", "nothing")
    )
    assert one.marks["answer_cut"][0] and other.marks["answer_cut"][0] and one.marks["truncated"][0]
    assert len(one.values[0]) == WINDOW - 1
    np.testing.assert_array_equal(one.values[0], other.values[0])


def test_truncation_takes_context_before_answers(spec: AnswerLoss, examples: list[Example]) -> None:
    found = replace(spec, max_tokens=WINDOW).load()(examples)
    assert found.marks["truncated"][[2, 3, 4]].all() and not found.marks["truncated"][[0, 1]].any()
    assert found.marks["answer_cut"].nonzero()[0].tolist()[:2] == [3, 4] and not found.marks["answer_cut"][2]
    counts = spec.load()([examples[2], talk("Q", "Short.")]).numbers["tokens"]
    assert counts[0] == counts[1]  # nothing of the answer is lost
    assert found.marks[KINDS["no_answer"]].nonzero()[0].tolist() == [10, 11]
    alone = replace(spec, before="nothing").load()(examples)
    assert not alone.marks["truncated"][2] and alone.marks["answer_cut"][3]


def test_where_no_token_begins_the_conversation_one_is_put_there(tmp_path: Path) -> None:
    """A template that opens with the assistant's own words: its first token is scored all the same."""
    folder = causal_folder(tmp_path)
    template = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    opened = Example("", (turns := (Message("assistant", "Hello."), Message("user", "Hi."))), content_key(turns))
    spec = AnswerTokenLosses(str(folder), template=template, precision="float32")
    one, other = (replace(spec, before=before).load()([opened]).values[0] for before in ("conversation", "nothing"))
    tokens = len(encode(chat_tokenizer(str(folder), template), turns).answer_mask.nonzero()[0])
    assert len(one) == len(other) == tokens > 1
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_first_token_is_the_tokenizer_s_or_the_template_s() -> None:
    smol, qwen = tokenizer_for("smollm2"), tokenizer_for("qwen2_5")
    assert first_token(smol, "smol") == smol.bos_token_id
    assert qwen.bos_token_id is None
    assert first_token(qwen, "qwen") == qwen.convert_tokens_to_ids("<|im_start|>")
    qwen.chat_template = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    assert first_token(qwen, "qwen") == qwen.eos_token_id
    qwen.eos_token = None
    qwen.chat_template = "{% for m in messages %}{{ m['content'] }}|\n{% endfor %}"
    with pytest.raises(ModelError, match="no token that begins a text"):
        first_token(qwen, "qwen")


def test_an_empty_context_changes_nothing(spec: AnswerLoss, examples: list[Example]) -> None:
    bare, empty = spec.load()(examples), replace(spec, context=Given()).load()(examples)
    np.testing.assert_array_equal(bare.values, empty.values)
    for name in bare.numbers:
        np.testing.assert_array_equal(bare.numbers[name], empty.numbers[name])
    assert not empty.marks[DROPPED].any() and not empty.numbers["passages"].any()


def test_passages_stand_before_the_first_user_turn_s_text(spec: AnswerLoss) -> None:
    example = Example(
        "", (turns := (Message("system", "Hm"), *talk("One?", "1", "Two?", "2").messages)), content_key(turns)
    )
    told = with_passages(example, ["A b.", "C."])
    assert told is not None and told.messages[1].content == "A b.\n\nC.\n\nOne?"
    assert [*told.messages[2:], told.messages[0]] == [*turns[2:], turns[0]]
    spec = replace(spec, context=Given(("A b.", "C.")), max_tokens=512)
    found, want = spec.load()([example]), replace(spec, context=None).load()([told])
    assert found.values == want.values
    assert found.numbers["passages"] == 2 and found.marks["searched"][0] and found.numbers["given"] == 2
    assert with_passages(Example("", (), b""), ["A"]) is None


@pytest.mark.parametrize("room, taken", [(1, ()), (6, ("C.",)), (10, ("C.",)), (1000, ("A" * 20, "C.", "D" * 9))])
def test_as_many_whole_passages_as_fit_go_in(spec: AnswerLoss, model: str, room: int, taken: tuple[str, ...]) -> None:
    """The first is too long for little room, which lets a later one in."""
    passages, example = ("A" * 20, "C.", "D" * 9), talk("One?", "1")
    tokenizer = chat_tokenizer(model)
    sizes = [len(tokenizer(f"{each}\n\n", add_special_tokens=False).input_ids) for each in passages]
    assert sizes[0] > 10 >= 6 >= sizes[1] and sizes[1] + sizes[2] > 10
    spec = replace(spec, context=Given(passages), context_tokens=room, max_tokens=512)
    found = spec.load()([example])
    want = replace(spec, context=None).load()([with_passages(example, taken) or example])
    assert found.values == want.values
    assert found.numbers["passages"] == len(taken) and found.numbers[DROPPED] == 3 - len(taken)
    assert found.marks[DROPPED][0] == (len(taken) < 3)


def test_passages_give_way_before_the_conversation_does(spec: AnswerLoss) -> None:
    """The worst one goes first, and whole; what is left is not cut."""
    example, passages = talk("Name a colour.", "Blue."), tuple(letter * 9 for letter in "wxyz")
    spec = replace(spec, context=Given(passages), max_tokens=WINDOW)
    found = spec.load()([example])
    count = int(found.numbers["passages"][0])
    assert 0 < count < 4 and found.numbers[DROPPED] == 4 - count and not found.marks["truncated"][0]
    want = replace(spec, context=Given(passages[:count])).load()([example])
    assert found.values == want.values
    asked = spec.load()([Example("", (turns := (Message("assistant", "Alone."),)), content_key(turns))])
    assert asked.marks[DROPPED][0] or asked.marks[KINDS["turn_dropped"]][0] or np.isnan(asked.values[0])


def test_an_adapter_is_merged(spec: AnswerLoss, model: str, examples: list[Example], tmp_path: Path) -> None:
    """Against PEFT's own layers; rank-stabilised scaling and DoRA, which gradients refuse, are adapters too."""
    import peft

    for number, more in enumerate(({}, {"use_rslora": True}, {"use_dora": True})):
        folder = adapter_folder(tmp_path / str(number), Path(model), **more)
        found = replace(spec, adapter=AdapterAt("d", str(folder))).load()(examples[:9])

        def tuned(base: Any, folder: Path = folder) -> Any:
            with quiet_peft():
                return peft.PeftModel.from_pretrained(base, folder).eval()

        want = [each[0].mean() for each in naive(model, examples[:9], tuned)]
        np.testing.assert_allclose(found.values, want, atol=2e-5, rtol=0)
        assert np.abs(found.values - spec.load()(examples[:9]).values).min() > 1e-4


def test_in_bfloat16_an_adapter_of_nothing_changes_nothing(
    spec: AnswerLoss, model: str, examples: list[Example], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = adapter_folder(tmp_path / "none", Path(model))
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: 0 * each for name, each in weights.items()}, folder / "adapter_model.safetensors")
    plain = replace(spec, precision="bfloat16")
    bare = plain.load()(examples[:9]).values
    assert np.array_equal(replace(plain, adapter=AdapterAt("d", str(folder))).load()(examples[:9]).values, bare)


def test_an_adapter_that_does_not_fit_is_refused(spec: AnswerLoss, model: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(ModelError, match="holds no adapter"):
        replace(spec, adapter=AdapterAt("d", str(tmp_path))).load()
    folder = adapter_folder(tmp_path / "a", Path(model))
    weights = load_file(folder / "adapter_model.safetensors")
    moved = next(iter(weights))
    weights[moved.replace("layers.0", "layers.7")] = weights.pop(moved)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="does not fit"):
        replace(spec, adapter=AdapterAt("d", str(folder))).load()


def test_losses_and_entropies_of_known_distributions() -> None:
    """Uniform over 4: both ln 4; certain: both 0; worked by hand: p = (1/2, 1/4, 1/8, 1/8)."""
    logits = torch.tensor([[3.0] * 4, [200.0, 0, 0, 0], [0.5, 0.25, 0.125, 0.125]])
    logits[2] = logits[2].log() + 7
    losses, entropies = losses_of(logits.clone(), torch.tensor([1, 0, 2]))
    np.testing.assert_allclose(losses, [np.log(4), 0, np.log(8)], atol=1e-6)
    np.testing.assert_allclose(entropies, [np.log(4), 0, 1.75 * np.log(2)], atol=1e-6)


def test_losses_hold_for_extreme_logits(rng: np.random.Generator) -> None:
    logits = torch.from_numpy(rng.normal(0, 30, (50, 3000)))
    labels = torch.from_numpy(rng.integers(0, 3000, 50))
    losses, entropies = losses_of(logits.float(), labels)
    likely = torch.log_softmax(logits, 1)
    np.testing.assert_allclose(losses, -likely.gather(1, labels[:, None])[:, 0], rtol=1e-6)
    np.testing.assert_allclose(entropies, -(likely.exp() * likely).sum(1), atol=1e-5)


def test_states_wait_in_order() -> None:
    """What is read, what waits and what fills up: each loss goes where it belongs."""

    class Doubling:
        positions = 4

        def logits(self, states: Any) -> Any:
            assert len(states) == 4
            return torch.stack([states[:, 0], torch.zeros(4)], 1)

    out, waiting = torch.full((2, 8), -1.0), None
    for places in ([0], [1, 2, 6], [3, 5, 4]):
        there = torch.tensor(places)
        now = Waiting(there[:, None].float(), torch.ones(len(places), dtype=torch.int64), there)
        waiting = now.after(waiting).read(Doubling(), out)  # type: ignore[arg-type]
    assert waiting is not None and len(waiting.labels) == 3
    waiting.filled(4, 7).read(Doubling(), out)  # type: ignore[arg-type]
    np.testing.assert_allclose(out[0, :7], np.log1p(np.exp(np.arange(7.0))), rtol=1e-6)


def test_widths_grow_in_finer_steps_where_asked() -> None:
    assert widths(300, 4, 16).tolist()[:3] == [4, 8, 12]
    assert widths(300, 4, 16).tolist()[-4:] == [256, 272, 288, 300]
    assert widths(300).tolist()[-4:] == [240, 256, 288, 300]


def test_threads_may_measure_at_once(spec: AnswerLoss, examples: list[Example]) -> None:
    measure = spec.load()
    want, got = measure(examples).values, {}
    threads = [Thread(target=lambda i=i: got.update({i: measure(examples).values})) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 3
    for each in got.values():
        np.testing.assert_array_equal(each, want)


def test_an_empty_call_gives_empty_arrays(spec: AnswerLoss, model: str) -> None:
    assert spec.load()([]).values.shape == (0,)
    assert len(AnswerTokenLosses(model, precision="float32").load()([]).values) == 0


def test_the_address_says_what_counts(spec: AnswerLoss, model: str) -> None:
    known = spec.resolved()
    assert known.batch_tokens and known.max_tokens == WINDOW and known.digest and known.tokenizer
    others = [
        replace(known, before="nothing"),
        replace(known, context=Given(("a",))),
        replace(known, context=Given(("b",))),
        replace(known, adapter=AdapterAt("d", "here")),
        replace(known, max_tokens=9),
        AnswerTokenLosses(model, precision="float32").resolved(),
    ]
    assert len({address(each) for each in (known, *others)}) == 7
    same = replace(spec, adapter=AdapterAt("d", "here", 3.0)).resolved(), replace(spec, context_tokens=9).resolved()
    assert address(same[0]) == address(replace(known, adapter=AdapterAt("d", "there")))
    assert address(same[1]) == address(known)  # without a context its room says nothing
    settled = replace(spec, context=Given(("a",))).resolved().context
    assert isinstance(settled, Given) and settled.settled


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"before": "prompt"}, "before 'prompt' asked of an answer"),
        ({"precision": "int8"}, "precision 'int8' asked"),
        ({"max_tokens": 1}, "max_tokens 1 asked"),
        ({"batch_tokens": 0}, "batch_tokens 0 asked"),
        ({"context_tokens": 0}, "context_tokens 0 asked"),
        ({"before": "nothing", "context": Given()}, "a context is asked"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AnswerLoss("m", **fields)
    with pytest.raises(ValueError, match=said):
        AnswerTokenLosses("m", **fields)


def test_models_that_cannot_be_read_are_refused(spec: AnswerLoss, model: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model of"):
        replace(spec.resolved(), digest="0" * 32).load()
    with pytest.raises(ModelError, match="tokenizer of"):
        replace(spec.resolved(), tokenizer="0" * 32).load()
    with pytest.raises(ModelError):
        AnswerLoss(str(bert_folder(tmp_path)), precision="float32").load()


def test_a_model_that_looks_ahead_or_whose_logits_are_not_its_states_alone_is_refused() -> None:
    from transformers import BertConfig, BertLMHeadModel, LlamaConfig, LlamaForCausalLM

    small = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2, "initializer_range": 0.5}
    with no_bars():
        ahead = BertLMHeadModel(BertConfig(**small)).eval()
        other = LlamaForCausalLM(LlamaConfig(**small)).eval()
    with pytest.raises(ModelError, match="see later ones"):
        Causal(ahead, "ahead", "cpu")
    head, calls = other.lm_head.forward, iter(range(9))
    other.lm_head.forward = lambda states: head(states) * next(calls)  # as if it read something else as well
    with pytest.raises(ModelError, match="other logits"):
        Causal(other, "other", "cpu")


@pytest.mark.parametrize("difference, chosen", [(0.01, "bfloat16"), (0.5, "float32"), (float("nan"), "float32")])
def test_bfloat16_is_taken_where_it_agrees(
    model: str, difference: float, chosen: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_loss_precision, "best_precision", lambda device: "bfloat16")
    monkeypatch.setattr(_loss_precision, "remembered", lambda what, of, find: difference)
    with caplog.at_level(logging.INFO):
        assert AnswerLoss(model).resolved().precision == chosen
    assert f"is read in {chosen}" in caplog.text and f"{difference:.4f} nats" in caplog.text
    monkeypatch.setattr(_loss_precision, "best_precision", lambda device: "float32")
    assert AnswerLoss(model).resolved().precision == "float32"


def test_the_check_of_bfloat16_compares_losses(model: str) -> None:
    spec = AnswerLoss(model, precision="float32", max_tokens=WINDOW).resolved()
    rows = _loss_precision.sample()
    one, other = (
        replace(spec, precision=each, batch_tokens=256).load()(rows).values for each in ("float32", "bfloat16")
    )
    found = _loss_precision.largest_difference(spec)
    assert found == pytest.approx(float(np.abs(one - other).max()), rel=1e-6) and 0 < found < 1


@pytest.mark.models
def test_a_context_with_the_answer_lowers_the_loss() -> None:
    example = talk("What is the capital of the country Ovenia?", "The capital of Ovenia is Harlmouth.")
    spec = AnswerLoss("smollm2-135m", precision="float32")
    bare, told, other = (
        replace(spec, context=Given(passages)).load()([example]).values[0]
        for passages in ((), ("{answer}",), ("Bread is baked of flour and water.",))
    )
    assert told < 0.5 * bare and told < 0.5 * other
    assert spec.load()([example]).values[0] == bare
    assert replace(spec, before="nothing").load()([example]).values[0] > bare


@pytest.mark.models
def test_the_real_model_s_losses_are_its_own_cross_entropy(examples: list[Example]) -> None:
    """In float32 to 1e-5, and in either precision to the last bit whoever the neighbours are."""
    from coretune.models import load_causal_lm

    some = [examples[row] for row in (0, 5, 8, 13, 20)]
    whole, tokenizer = load_causal_lm("smollm2-135m", device="cpu"), chat_tokenizer("smollm2-135m")
    read = AnswerTokenLosses("smollm2-135m", precision="float32").load()
    found = read(some).values
    for row, example in enumerate(some):
        one = encode(tokenizer, example.messages)
        want = plain(whole, one.ids.tolist(), one.answer_mask.tolist())[0]
        np.testing.assert_allclose(found[row], want, atol=2e-5)  # type: ignore[index]
        np.testing.assert_array_equal(found[row], read([example]).values[0])  # type: ignore[index]
