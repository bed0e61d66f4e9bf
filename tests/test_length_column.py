"""Lengths in characters, and numbers that come with the data or in a file beside it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coretune.errors import PoolError
from coretune.features.column import column, scores_file
from coretune.features.length import Length
from coretune.pool import Example, Message, Pool, content_key

MakePool = Callable[[Sequence[Any]], Pool]


def talk(*said: tuple[str, str]) -> Example:
    turns = tuple(Message(role, content) for role, content in said)
    return Example("row", turns, content_key(turns))


def lengths(of: Any, *examples: Example) -> list[float]:
    measured = Length(of).resolved().load()(examples)
    assert measured.values.dtype == np.float32
    return measured.values.tolist()


def test_lengths_by_hand() -> None:
    twice = talk(("user", "One?"), ("assistant", "1"), ("user", "Two?"), ("assistant", "2 é👩"))
    unanswered = talk(("user", "Why?"))
    assert lengths("answer", twice, unanswered) == [4, 0]
    assert lengths("prompt", twice, unanswered) == [4 + 2 + 1 + 2 + 4, 4]
    assert lengths("conversation", twice, unanswered) == [11 + 2 + 2 + 4, 4]
    with pytest.raises(ValueError, match="length of 'tokens' asked"):
        Length("tokens")  # type: ignore[arg-type]


@pytest.fixture
def pool(make_pool: MakePool) -> Pool:
    """Four rows with ids; the quality of one is missing."""
    qualities = [0.5, None, 3, 2.25]
    return make_pool(
        [
            {"id": f"r{row}", "prompt": f"Say {row}", "completion": str(row), "quality": quality, "topic": "counting"}
            for row, quality in enumerate(qualities)
        ]
    )


def test_a_column_is_a_number_a_row(pool: Pool) -> None:
    values = column(pool, "quality")
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, [0.5, np.nan, 3, 2.25])
    np.testing.assert_array_equal(column(pool.subset(np.array([3, 0])), "quality"), [2.25, 0.5])
    with pytest.raises(ValueError, match=r"column 'topic' is asked as a number a row, but holds text: .*'counting'"):
        column(pool, "topic")
    with pytest.raises(ValueError, match="did you mean 'quality'"):
        column(pool, "qualty")


RECORDS = [{"id": "r2", "deita": 4.5}, {"id": "r0", "deita": -1}, {"id": "r9", "deita": 2}, {"id": "r3", "deita": None}]


def written(folder: Path, kind: str) -> Path:
    path = folder / f"scores{kind}"
    separator = "\t" if "tsv" in kind else ","
    table = [f"id{separator}deita", *(f"{each['id']}{separator}{each['deita'] or ''}" for each in RECORDS)]
    said = "\n".join(table if "sv" in kind else [json.dumps(each) for each in RECORDS]) + "\n"
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(RECORDS), path)
    elif kind.endswith(".gz"):
        path.write_bytes(gzip.compress(said.encode()))
    else:
        path.write_text(("\ufeff" if kind == ".csv" else "") + said, encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet"])
def test_scores_are_joined_by_id_and_what_is_left_is_counted(kind: str, pool: Pool, tmp_path: Path) -> None:
    scores = scores_file(pool, written(tmp_path, kind))
    np.testing.assert_array_equal(scores.values, np.array([-1, np.nan, 4.5, np.nan], dtype=np.float32))
    assert (scores.name, scores.rows_without, scores.ids_unknown) == ("deita", 2, 1)


def test_the_columns_of_a_file_can_be_named(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("key,a,b\nr1,1,2\nr2,3,4\n")
    assert scores_file(pool, path, score="b", id="key").values[1:3].tolist() == [2, 4]
    with pytest.raises(PoolError, match="has the columns key, a, b; say which one holds the score"):
        scores_file(pool, path, id="key")
    with pytest.raises(PoolError, match=r"scores\.csv:2 has no 'bb'; it has key, a, b"):
        scores_file(pool, path, score="bb", id="key")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("scores.csv", "id,s\nr0,high\n", r"scores\.csv:2: the score 'high' is no number"),
        ("scores.csv", "id,s\nr0,1\nr0,2\n", r":3: id 'r0' has the score 2, and 1 further up"),
        ("scores.csv", "id,s\nx,1\ny,2\n", "none of the 2 ids in .*, as 'x', is one of the pool's 4, as .'r0'"),
        ("scores.csv", "id,s\nr0,1,2\n", ":2 has another number of values than its header"),
        ("scores.csv", "id,s\n", "holds no scores"),
        ("scores.jsonl", '{"id": "r0", "s": 1}\n{"id"\n', ":2 is not JSON"),
        ("scores.jsonl", "[1]\n", ":1 is not an object with an id and a score, but .1."),
        ("scores.parquet", "not parquet", "cannot be read"),
        ("scores.csv.gz", "not gzip", "cannot be read"),
        ("scores.xlsx", "", r"give \.csv, \.tsv, \.jsonl"),
    ],
)
def test_what_cannot_be_joined_says_why(name: str, text: str, words: str, pool: Pool, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PoolError, match=words):
        scores_file(pool, tmp_path / name)


def test_a_missing_file_says_so(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="cannot be read"):
        scores_file(pool, tmp_path / "none.csv")


def test_the_same_score_twice_is_no_contradiction(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("id,s\nr0,1\nr0,1.0\nr1,\nr1,\n")
    assert scores_file(pool, path).rows_without == 3
