"""Corpora, their indexes, and contexts: searches against naive twins, exclusions by hand, indexes made once."""

from __future__ import annotations

import gzip
import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.errors import FolderError, PoolError
from coretune.features import Contexts, ContextSpec
from coretune.features.embedding import Embedding
from coretune.knowledge import (
    Knowledge,
    KnowledgeAt,
    RandomContext,
    Retrieved,
    SwappedContext,
    bm25,
    bm25_building,
    bm25_ranking,
    bm25_scores,
    indexed,
    read_knowledge,
)
from coretune.knowledge import dense as dense_module
from coretune.knowledge.bm25_building import K1, B, bm25_index
from coretune.knowledge.dense import Dense
from coretune.knowledge.indexes import Texts
from coretune.knowledge.overlap import Sample
from coretune.knowledge.searching import Found, Ranks, Search
from coretune.knowledge.splitting import split_text
from coretune.knowledge.words import units, word_count, words
from coretune.lab import Lab
from coretune.pool import Example, Message, content_key
from coretune.store import listing, prune
from coretune.store.digests import address
from coretune.store.digests import words as in_words
from tests.made_models import sentence_folder
from tests.made_pools import pool_of, write_jsonl

TEXTS = [
    "The river Nile flows north through Egypt.",
    "Bread is baked from flour, water and yeast.",
    "A comet is made of ice and dust.",
    "The Nile and the Amazon are long rivers; the Nile is longer.",
    "Yeast makes bread rise.",
]


def example(prompt: str, answer: str) -> Example:
    messages = (Message("user", prompt), Message("assistant", answer))
    return Example("made", messages, content_key(messages))


def naive_bm25(documents: Sequence[str], query: str) -> list[float]:
    """Lucene's BM25 without rounded lengths, as it is written."""
    said = [words(text) for text in documents]
    mean = sum(map(len, said)) / len(said)
    scores = []
    for one in said:
        total = 0.0
        for word in words(query):
            df, tf = sum(word in each for each in said), one.count(word)
            idf = math.log(1 + (len(said) - df + 0.5) / (df + 0.5))
            total += idf * tf / (tf + K1 * (1 - B + B * len(one) / mean)) if df else 0.0
        scores.append(total)
    return scores


# words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't panic: it's 42!", ["don", "t", "panic", "it", "s", "42"]),
        ("Éclair ÉCLAIR e\u0301clair", ["éclair"] * 3),
        ("ＡＢＣ ﬁne Straße", ["abc", "fine", "strasse"]),
        ("今日は晴れ", ["今日", "日は", "は晴", "晴れ"]),
        ("水 is water", ["水", "is", "water"]),
        ("GPT模型很大", ["gpt", "模型", "型很", "很大"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("ภาษา", ["ภา", "าษ", "ษา"]),
        ("🎉🎉 ❤️", []),
        ("half \ud83d a character", ["half", "a", "character"]),
    ],
)
def test_words_of_any_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_units_are_characters_where_there_are_no_spaces() -> None:
    assert units("GPT模型 is big") == ["gpt", "模", "型", "is", "big"]
    assert word_count("模型 is big") == 3 and word_count("it is big") == 3


@given(st.text())
def test_pairs_and_units_say_the_same(text: str) -> None:
    # put together again, both are the letters of the text
    joined = "".join(units(text))
    assert set("".join(words(text))) == set(joined)
    assert len(words(text)) <= len(units(text))


# splitting


def test_passages_end_at_paragraphs() -> None:
    paragraphs = [" ".join(f"w{i}x{j}" for j in range(80)) for i in range(5)]
    found = list(split_text("\n\n".join(paragraphs), 200))
    assert found == ["\n\n".join(paragraphs[:2]), "\n\n".join(paragraphs[2:4]), paragraphs[4]]


def test_long_paragraphs_end_at_sentences_and_long_sentences_at_words() -> None:
    sentences = [f"It is {i} and that is all of it." for i in range(60)]
    for passage in (found := list(split_text(" ".join(sentences), 50))):
        assert passage.startswith("It is") and passage.endswith("of it.") and word_count(passage) <= 50
    assert " ".join(found) == " ".join(sentences)
    assert list(split_text("one two three four five", 2)) == ["one two", "three four", "five"]
    assert "".join(split_text("水" * 1000, 200)) == "水" * 1000


def test_a_heading_stays_with_its_text() -> None:
    text = f"{'a ' * 9}\n\n# Bread\n\n{'b ' * 9}"
    assert list(split_text(text, 12)) == [("a " * 9).strip(), f"# Bread\n\n{('b ' * 9).strip()}"]


@given(st.text(alphabet="ab .\n水", max_size=200), st.integers(1, 9))
def test_splitting_loses_no_letter_and_holds_the_limit(text: str, most: int) -> None:
    found = list(split_text(text, most))
    assert "".join("".join(each.split()) for each in found) == "".join(text.split())
    assert all(word_count(each) <= most for each in found)


# reading


def test_a_folder_is_read_in_order_with_everything_accounted_for(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "a.jsonl",
        [
            {"instruction": "Name a river.", "input": "", "output": "The Nile."},
            {"text": "Comets are ice.", "title": "Comets"},
            {"text": None},
            {"other": 1},
        ],
    )
    (tmp_path / "b.md").write_bytes(b"# Bread\n\nFlour and water.\n\nbad \xff byte\n\nYeast.\n")
    with gzip.open(tmp_path / "c.txt.gz", "wb") as file:
        file.write("今日は晴れ。\r\n \r\nSecond.".encode())
    pq.write_table(pa.table({"passage": ["From parquet.", "  "], "id": [1, 2]}), tmp_path / "d.parquet")
    (tmp_path / "e.csv").write_text("text,n\nFrom csv.,1\n")
    (tmp_path / "f.json").write_text('["A bare text.", 7]')
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    knowledge = read_knowledge(tmp_path)
    assert list(knowledge.passages) == [
        "Name a river.\n\nThe Nile.",
        "Comets\n\nComets are ice.",
        "# Bread\n\nFlour and water.\n\nYeast.",
        "今日は晴れ。\n\nSecond.",
        "From parquet.",
        "From csv.",
        "A bare text.",
    ]
    reasons = [(Path(each["file"]).name, each["reason"].partition(":")[0]) for each in knowledge.rejected.to_pylist()]
    assert reasons == [
        ("a.jsonl", "wrong type"),
        ("a.jsonl", "missing field"),
        ("b.md", "invalid UTF-8"),
        ("d.parquet", "no text"),
        ("f.json", "not an object"),
    ]
    assert list(read_knowledge(str(tmp_path / "*.txt.gz"), tmp_path / "e.csv").passages) == [
        "今日は晴れ。\n\nSecond.",
        "From csv.",
    ]


def test_a_long_text_becomes_several_passages_and_a_long_record_one(tmp_path: Path) -> None:
    long = "\n\n".join("word " * 90 for _ in range(5))
    path = write_jsonl(tmp_path / "a.jsonl", [{"content": long}, {"prompt": "Say it.", "completion": long}])
    assert [len(each.split()) for each in read_knowledge(path).passages] == [180, 180, 90, 452]


def test_a_large_corpus_is_mapped(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": f"Passage {i}."} for i in range(2000)])
    mapped, again, held = read_knowledge(path, map_above_bytes=1000), read_knowledge(path), read_knowledge(path, path)
    assert list(mapped.passages) == list(again.passages) == [f"Passage {i}." for i in range(2000)]
    assert mapped.fingerprint == again.fingerprint and len(held) == 4000
    assert list((Path(os.environ["XDG_CACHE_HOME"]) / "coretune" / "pools").glob("*/pool.arrow"))


def test_corpora_without_a_passage_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n\n ")
    with pytest.raises(PoolError, match="no passage"):
        read_knowledge(tmp_path / "empty.txt")
    with pytest.raises(PoolError, match="no passage"):
        Knowledge.of(["", " "])
    with pytest.raises(PoolError, match="no passage"):
        Knowledge.of([])
    with pytest.raises(PoolError, match="none ends in"):
        (tmp_path / "sub").mkdir()
        read_knowledge(tmp_path / "sub")
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "odd.parquet")
    with pytest.raises(PoolError, match="a corpus has a column text") as error:
        read_knowledge(tmp_path / "odd.parquet")
    assert "--columns" not in str(error.value)


def test_texts_from_python_are_passages_as_they_are() -> None:
    knowledge = Knowledge.of(["One.\n\nTwo.", "", "half \ud83d", "🎉 水"])
    assert list(knowledge.passages) == ["One.\n\nTwo.", "🎉 水"] and knowledge.passages[-1] == "🎉 水"
    assert [each["line"] for each in knowledge.rejected.to_pylist()] == [2, 3]


def test_the_fingerprint_is_of_the_content_in_order(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": text, "id": i} for i, text in enumerate(TEXTS)])
    assert read_knowledge(path).fingerprint == Knowledge.of(TEXTS).fingerprint
    assert Knowledge.of(TEXTS[::-1]).fingerprint != Knowledge.of(TEXTS).fingerprint
    assert in_words(Knowledge.of(TEXTS)) == in_words(read_knowledge(path))


def test_a_pool_is_a_corpus_without_its_system_turns(make_pool: Any) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a river."}]
    pool = make_pool([{"messages": [*turns, {"role": "assistant", "content": "Nile."}]}])
    assert list(Knowledge.from_pool(pool).passages) == ["Name a river.\n\nNile."]


# BM25


MADE = st.text(alphabet="abc 水", max_size=12)


@given(st.lists(MADE, min_size=1, max_size=12), MADE)
def test_bm25_is_what_the_formula_says(documents: list[str], query: str) -> None:
    np.testing.assert_allclose(next(bm25_scores(documents, [query])), naive_bm25(documents, query), rtol=1e-6)


def test_bm25_by_hand() -> None:
    # n = 2, df = 1: idf = ln 2; lengths 1 and 3, mean 2: 1 / (1 + 1.5 (0.25 + 0.75 / 2)) = 1 / 1.9375
    (scores,) = bm25_scores(["nile", "a long river"], ["nile nile"])
    np.testing.assert_allclose(scores, [2 * math.log(2) / 1.9375, 0])


def test_bm25_is_bm25s() -> None:
    peer = pytest.importorskip("bm25s")
    rng = np.random.default_rng(0)
    said = [[f"w{i}" for i in rng.zipf(1.5, rng.integers(1, 60)) if i < 300] for _ in range(400)]
    said = [each or ["w1"] for each in said]
    theirs = peer.BM25(method="lucene", k1=K1, b=B)
    theirs.index(said, show_progress=False)
    index = bm25_index([" ".join(each) for each in said])
    for query in said[:50]:
        np.testing.assert_allclose(index.scores(" ".join(query)), theirs.get_scores(query), rtol=2e-5)


@pytest.mark.parametrize("pruning", [0, 40_000])
def test_searches_are_exact_and_prefixes_of_deeper_ones(pruning: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bm25, "PRUNING", pruning)
    rng = np.random.default_rng(1)
    documents = [" ".join(f"w{i}" for i in rng.zipf(1.3, rng.integers(0, 30)) if i < 200) for _ in range(3000)]
    index, queries = bm25_index(documents), [documents[i] for i in range(0, 400, 10)]
    pruned = 0
    deepest = index.search(queries, len(documents))
    for k in (1, 3, 50):
        found = index.search(queries, k)
        np.testing.assert_array_equal(found.rows, deepest.rows[:, :k])
        np.testing.assert_array_equal(found.scores, deepest.scores[:, :k])
    for query, rows, scores in zip(queries, *deepest, strict=True):
        whole = index._sums(*index._terms(query))
        expected = [row for row in np.argsort(-whole, kind="stable") if whole[row] > 0]
        assert rows[: len(expected)].tolist() == expected and (rows[len(expected) :] == -1).all()
        np.testing.assert_array_equal(scores[: len(expected)], index.scores(query)[expected])
        pruned += len(index._candidates(*index._terms(query), 3, np.zeros(3000, np.float32))) < (whole > 0).sum() / 2
    assert pruned > len(queries) / 2  # that is, the short way was taken


def test_a_query_is_answered_alike_in_any_company() -> None:
    index = bm25_index(TEXTS)
    together = index.search([*TEXTS, "nothing known"], 3)
    for i, text in enumerate(TEXTS):
        alone = index.search([text], 3)
        assert np.array_equal(alone.rows[0], together.rows[i]) and np.array_equal(alone.scores[0], together.scores[i])


def test_what_shares_no_word_is_not_found_and_ties_go_to_the_lower() -> None:
    found = bm25_ranking(["b", "a", "a", "c a"], ["a", "zebra", ""], 6)
    assert found.rows.tolist() == [[1, 2, 3, -1, -1, -1], [-1] * 6, [-1] * 6]
    assert found.scores[0, 0] == found.scores[0, 1] > found.scores[0, 2] and not found.scores[1:].any()
    assert bm25_ranking(["?!", "🎉"], ["a"], 1).rows.tolist() == [[-1]]
    with pytest.raises(ValueError, match="no text"):
        bm25_ranking([], ["a"], 1)
    with pytest.raises(ValueError, match="best 0 passages"):
        bm25_ranking(["a"], ["a"], 0)


# dense, and both


def vectors(n: int, d: int = 8, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(n, d))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("blocks", [(8192, 256), (7, 3), (64, 1)])
def test_dense_is_brute_force(blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_module, "BLOCK_ROWS", blocks[0])
    monkeypatch.setattr(dense_module, "BLOCK_QUERIES", blocks[1])
    held = np.repeat(vectors(150), 2, axis=0).astype(np.float16)  # every passage twice: ties
    held[[4, 299]] = 0  # passages without a token
    wanted = vectors(20, seed=1)
    wanted[3] = np.nan
    for k in (1, 5, 290, 400):
        found = Dense(held, lambda texts: wanted[[int(text) for text in texts]]).search([str(i) for i in range(20)], k)
        for query in range(20):
            cosines = (held.astype(np.float64) * wanted[query].astype(np.float64)).sum(axis=1)
            order = [row for row in np.argsort(-cosines, kind="stable") if row not in (4, 299)][:k]
            expected = [] if query == 3 else order
            assert found.rows[query, : len(expected)].tolist() == expected
            assert (found.rows[query, len(expected) :] == -1).all()
            np.testing.assert_array_equal(found.scores[query, : len(expected)], cosines[expected].astype(np.float32))


def test_rounding_in_single_precision_changes_no_order() -> None:
    # vectors whose cosines differ by less than a float32 product can tell
    base = vectors(1, 384)[0]
    held = np.repeat(base[None], 500, axis=0).astype(np.float16)
    held[np.arange(500), np.arange(500) % 384] += np.float16(1e-4)
    cosines = (held.astype(np.float64) * base.astype(np.float64)).sum(axis=1)
    found = Dense(held, lambda texts: np.repeat(base[None], len(texts), axis=0)).search(["x"], 50)
    assert found.rows[0].tolist() == np.argsort(-cosines, kind="stable")[:50].tolist()


class Listed:
    """A search that gives one list."""

    def __init__(self, *rows: int) -> None:
        self.rows = rows

    def search(self, queries: Sequence[str], k: int) -> Found:
        padded = [*self.rows, *[-1] * k][:k]
        return Found(np.array([padded] * len(queries)), np.zeros((len(queries), k), np.float32))


def test_reciprocal_ranks_by_hand() -> None:
    both = Ranks((Listed(7, 2, 5), Listed(2, 9)))
    assert isinstance(both, Search)
    found = both.search(["x"], 5)
    # 2: 1/62 + 1/61; 7: 1/61; 9: 1/62; 5: 1/63
    assert found.rows.tolist() == [[2, 7, 9, 5, -1]]
    np.testing.assert_allclose(found.scores[0], [1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63, 0], rtol=1e-6)
    assert Ranks((Listed(4, 3), Listed(3, 4))).search(["x"], 1).rows.tolist() == [[3]]


# overlap


def sample(prompt: str, answer: str) -> Sample:
    return Sample(prompt, answer, copy_share=0.5, answer_words=8)


ASKED, SAID = "Why does bread rise in the oven?", "Because yeast makes gas, and the heat lets it grow."


@pytest.mark.parametrize(
    ("passage", "copy"),
    [
        (f"{ASKED}\n\n{SAID}", True),
        (f"Q: {ASKED.upper()}!!  A -- {SAID.replace(',', ' ;')}", True),
        ("Why does bread rise in the oven? Because yeast makes gas, and the warmth lets it grow.", True),
        (f"Something else in front of it, of some length. {ASKED} {SAID} And behind it, too, for a while.", True),
        ("Yeast makes gas in the dough, and so it rises when it is warm.", False),
        ("Why does bread rise in the cold? Sugar feeds the fungus until salt stops all of that again.", False),
        ("", False),
    ],
)
def test_copies_and_near_copies(passage: str, copy: bool) -> None:
    assert sample(ASKED, SAID).is_copy(units(passage)) is copy


@pytest.mark.parametrize(
    ("answer", "passage", "held"),
    [
        ("one two three four five six seven eight nine", "x Two, three; four FIVE six seven eight nine y", True),
        ("one two three four five six seven eight nine", "one two three four five six seven and eight nine", False),
        ("by the old mill", "It stood by the old mill for years.", True),
        ("by the old mill", "It stood by an old mill for years.", False),
        ("Paris", "Paris is the capital of France.", False),
        ("Charles Robert Darwin", "It was Charles Robert Darwin who said so.", True),
        ("", "Anything.", False),
        ("!!!", "Anything!!!", False),
        ("酵母产生气体让面团在烤箱里慢慢膨胀", "因为酵母产生气体,让面团在烤箱里慢慢膨胀起来", True),
        ("酵母", "酵母产生气体", False),
        ("酵母产生气体让面团", "他说:酵母产生气体,让面团变大", True),
    ],
)
def test_passages_that_hold_the_answer(answer: str, passage: str, held: bool) -> None:
    assert sample("Well?", answer).answered_by(units(passage)) is held


# indexes in the store


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "store")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(sentence_folder(tmp_path_factory.mktemp("models") / "encoder"))


def test_indexes_are_made_once(lab: Lab, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    knowledge = Knowledge.of(TEXTS)
    first = indexed(knowledge, lab, embedder=encoder)
    made = [(stage.name, stage.rows, stage.stored) for stage in lab.stages if "embedding" not in stage.name]
    assert made == [("passages", 5, 0), ("bm25 index", 5, 0), ("dense index", 5, 0)]
    for module, name in ((bm25_building, "bm25_index"), (dense_module, "save"), (Embedding, "load")):
        monkeypatch.setattr(module, name, None)  # what is stored needs none of them
    second_lab = Lab(lab.store)
    again = indexed(Knowledge.of(TEXTS), second_lab, embedder=encoder)
    assert again == first and all(stage.rows == 0 and stage.stored == 5 for stage in second_lab.stages)
    rooms = [entry for entry in listing(lab.store) if entry.room == "indexes"]
    assert len(rooms) == 3 and all(entry.rows == 5 for entry in rooms)
    assert any(entry.made_from.startswith("bm25 index(Knowledge") for entry in rooms)
    assert not list(lab.store.rglob("*.pkl")) and {path.suffix for path in (lab.store / "indexes").rglob("*.*")} <= {
        ".npy",
        ".json",
    }
    prune(lab.store, everything=True)
    assert not list((lab.store / "indexes").glob("*/*/done.json"))


def test_the_address_is_the_content_and_how_it_is_searched(lab: Lab, tmp_path: Path) -> None:
    at = indexed(Knowledge.of(TEXTS), lab, by=("bm25",))
    elsewhere = indexed(Knowledge.of(TEXTS), Lab(tmp_path / "other"), by=("bm25",))
    assert at.path != elsewhere.path and address(Retrieved(at)) == address(Retrieved(elsewhere))
    other = indexed(Knowledge.of(TEXTS[:-1]), lab, by=("bm25",))
    assert len({address(each) for each in (Retrieved(at), Retrieved(other), Retrieved(at, k=2))}) == 3
    for by, why in (("bm52",), "did you mean 'bm25'"), ((), "by nothing"):
        with pytest.raises(ValueError, match=why):
            indexed(Knowledge.of(TEXTS), lab, by=by)


def test_stored_indexes_give_what_those_in_memory_give(lab: Lab, encoder: str) -> None:
    at = indexed(Knowledge.of(TEXTS), lab, by=("bm25",))
    np.testing.assert_array_equal(at.search.open().search(TEXTS, 3).rows, bm25_index(TEXTS).search(TEXTS, 3).rows)
    assert [Texts.open(at.path)[i] for i in range(5)] == TEXTS
    near = indexed(Knowledge.of(TEXTS), lab, by=("dense",), embedder=encoder).search.open().search(TEXTS, 5)
    assert near.rows[:, 0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(near.scores[:, 0], 1, atol=1e-3)


def test_a_passage_without_a_token_is_found_by_words_alone(lab: Lab, encoder: str) -> None:
    texts = ["the nile", "\u200b", "bread"]  # a space of no width is no token
    at = indexed(Knowledge.of(texts), lab, embedder=encoder)
    found = at.search.open().search(["nile", "\u200b"], 3).rows
    assert 1 not in found[0].tolist() and found[1].tolist() == [-1, -1, -1]


def test_what_is_damaged_or_half_written_is_made_again(lab: Lab) -> None:
    at = indexed(Knowledge.of(TEXTS), lab, by=("bm25",))
    place = Path(at.path)
    draft = place.parent / ".index-half"
    draft.mkdir()
    (draft / "letters.npy").write_bytes(b"half")
    with (place / "letters.npy").open("ab") as file:
        file.write(b"x")
    again = indexed(Knowledge.of(TEXTS), Lab(lab.store), by=("bm25",))
    assert again.path != at.path and not place.exists() and Texts.open(again.path)[0] == TEXTS[0]
    assert again == KnowledgeAt(at.digest, again.search, again.path) and address(Retrieved(again)) == address(
        Retrieved(at)
    )


KILLED = """
import os, signal, sys
from pathlib import Path
from coretune.knowledge import Knowledge, indexed
from coretune.knowledge import bm25
from coretune.lab import Lab
whole = bm25.save_array
def save_array(path, *rest):
    if path.name == "adds.npy":
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path, *rest)
bm25.save_array = save_array
indexed(Knowledge.of(["one text", "another"]), Lab(Path(sys.argv[1])), by=("bm25",))
"""


def test_a_kill_while_writing_leaves_nothing_that_is_read(lab: Lab) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(lab.store)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    at = indexed(Knowledge.of(["one text", "another"]), lab, by=("bm25",))
    assert [(stage.name, stage.rows) for stage in lab.stages] == [("passages", 0), ("bm25 index", 2)]
    assert at.search.open().search(["another"], 1).rows.tolist() == [[1]]


# contexts


def found_for(spec: ContextSpec, *examples: Example) -> Contexts:
    assert isinstance(spec, ContextSpec)
    return spec.resolved().load()(examples)


def counts(found: Contexts, row: int = 0) -> dict[str, int]:
    return {name: int(values[row]) for name, values in found.numbers.items()}


ANSWER = "It is the longest river of the whole continent of Africa."
SHELF = [
    "What about the Nile?\n\nThe river Nile flows north.",
    f"Tell me about the Nile river, in a few words, for a child of ten:\n\n{ANSWER}",
    f"Some say of the Nile: {ANSWER} Others doubt that it is so, and speak of quite another river.",
    "The Nile floods every summer, or did so before the dam was built.",
    "What about the Nile?\n\nThe river Nile flows north.",
    "Bread is baked from flour.",
    "Egypt drinks from the Nile.",
]
NILE = example("Tell me about the Nile river, in a few words and for a child of ten!", ANSWER)


def test_copies_and_answers_are_left_out_replaced_and_counted(lab: Lab) -> None:
    at = indexed(Knowledge.of(SHELF), lab, by=("bm25",))
    found = found_for(Retrieved(at, k=3), NILE)
    assert sorted(found.passages[0]) == sorted([SHELF[0], SHELF[3], SHELF[6]])  # the second copy of 0 is not given
    assert found.passages[0][0] == SHELF[0]
    assert counts(found) == {"passages": 3, "copies_excluded": 1, "answers_excluded": 1}
    assert {name: bool(flags[0]) for name, flags in found.marks.items()} == {
        "copy_excluded": True,
        "answer_excluded": True,
        "few_passages": False,
    }
    few = found_for(Retrieved(at, k=9), NILE)
    assert counts(few)["passages"] == 3 and few.marks["few_passages"][0]
    none = found_for(Retrieved(at), example("Zebra?", "A striped horse."))
    assert none.passages[0] == [] and none.marks["few_passages"][0]


def test_many_copies_are_passed_over_whatever_their_number(lab: Lab) -> None:
    copies = [f"Tell me about the Nile river, in a few words and for a child of ten! {ANSWER} {i}" for i in range(450)]
    at = indexed(Knowledge.of([*copies, "A dam was built across the river."]), lab, by=("bm25",))
    found = found_for(Retrieved(at, k=1), NILE)
    assert found.passages[0] == ["A dam was built across the river."] and counts(found)["copies_excluded"] == 450


def test_a_prompt_is_what_the_user_says_before_the_last_answer(lab: Lab) -> None:
    at = indexed(Knowledge.of(TEXTS), lab, by=("bm25",))
    turns = [("system", "comet"), ("user", "bread"), ("assistant", "comet"), ("user", "yeast?"), ("assistant", "comet")]
    messages = tuple(Message(*turn) for turn in turns)
    found = found_for(Retrieved(at), Example("x", messages, content_key(messages)))
    assert sorted(found.passages[0]) == [TEXTS[1], TEXTS[4]]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, encoder: str) -> tuple[KnowledgeAt, list[Example]]:
    folder = tmp_path_factory.mktemp("shelf")
    pool = pool_of(folder, 60)
    at = indexed(Knowledge.from_pool(pool), Lab(folder / "store"), embedder=encoder)
    return at, pool.examples(np.arange(60))


def random_context(at: KnowledgeAt, **options: int) -> RandomContext:
    return RandomContext(Retrieved(at, **options), 3)


def swapped_context(at: KnowledgeAt, **options: int) -> SwappedContext:
    return SwappedContext(Retrieved(at, **options), 3)


SPECS = [Retrieved, random_context, swapped_context]


@pytest.mark.parametrize("make", SPECS, ids=["retrieved", "random", "swapped"])
def test_contexts_depend_on_their_row_alone(make: Any, shelf: tuple[KnowledgeAt, list[Example]]) -> None:
    at, examples = shelf
    find = make(at, k=2).load()
    together, backwards = find(examples), find(examples[::-1])
    for i in (0, 7, 59):
        alone = find([examples[i]])
        for found, row in ((together, i), (backwards, 59 - i)):
            assert found.passages[row] == alone.passages[0] and counts(found, row) == counts(alone)
    assert list(find([]).passages) == [] and find([]).numbers["passages"].shape == (0,)
    assert (together.numbers["passages"] == 2).all()


@pytest.mark.parametrize("make", SPECS, ids=["retrieved", "random", "swapped"])
def test_no_context_holds_its_own_example(make: Any, shelf: tuple[KnowledgeAt, list[Example]]) -> None:
    at, examples = shelf
    found = make(at).load()(examples)
    for one, texts in zip(examples, found.passages, strict=True):
        assert texts and not any(one.answer in text for text in texts)
    assert make is not Retrieved or found.numbers["copies_excluded"].sum() > 20  # the pool is its own knowledge


def test_random_context_is_as_long_as_what_is_retrieved(shelf: tuple[KnowledgeAt, list[Example]]) -> None:
    at, examples = shelf
    retrieved = Retrieved(at).load()(examples)
    drawn, other = (RandomContext(Retrieved(at), seed).load()(examples) for seed in (0, 1))
    for mine, theirs in zip(drawn.passages, retrieved.passages, strict=True):
        assert list(map(len, mine)) == list(map(len, theirs)) and not set(mine) & set(theirs)
    assert not drawn.marks["shorter"].any() and drawn.passages != other.passages
    assert len({text for texts in drawn.passages for text in texts}) > 60  # drawn for each row anew


def test_random_context_of_a_small_corpus_says_that_it_is_shorter(lab: Lab) -> None:
    long = "The Nile " + "flows on and on " * 20
    at = indexed(Knowledge.of([long, "Bread.", "Egypt drinks, too."]), lab, by=("bm25",))
    found = found_for(RandomContext(Retrieved(at, k=1)), example("Nile?", "A river."))
    assert sorted(found.passages[0][0].split("\n\n")) == ["Bread.", "Egypt drinks, too."] and found.marks["shorter"][0]


def test_swapped_context_is_what_another_passage_finds(lab: Lab) -> None:
    at = indexed(Knowledge.of(TEXTS), lab, by=("bm25",))
    query = example("Which comet?", "None that I know of.")
    found = {tuple(found_for(SwappedContext(Retrieved(at, k=1), seed), query).passages[0]) for seed in range(40)}
    search = bm25_index(TEXTS)
    expected = set()
    for row, text in enumerate(TEXTS):
        best = [each for each in search.search([text], 5).rows[0].tolist() if each not in (row, -1)]
        expected.add((TEXTS[best[0]],))
    assert found == expected


def test_what_was_pruned_is_asked_to_be_indexed_again(lab: Lab) -> None:
    at = indexed(Knowledge.of(TEXTS), lab, by=("bm25",))
    prune(lab.store, everything=True)
    with pytest.raises(FolderError, match="run again to have it indexed"):
        Retrieved(at).load()


def test_odd_numbers_are_refused(lab: Lab) -> None:
    at = indexed(Knowledge.of(TEXTS), lab, by=("bm25",))
    for wrong in ({"k": 0}, {"copy_share": 1.5}, {"answer_words": 0}):
        with pytest.raises(ValueError, match="give 1 or more"):
            Retrieved(at, **wrong)


def test_contexts_are_drawn_evenly(lab: Lab) -> None:
    at = indexed(Knowledge.of([f"about {i:02}" for i in range(20)]), lab, by=("bm25",))
    find = RandomContext(Retrieved(at, k=1)).load()
    rows = [example("about it", f"x{i}") for i in range(600)]  # all retrieve the first
    times = Counter(texts[0] for texts in find(rows).passages)
    assert len(times) == 19 and max(times.values()) < 60


@pytest.mark.models
def test_a_question_finds_its_passage_by_meaning(lab: Lab) -> None:
    at = indexed(Knowledge.of(TEXTS), lab, by=("dense",))
    found = found_for(Retrieved(at, k=1), example("What are tailed celestial bodies composed of?", "Frozen matter."))
    assert found.passages[0] == [TEXTS[2]]
    assert json.loads(json.dumps(counts(found))) == {"passages": 1, "copies_excluded": 0, "answers_excluded": 0}
