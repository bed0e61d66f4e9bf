"""What a model would say first: by hand, against the model's own full logits, and in which tokens it is asked."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coretune.errors import ModelError
from coretune.features._first_token import asker_of, log_masses, log_probability
from coretune.features._questions import Asker, fence_of
from coretune.features.rating import DEITA_COMPLEXITY, DEITA_QUALITY, SELECT_IT, Rating
from coretune.features.yes_probability import PRETRAINING_TEXT, USEFUL_DEMONSTRATION, YesProbability
from coretune.models import find_model, is_seq2seq, load_causal_lm, load_seq2seq_lm, load_tokenizer
from coretune.pool import Example, Message, content_key
from coretune.store.digests import address
from tests.good_and_broken import BROKEN, GOOD
from tests.laws.feature_examples import varied_pool
from tests.made_answerers import answering_folder, byte_level, metaspace, t5_folder

SHORT = "{fence}\n{prompt}\n=\n{answer}\n{fence}\nOptions: yes no"
WORDS = ["name", "a", "colour", "that", "I", "like.", "Blue.", "useful", "exchange", "7?", "be", "brief"]


@pytest.fixture(autouse=True)
def own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("models") is None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A chat model, base models without a template (byte-level; metaspace) and a T5."""
    at = tmp_path_factory.mktemp("models")
    return {
        "chat": str(answering_folder(at / "chat", byte_level("smollm2"))),
        "base": str(answering_folder(at / "base", byte_level(None), seed=1)),
        "metaspace": str(answering_folder(at / "metaspace", metaspace(stop=False), seed=2)),
        "t5": str(t5_folder(at / "t5")),
    }


def say(prompt: str, answer: str | None = "Blue.") -> Example:
    turns = (Message("user", prompt), *((Message("assistant", answer),) if answer is not None else ()))
    return Example("row", turns, content_key(turns))


def records(count: int, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    said = [[" ".join(rng.choice(WORDS, size=rng.integers(1, 12))) for _ in range(2)] for _ in range(count)]
    return [say(*each) for each in said]


def yes(model: str, **options: Any) -> YesProbability:
    return YesProbability(model, **{"question": SHORT, "precision": "float32", **options})


@functools.lru_cache(maxsize=1)
def loaded(name: str) -> tuple[Any, Any]:
    """A model and its tokenizer, as the libraries give them."""
    load = load_seq2seq_lm if is_seq2seq(find_model(name)) else load_causal_lm
    return load(name, device="cpu"), load_tokenizer(name)


def full_logits(name: str, question: str, example: Example, cue: str) -> np.ndarray:
    """The naive twin: the question written out, tokenised whole and alone; float64 logits of the first answer token."""
    fence = fence_of([example.prompt, example.answer])
    text = question.replace("{prompt}", example.prompt).replace("{answer}", example.answer).replace("{fence}", fence)
    model, tokenizer = loaded(name)
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            start = torch.tensor([[model.config.decoder_start_token_id]])
            return model(input_ids=ids, decoder_input_ids=start).logits[0, 0].double().numpy()
        if tokenizer.chat_template is None:
            ids = tokenizer(text + cue)["input_ids"]
        else:
            turns = [{"role": "user", "content": text}]
            ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
        return model(torch.tensor([ids])).logits[0, -1].double().numpy()


def expected(name: str, words: Sequence[str], logits: np.ndarray) -> float:
    """The probability of these tokens, as the vocabulary spells them."""
    likely = np.exp(logits - logits.max())
    known = load_tokenizer(name).get_vocab()
    return float(sum(likely[known[word]] for word in words) / likely.sum())


TOKENS = {
    "chat": (["yes", "Yes", "YES", "Ġyes", "ĠYes", "ĠYES"], ["no", "No", "NO", "Ġno", "ĠNo", "ĠNO"]),
    "base": (["yes", "Yes", "YES", "Ġyes", "ĠYes", "ĠYES"], ["no", "No", "NO", "Ġno", "ĠNo", "ĠNO"]),
    "metaspace": (["yes", "▁yes", "▁Yes", "▁YES"], ["no", "▁no", "▁No", "▁NO"]),
    "t5": (["▁yes", "▁Yes", "▁YES"], ["▁no", "▁No", "▁NO"]),
}


def test_yes_by_hand() -> None:
    masses = log_masses(np.array([[2.0, 0.5, -1.0]]), [[0], [1]])
    np.testing.assert_allclose(np.exp(log_probability(masses, 0)), 0.786, atol=5e-4)
    np.testing.assert_allclose(1 / (1 + np.exp(masses[:, 1] - masses[:, 0])), 0.818, atol=5e-4)


def test_deita_s_expected_score_by_hand() -> None:
    rng = np.random.default_rng(0)
    logits = np.concatenate([[-2, -1, 0, 1.5, 2, 0], rng.normal(size=50)])[None]
    masses = log_masses(logits, [[number] for number in range(6)])
    likely = np.exp([log_probability(masses, number)[0] for number in range(6)])
    assert likely.sum() < 0.9
    np.testing.assert_allclose(likely @ np.arange(1, 7) / likely.sum(), 4.504, atol=5e-4)


def test_the_logarithm_keeps_apart_what_is_nearly_certain() -> None:
    logits = np.array([[40.0, 0.0, 0.0], [41.0, 0.0, 0.0], [-90.0, 0.0, 0.0], [-91.0, 0.0, 0.0]], dtype=np.float32)
    values = log_probability(log_masses(logits, [[0], [1]]), 0).astype(np.float32)
    assert values[0] < values[1] < 0 and values[3] < values[2]
    want = [-2 * np.exp(-40), -2 * np.exp(-41), -90 - np.log(2), -91 - np.log(2)]
    np.testing.assert_allclose(values, want, rtol=1e-6)


@pytest.mark.parametrize("kind", TOKENS)
def test_yes_is_what_the_model_s_full_logits_say_one_by_one(kind: str, models: dict[str, str]) -> None:
    said, spec = records(9), yes(models[kind], batch_tokens=200).resolved()
    got = spec.load()(said)
    for row, example in enumerate(said):
        logits = full_logits(models[kind], SHORT, example, spec.cue)
        want, other = (expected(models[kind], words, logits) for words in TOKENS[kind])
        np.testing.assert_allclose(got.values[row], np.log(want), atol=1e-5)
        np.testing.assert_allclose(got.numbers["log_odds_two_way"][row], np.log(want / other), atol=1e-5)
        top = load_tokenizer(models[kind]).convert_ids_to_tokens(int(logits.argmax()))
        assert got.marks["answered_otherwise"][row] == all(top not in words for words in TOKENS[kind])
    assert got.values.dtype == np.float32 and np.ptp(got.values) > 1e-3


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_ratings_are_what_the_model_s_full_logits_say_one_by_one(kind: str, models: dict[str, str]) -> None:
    prompts = ("{prompt} {answer}\nOptions: 1 2 3", "{answer} Would it be useful? {prompt}")
    spec = Rating(models[kind], prompts, 1, 3, precision="float32", batch_tokens=200).resolved()
    said = records(5)
    got = spec.load()(said)
    assert got.values.shape == (5, 2, 3) and got.values.dtype == np.float32
    for row, example in enumerate(said):
        for number, prompt in enumerate(prompts):
            logits = full_logits(models[kind], prompt, example, spec.cue)
            names = [["▁%d"] if kind == "t5" else ["%d", "Ġ%d"]][0]
            want = [expected(models[kind], [name % each for name in names], logits) for each in (1, 2, 3)]
            np.testing.assert_allclose(got.values[row, number], want, rtol=1e-5)
    np.testing.assert_allclose(got.numbers["mass"], got.values.sum(axis=2).mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("kind", ["chat", "t5"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_batches_and_padding_change_nothing(kind: str, precision: Any, models: dict[str, str]) -> None:
    said = records(30)
    one, other = (yes(models[kind], batch_tokens=tokens, precision=precision).resolved() for tokens in (64, 2000))
    whole = other.load()(said).values
    np.testing.assert_allclose(one.load()(said).values, whole, atol=1e-4 if precision == "float32" else 0.05)
    measure = other.load()
    for rows in (np.arange(30)[::-1], np.array([4]), np.array([7, 7, 2])):
        np.testing.assert_array_equal(measure([said[row] for row in rows]).values, whole[rows])


def test_logits_of_a_bfloat16_model_are_not_rounded(models: dict[str, str]) -> None:
    spec = yes(models["chat"], precision="bfloat16").resolved()
    exact = yes(models["chat"]).resolved().load()(records(40)).values
    values = spec.load()(records(40)).values
    assert len(np.unique(values)) == len(np.unique(exact)) and np.corrcoef(values, exact)[0, 1] > 0.99


def asks(model: str, **options: Any) -> tuple[Asker, YesProbability]:
    spec = yes(model, **options)
    return asker_of(spec), spec


def read(asker: Asker, question: str, example: Example, longest: int) -> tuple[str, Any]:
    """The text of a question in tokens, and what was asked."""
    (asked,) = asker.ask(question, [example], longest)
    assert asked is not None
    return asker.tokenizer.decode(asked.ids), asked


@pytest.mark.parametrize("kind", TOKENS)
def test_the_answers_tokens_are_those_that_follow_the_question(kind: str, models: dict[str, str]) -> None:
    spec = yes(models[kind])
    names = [load_tokenizer(models[kind]).convert_ids_to_tokens(list(group)) for group in spec._answers()]
    assert [sorted(group) for group in names] == [sorted(group) for group in TOKENS[kind]]


def test_several_words_may_say_yes(models: dict[str, str]) -> None:
    both = yes(models["chat"], yes=("yes", "1"), no=("no", "2")).resolved()
    got = both.load()(records(3))
    logits = full_logits(models["chat"], SHORT, records(3)[1], "")
    want = expected(models["chat"], [*TOKENS["chat"][0], "1", "Ġ1"], logits)
    np.testing.assert_allclose(got.values[1], np.log(want), atol=1e-5)


def test_words_that_are_not_one_token_are_refused(models: dict[str, str]) -> None:
    with pytest.raises(ModelError, match=r"the answer 'certainly' is not one token of .* \('certainly', 'Certainly'"):
        yes(models["chat"], yes=("certainly",)).resolved()
    with pytest.raises(ModelError, match="the answer '猫' is not one token"):  # unknown to this tokenizer
        yes(models["metaspace"], yes=("猫",)).resolved()
    with pytest.raises(ModelError, match="the answers 'yes' and 'Yes' share the token"):
        yes(models["chat"], yes=("yes",), no=("Yes",)).resolved()
    with pytest.raises(ModelError, match="the answer '10' is not one token"):
        Rating(models["chat"], (SHORT,), 1, 10).resolved()


def test_a_record_cannot_end_its_fence_or_spell_special_tokens(models: dict[str, str]) -> None:
    asker, _ = asks(models["chat"])
    text, asked = read(asker, SHORT, say("a\n####\nb", "like <|im_end|>\n###"), 256)
    assert text.count("#####\n") == 2 and "\n#####\na\n####\nb\n=\nlike < |im_end|>\n###\n#####\nOptions" in text
    end = asker.tokenizer.convert_tokens_to_ids("<|im_end|>")
    plain, _ = read(asker, SHORT, say("a", "b"), 256)
    assert asked.broken and asked.ids.count(end) == plain.count("<|im_end|>")
    got = yes(models["chat"]).resolved().load()([say("a", "<|im_end|>"), say("a", "b")])
    assert got.marks["special_token_spelled"].tolist() == [True, False]


@pytest.mark.parametrize("kind", TOKENS)
def test_long_records_are_cut_and_questions_never(kind: str, models: dict[str, str]) -> None:
    asker, _ = asks(models[kind])
    long = say("colour " * 400, "Blue. " * 300)
    around, _ = read(asker, SHORT, say("", "Blue."), 512)
    for longest in (100, 101, 128):
        text, asked = read(asker, SHORT, long, longest)
        assert longest - 4 <= len(asked.ids) <= longest and asked.cut
        assert text.endswith(around[around.index("Options") :]) and text.count("#") == around.count("#")
    even, _ = read(asker, SHORT, say("a " * 400, "I " * 300), 128)
    assert abs(even.split().count("a") - even.split().count("I")) <= 3 and even.count("I") > 9
    text, asked = read(asker, SHORT, say("name", "colour " * 400), 100)
    assert asked.cut and "name" in text  # the longest place loses first
    _, asked = read(asker, SHORT, say("name"), 100)
    assert not asked.cut


def test_what_is_cut_is_counted_and_a_cut_record_is_asked_about_like_any(models: dict[str, str]) -> None:
    spec = yes(models["chat"], max_tokens=90, question="{fence}\n{text}\n{fence}\nOptions: yes no").resolved()
    got = spec.load()([say("a " * 300), say("a " * 350), say("a")])
    assert got.marks["truncated"].tolist() == [True, True, False]
    assert got.values[0] == got.values[1] != got.values[2]


def test_a_question_that_leaves_no_room_is_refused(models: dict[str, str]) -> None:
    spec = YesProbability(models["chat"], max_tokens=40).resolved()
    with pytest.raises(ModelError, match=r"the question takes \d+ tokens of 40, so none are left for a record"):
        spec.load()([say("a")])


def test_a_record_that_says_nothing_has_no_value(models: dict[str, str]) -> None:
    got = yes(models["chat"]).resolved().load()([say("", ""), say("a", ""), say("", "b"), say("a", None)])
    assert np.isfinite(got.values).tolist() == [False, True, True, True]
    assert got.marks["empty"].tolist() == [True, False, False, False]
    rated = Rating(models["chat"], ("{answer} 1 2",), 1, 2).resolved().load()([say("a", ""), say("a", "b")])
    assert np.isfinite(rated.values).all(axis=(1, 2)).tolist() == [False, True]
    assert rated.marks["empty"].tolist() == [True, False] and np.isnan(rated.numbers["mass"][0])


def test_turns_before_the_answer_have_their_roles(models: dict[str, str]) -> None:
    asker, _ = asks(models["chat"])
    turns = (
        Message("system", "Be brief."),
        Message("user", "One?"),
        Message("assistant", "", '{"tool_calls": [{"function": {"name": "look"}}]}'),
        Message("tool", "1"),
        Message("assistant", "One."),
        Message("user", "Thanks"),
    )
    text, _ = read(asker, "{prompt}|{answer}|{text}", Example("row", turns, b"", tools='[{"name": "look"}]'), 256)
    shown = (
        'Tools: [{"name": "look"}]\n\nSystem: Be brief.\n\nUser: One?\n\nAssistant: [{"function": {"name": "look"}}]'
    )
    assert f"{shown}\n\nTool: 1|One.|Be brief." in text and text.count("Thanks") == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: yes("m", question="Is it good?"), "shows nothing of a record"),
        (lambda: yes("m", question="{prompt} {anwser}"), r"has the place \{anwser\}; known are .*answer"),
        (lambda: yes("m", yes=()), r"yes \(\) asked; give one or more words"),
        (lambda: yes("m", no="no"), "no 'no' asked; give one or more words"),
        (lambda: yes("m", precision="int8"), "precision 'int8' asked of a yes probability"),
        (lambda: yes("m", max_tokens=0), "max_tokens 0 asked of a yes probability"),
        (lambda: Rating("m", low=5, high=5), "a scale from 5 to 5 asked"),
        (lambda: Rating("m", ()), "no question was given"),
        (lambda: Rating("m", "{prompt}"), "prompts is one text"),  # type: ignore[arg-type]
    ],
)
def test_what_means_nothing_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_models_that_cannot_answer_or_have_changed_are_refused(models: dict[str, str], tmp_path: Path) -> None:
    from tests.made_models import bert_folder

    with pytest.raises(ModelError, match="is a encoder; a language model that can answer is needed"):
        yes(str(bert_folder(tmp_path / "bert"))).resolved()
    with pytest.raises(ModelError, match="is asked in plain text; no template"):
        yes(models["t5"], template="{{ messages }}").resolved()
    with pytest.raises(ModelError, match="one with an encoder and a decoder is needed"):
        load_seq2seq_lm(models["chat"])
    copy = shutil.copytree(models["chat"], tmp_path / "copy")
    spec = yes(str(copy)).resolved()
    assert address(spec) == address(yes(models["chat"]).resolved())
    shutil.copy(Path(models["base"]) / "model.safetensors", copy / "model.safetensors")
    with pytest.raises(ModelError, match=r"the model of .* run again"):
        spec.load()


def test_words_and_question_are_part_of_the_address(models: dict[str, str]) -> None:
    spec = yes(models["chat"]).resolved()
    others = [replace(spec, question=PRETRAINING_TEXT), replace(spec, yes=("Yes", "1")), replace(spec, cue="")]
    assert len({address(each) for each in (spec, *others)}) == 4


def test_the_questions_that_come_with_it_fit_and_keep_records_apart(models: dict[str, str]) -> None:
    asker, _ = asks(models["chat"])
    assert len(SELECT_IT) == len(set(SELECT_IT)) == 5
    for question in (USEFUL_DEMONSTRATION, PRETRAINING_TEXT, *SELECT_IT, *DEITA_COMPLEXITY, *DEITA_QUALITY):
        text, asked = read(asker, question, say("Name a colour", "Blue"), 1000)
        assert text.count("###\n") == 2 and "Name a colour" in text and not asked.cut
        assert text.index("###") < text.index("Name a colour") < text.rindex("###")
        assert ("Blue" in text) == (question not in DEITA_COMPLEXITY)


def test_every_kind_of_record_is_measured(models: dict[str, str]) -> None:
    pool = varied_pool()
    for kind in TOKENS:
        got = yes(models[kind], max_tokens=100).resolved().load()(pool.examples(np.arange(len(pool))))
        assert np.isfinite(got.values).all() and (got.values < 0).all() and 2 < got.marks["truncated"].sum() < len(pool)


def above(values: np.ndarray, good: np.ndarray) -> float:
    """The share of pairs of a good and a broken record in which the good one has the higher value (the AUC)."""
    pairs = values[good][:, None] - values[~good]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def kendall(one: np.ndarray, other: np.ndarray) -> float:
    """How far two orders agree: 1 for the same, -1 for the reverse."""
    first, second = np.triu_indices(len(one), 1)
    return float(np.mean(np.sign(one[first] - one[second]) * np.sign(other[first] - other[second])))


def test_the_area_and_the_agreement_by_hand() -> None:
    good = np.array([True, True, False, False])
    assert above(np.array([3.0, 1.0, 1.0, 0.0]), good) == 0.875
    assert kendall(np.array([1, 2, 3, 4]), np.array([1, 2, 4, 3])) == pytest.approx(4 / 6)


@pytest.mark.models
def test_smollm2_says_what_its_full_logits_say() -> None:
    words = {"yes": ["yes", "Yes", "Ġyes", "ĠYes"], "no": ["no", "No", "NO", "Ġno", "ĠNo", "ĠNO"]}
    said = [say(*GOOD[0]), say(*BROKEN[0]), say(*GOOD[13])]
    spec = yes("smollm2-135m").resolved()
    names = [load_tokenizer("smollm2-135m").convert_ids_to_tokens(list(group)) for group in spec._answers()]
    assert [sorted(group) for group in names] == [sorted(group) for group in words.values()]
    got = spec.load()(said)
    for row, example in enumerate(said):
        logits = full_logits("smollm2-135m", SHORT, example, "")
        likely, unlikely = (expected("smollm2-135m", words[word], logits) for word in ("yes", "no"))
        np.testing.assert_allclose(got.values[row], np.log(likely), atol=1e-4)
        np.testing.assert_allclose(got.numbers["log_odds_two_way"][row], np.log(likely / unlikely), atol=1e-4)


@pytest.mark.models
@pytest.mark.slow
def test_smollm2_s_order_hardly_depends_on_the_order_of_the_options(record_property: Any) -> None:
    """With 135M parameters its yes tells good from broken no better than chance (area .46 of all 50; .9 is wanted)."""
    chosen = [*GOOD[:12], *BROKEN[:12]]
    swapped = USEFUL_DEMONSTRATION.replace("- yes\n- no", "- no\n- yes")
    assert swapped != USEFUL_DEMONSTRATION
    one, other = (
        YesProbability("smollm2-135m", question).resolved().load()([say(*each) for each in chosen]).values
        for question in (USEFUL_DEMONSTRATION, swapped)
    )
    area, agreement = above(one, np.arange(24) < 12), kendall(one, other)
    record_property("area", area)
    record_property("kendall", agreement)
    print(f"area {area:.3f}, Kendall's tau {agreement:.3f}")
    assert agreement > 0.5
    assert area > 0.2
