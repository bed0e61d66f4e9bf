"""Embeddings: what a value is, that it is the row's alone to the last bit, and what is settled before measuring."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.errors import ModelError
from coretune.features import _precision
from coretune.features._batches import batches, chunk_sizes, widths
from coretune.features._encoders import POOLINGS
from coretune.features.embedding import Embedding
from coretune.models import load_causal_lm, load_encoder, load_tokenizer
from coretune.pool import Example, Message, content_key
from coretune.store.digests import address
from tests.made_models import WIDTH, WINDOW, bert_folder, causal_folder, sentence_folder

WORDS = ["name", "a", "colour", "that", "i", "like.", "blue,", "red", "or", "7?", "be", "brief"]


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(causal_folder(tmp_path_factory.mktemp("models") / "causal"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(sentence_folder(tmp_path_factory.mktemp("models") / "encoder"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def say(text: str, answer: str | None = None) -> Example:
    turns = (Message("user", text), *((Message("assistant", answer),) if answer is not None else ()))
    return Example("row", turns, content_key(turns))


def texts(count: int, longest: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, longest + 1))) for _ in range(count)]


def vectors(spec: Embedding, said: Sequence[str]) -> np.ndarray:
    return spec.resolved().load()([say(text) for text in said]).values


def plain_pooling(states: np.ndarray, how: str) -> np.ndarray:
    """One text's states `(l, d)` to a vector, as the definitions say."""
    if how == "last":
        return states[-1]
    weights = np.arange(1, len(states) + 1) if how == "weighted" else np.ones(len(states))
    return (weights[:, None] * states).sum(axis=0) / weights.sum()


def one_by_one(model: str, said: Sequence[str], how: str, long: str, window: int) -> np.ndarray:
    """The naive twin for causal models: every chunk alone, never padded."""
    import torch

    body, tokenizer = load_causal_lm(model, device="cpu").base_model, load_tokenizer(model)
    rows = []
    for text in said:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        parts = [ids[:window]] if long == "cut" else np.array_split(ids, -(-len(ids) // window))
        with torch.inference_mode():
            states = [body(torch.tensor([[*part]]).long()).last_hidden_state[0].numpy() for part in parts]
        row = np.mean([plain_pooling(each, how) for each in states], axis=0)
        rows.append(row / np.linalg.norm(row))
    return np.array(rows)


@pytest.mark.parametrize("long", ["chunks", "cut"])
@pytest.mark.parametrize("how", ["mean", "last", "weighted"])
def test_a_causal_model_gives_what_it_gives_text_by_text(how: Any, long: Any, causal: str) -> None:
    said = texts(40, longest=60)
    spec = Embedding(causal, pooling=how, long=long, precision="float32", batch_tokens=150)
    np.testing.assert_allclose(vectors(spec, said), one_by_one(causal, said, how, long, WINDOW), atol=2e-6)


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("prompt", ["", "row: "])
def test_an_encoder_gives_what_its_own_library_gives(prompt: str, include_prompt: bool, tmp_path: Path) -> None:
    model = str(sentence_folder(tmp_path / "model", prompt=prompt, include_prompt=include_prompt))
    said = texts(30, longest=9)
    theirs = load_encoder(model, device="cpu").encode(said, show_progress_bar=False)
    ours = vectors(Embedding(model, precision="float32"), said)
    assert ours.shape == (30, 24)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_long_text_is_the_mean_of_its_chunks_each_with_the_prompt(tmp_path: Path) -> None:
    model = str(sentence_folder(tmp_path / "model", prompt="row: "))
    room = WINDOW - 2 - 4  # [CLS], [SEP] and the letters of "row:"
    chunks = [list("abcdefgh") * 6, list("zyxwvuts") * 6, list("76543210") * 6]  # 48 letters each, three in 144
    theirs = load_encoder(model, device="cpu").encode([" ".join(each) for each in chunks], show_progress_bar=False)
    whole = theirs.mean(axis=0) / np.linalg.norm(theirs.mean(axis=0))
    assert 2 * room < 144 <= 3 * room
    measured = (
        Embedding(model, precision="float32").resolved().load()([say(" ".join(" ".join(each) for each in chunks))])
    )
    np.testing.assert_allclose(measured.values[0], whole, atol=1e-6)
    assert measured.marks["in_chunks"].tolist() == [True]


def test_an_encoder_without_a_pooling_of_its_own_gets_the_mean(tmp_path: Path) -> None:
    model = str(bert_folder(tmp_path / "bert"))
    spec = Embedding(model, precision="float32").resolved()
    assert spec.pooling == "mean"
    theirs = load_encoder(model, device="cpu").encode(texts(9, 9), show_progress_bar=False, normalize_embeddings=True)
    np.testing.assert_allclose(vectors(spec, texts(9, 9)), theirs, atol=1e-6)


def test_pooling_by_hand() -> None:
    import torch

    states = torch.tensor([[[1.0, 0], [3, 6], [9, 9]], [[2, 2], [5, 8], [8, 2]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert POOLINGS["mean"](states, mask).tolist() == [[2, 3], [5, 4]]
    assert POOLINGS["last"](states, mask).tolist() == [[3, 6], [8, 2]]
    third = (2 + 2 * 5 + 3 * 8) / 6, (2 + 2 * 8 + 3 * 2) / 6
    np.testing.assert_allclose(POOLINGS["weighted"](states, mask).numpy(), [[7 / 3, 4], third], rtol=1e-6)


def test_chunks_and_widths_by_hand() -> None:
    assert chunk_sizes(10, 4) == [4, 3, 3]
    assert chunk_sizes(4, 4) == [4]
    assert chunk_sizes(0, 4) == []
    assert widths(40).tolist() == [16, 32, 40]
    assert widths(10).tolist() == [10]
    known = widths(2048).tolist()
    assert known[:4] == [16, 32, 48, 64] and known[15:18] == [256, 288, 320] and known[-2:] == [1920, 2048]


@given(st.lists(st.integers(1, 90), max_size=60), st.integers(90, 300), st.integers(1, 400))
def test_batches_hold_every_piece_once_and_have_few_shapes(lengths: list[int], longest: int, tokens: int) -> None:
    pieces = [[7 + number] * length for number, length in enumerate(lengths)]
    shapes: dict[int, set[int]] = {}
    seen = []
    for batch in batches(pieces, longest, tokens, pad=3):
        shapes.setdefault(batch.ids.shape[1], set()).add(batch.ids.shape[0])
        seen += batch.pieces.tolist()
        for row, piece in enumerate(batch.pieces):
            assert batch.ids[row][batch.mask[row]].tolist() == pieces[piece]
            assert (batch.ids[row][~batch.mask[row]] == 3).all()
        assert batch.mask.any(axis=1).all()
    assert sorted(seen) == list(range(len(pieces)))
    assert all(len(rows) == 1 for rows in shapes.values()) and set(shapes) <= set(widths(longest).tolist())
    assert all(rows == {max(1, tokens // width)} for width, rows in shapes.items())


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two threads of torch, between which the rows of a product are divided."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("batch_tokens", [80, 256, 1024])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_a_value_is_the_same_to_the_last_bit_in_any_company(
    kind: str, precision: Any, batch_tokens: int, causal: str, encoder: str, rng: np.random.Generator, two_threads: None
) -> None:
    said = texts(60, longest=40)
    model = causal if kind == "causal" else encoder
    measure = Embedding(model, precision=precision, batch_tokens=batch_tokens).resolved().load()
    whole = measure([say(text) for text in said]).values
    for size in (1, 7, 33, 60):
        rows = rng.permutation(60)[:size]
        np.testing.assert_array_equal(measure([say(said[row]) for row in rows]).values, whole[rows])


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_a_batch_without_padding_changes_nothing(kind: str, causal: str, encoder: str) -> None:
    """Where no row is padded, libraries take another way through attention."""
    model = causal if kind == "causal" else encoder
    measure = Embedding(model, precision="float32", batch_tokens=4 * WINDOW).resolved().load()
    full = " ".join(["a"] * (WINDOW - 2)) if kind == "encoder" else "a" * 3 * WINDOW
    if kind == "causal":
        tokenizer = load_tokenizer(model)
        full = tokenizer.decode(tokenizer(" ".join(WORDS) * 9, add_special_tokens=False)["input_ids"][:WINDOW])
        assert len(tokenizer(full, add_special_tokens=False)["input_ids"]) == WINDOW
    shorter = full[: len(full) - 6]
    together = measure([say(full)] * 4).values
    among = measure([say(shorter), say(full), say(shorter), say(shorter)]).values
    np.testing.assert_array_equal(together[0], among[1])


def test_a_text_that_says_nothing_has_no_vector(causal: str, encoder: str) -> None:
    for model in (causal, encoder):
        measured = (
            Embedding(model, text="answer", precision="float32")
            .resolved()
            .load()([say("hi", "blue"), say("hi", ""), say("hi")])
        )
        assert np.isfinite(measured.values).all(axis=1).tolist() == [True, False, False]
        assert measured.marks["empty"].tolist() == [False, True, True]
        assert measured.values.dtype == np.float32
    nothing = Embedding(encoder, precision="float32").resolved().load()([])
    assert nothing.values.shape == (0, 24)


def test_what_is_cut_is_counted(encoder: str) -> None:
    said = [" ".join("a" * count) for count in (WINDOW - 3, WINDOW - 2, WINDOW - 1, 200)]
    measured = Embedding(encoder, long="cut", precision="float32").resolved().load()([say(text) for text in said])
    assert measured.marks["truncated"].tolist() == [False, False, True, True]
    np.testing.assert_array_equal(measured.values[1], measured.values[3])


def test_the_text_that_is_read(encoder: str) -> None:
    def one(text: Any) -> np.ndarray:
        return Embedding(encoder, text=text, precision="float32").resolved().load()([say("name red", "blue")]).values

    want = vectors(Embedding(encoder, precision="float32"), ["name red\n\nblue", "name red", "blue"])
    np.testing.assert_array_equal(np.concatenate([one("conversation"), one("prompt"), one("answer")]), want)


def test_normalising_can_be_turned_off(causal: str) -> None:
    said = texts(5, 60)
    plain = vectors(Embedding(causal, normalize=False, precision="float32"), said)
    unit = vectors(Embedding(causal, precision="float32"), said)
    np.testing.assert_allclose(plain / np.linalg.norm(plain, axis=1, keepdims=True), unit, atol=1e-6)
    assert plain.shape == (5, WIDTH) and abs(np.linalg.norm(plain, axis=1) - 1).max() > 0.1


def test_resolving_settles_everything_once(causal: str, encoder: str, tmp_path: Path) -> None:
    spec = Embedding(encoder).resolved()
    assert (spec.pooling, spec.prefix, spec.max_tokens, spec.path) == (None, "", WINDOW, encoder)
    assert spec.precision in ("float32", "bfloat16") and spec.batch_tokens and spec.digest
    assert spec.resolved() is spec
    assert Embedding(causal).resolved().pooling == "mean"
    elsewhere = str(shutil.copytree(encoder, tmp_path / "elsewhere"))
    assert address(Embedding(elsewhere).resolved()) == address(spec)
    others = [replace(spec, digest="0"), replace(spec, precision="float32"), replace(spec, long="cut")]
    assert len({address(each) for each in others if each != spec}) == sum(each != spec for each in others)


def test_a_model_that_changed_since_is_refused(tmp_path: Path) -> None:
    model = bert_folder(tmp_path / "model", seed=0)
    spec = Embedding(str(model), precision="float32").resolved()
    shutil.copy(bert_folder(tmp_path / "other", seed=1) / "model.safetensors", model / "model.safetensors")
    with pytest.raises(ModelError, match="run again to embed with the new one"):
        spec.load()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": "question"}, "text 'question' asked"),
        ({"pooling": "max"}, "pooling 'max' asked"),
        ({"long": "drop"}, "long 'drop' asked"),
        ({"precision": "int8"}, "precision 'int8' asked"),
        ({"max_tokens": 0}, "max_tokens 0 asked"),
        ({"batch_tokens": -1}, "batch_tokens -1 asked"),
    ],
)
def test_words_that_mean_nothing_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Embedding(**options)


def test_the_window_may_be_shorter_and_not_longer(encoder: str) -> None:
    said = texts(6, 30)
    short = Embedding(encoder, max_tokens=16, precision="float32").resolved()
    assert short.load()([say(text) for text in said]).marks["in_chunks"].any()
    with pytest.raises(ValueError, match=r"max_tokens 65 asked, but .* takes 64 tokens"):
        Embedding(encoder, max_tokens=65).resolved()
    with pytest.raises(ModelError, match="a window of 2 tokens is too short: 2 go to special tokens"):
        Embedding(encoder, max_tokens=2, precision="float32").resolved().load()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[float]]:
    """A processor that is fast in bfloat16, whose vectors have this cosine to float32; counts the checks."""
    counted: list[float] = []
    monkeypatch.setattr(_precision, "best_precision", lambda device: "bfloat16")

    def differing(cosine: float) -> list[float]:
        monkeypatch.setattr(_precision, "smallest_cosine", lambda *_: counted.append(cosine) or cosine)
        return counted

    return differing


def test_bfloat16_is_taken_where_it_agrees_and_that_is_checked_once(
    encoder: str, checked: Callable[[float], list[float]]
) -> None:
    counted = checked(0.9995)
    assert [Embedding(encoder).resolved().precision for _ in range(3)] == ["bfloat16"] * 3
    assert len(counted) == 1
    Embedding(encoder, pooling="last").resolved()
    assert len(counted) == 2


def test_float32_is_taken_loudly_where_bfloat16_differs(
    encoder: str, checked: Callable[[float], list[float]], caplog: pytest.LogCaptureFixture
) -> None:
    counted = checked(0.98)
    assert Embedding(encoder).resolved().precision == "float32"
    assert [(record.levelname, "0.98" in record.getMessage()) for record in caplog.records] == [("WARNING", True)]
    assert Embedding(encoder, precision="bfloat16").resolved().precision == "bfloat16"
    assert len(counted) == 1


def test_the_check_measures_both(causal: str) -> None:
    spec = replace(Embedding(causal, precision="float32").resolved(), precision=None)
    cosine = _precision.smallest_cosine(spec, "cpu")
    assert 0.9 < cosine < 1


@pytest.mark.models
def test_minilm_is_what_its_own_library_makes_of_it() -> None:
    said = [text.replace("7", "seven") for text in texts(12, 60)]
    theirs = load_encoder("minilm", device="cpu").encode(said, show_progress_bar=False)
    exact = vectors(Embedding("minilm", precision="float32"), said)
    np.testing.assert_allclose(exact, theirs, atol=1e-5)
    rough = vectors(Embedding("minilm", precision="bfloat16"), said)
    assert (exact * rough).sum(axis=1).min() > 0.999


@pytest.mark.models
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_minilm_is_the_same_to_the_last_bit_in_any_company(
    precision: Any, rng: np.random.Generator, two_threads: None
) -> None:
    said = texts(16, longest=300)
    measure = Embedding("minilm", precision=precision).resolved().load()
    whole = measure([say(text) for text in said]).values
    for rows in (rng.permutation(16), np.array([3]), np.arange(5, 12)):
        np.testing.assert_array_equal(measure([say(said[row]) for row in rows]).values, whole[rows])


@pytest.mark.models
@pytest.mark.slow
def test_smollm2_embeds_with_every_pooling() -> None:
    import torch

    said = ["The capital of France is Paris.", "Paris is the capital of France.", "Bake the bread for an hour."]
    body, tokenizer = load_causal_lm("smollm2-135m", device="cpu").base_model, load_tokenizer("smollm2-135m")
    for how in ("mean", "last", "weighted"):
        got = vectors(Embedding("smollm2-135m", pooling=how, precision="float32", max_tokens=32, batch_tokens=48), said)  # type: ignore[arg-type]
        with torch.inference_mode():
            states = [body(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0].numpy() for text in said]
        want = np.array([plain_pooling(each, how) for each in states])
        np.testing.assert_allclose(got, want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-4)
        assert got[0] @ got[1] > got[0] @ got[2]
