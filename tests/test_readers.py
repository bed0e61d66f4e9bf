"""`read_pool` as a user meets it: inputs, rejects, ids, columns, memory, progress; nothing given is lost."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coretune.errors import MissingExtra, PoolError
from coretune.pool import SCHEMA, Pool
from coretune.readers import pool_cache, read_pool
from coretune.readers.spools import Spool


def jsonl(path: Path, made: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in made), encoding="utf-8")
    return path


def pairs(n: int, start: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"Double {i}.", "completion": str(2 * i), **more} for i in range(start, start + n)]


def prompts(pool: Pool) -> list[str]:
    return [example.prompt for example in pool]


def refusal(*inputs: str | Path, **options: Any) -> str:
    with pytest.raises(PoolError) as raised:
        read_pool(*inputs, **options)
    str(raised.value).encode("utf-8")
    return str(raised.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a cache of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_one_row_in_full(here: Path) -> None:
    line = '{"id": "r1", "instruction": "Say hi.",  "input": "", "output": "Hi.", "stars": 4.50, "dataset": "made"}'
    (here / "a.jsonl").write_text("\n" + line + "\r\n", encoding="utf-8")
    pool = read_pool("a.jsonl")
    row = pool.table.to_pylist()[0]
    assert (row["id"], row["file"], row["line"], row["raw"]) == ("r1", "a.jsonl", 2, line.encode())
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    assert (row["source"], row["lang"], row["tools"], row["data.stars"]) == ("made", "Latin", None, 4.5)
    assert row["key"] == pool[0].key
    assert pool.formats == {"alpaca": 1}
    assert pool.inputs == ("a.jsonl",)
    assert pool.table.schema.names[: len(SCHEMA)] == SCHEMA.names


def test_given_is_read_plus_rejected_over_many_files(here: Path) -> None:
    jsonl(here / "set" / "b.jsonl", [*pairs(3), {"prompt": "x"}, *pairs(2)])
    (here / "set" / "sub").mkdir()
    (here / "set" / "sub" / "a.csv.gz").write_bytes(gzip.compress(b"prompt,completion\nq,a\nq,\n"))
    (here / "set" / "c.json").write_text(json.dumps(pairs(2, 10)), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(pairs(4, 20)), here / "set" / "d.parquet")
    for name in ("README.md", ".hidden.jsonl", "state.json"):
        (here / "set" / name).write_text("not a record", encoding="utf-8")
    pool = read_pool("set")
    assert dict.fromkeys(pool.column("file")) == dict.fromkeys(
        ["set/b.jsonl", "set/c.json", "set/d.parquet", "set/sub/a.csv.gz"]
    )
    assert (len(pool), pool.rejected.num_rows) == (12, 2)
    assert pool.duplicate_of.tolist() == [-1, -1, -1, 0, 1, *[-1] * 7]
    assert pool.rejected.column("line").to_pylist() == [4, 3]
    assert set(pool.column("source")) == {"a", "b", "c", "d"}
    assert prompts(read_pool("set/*.json*")) == prompts(read_pool("set/b.jsonl", Path("set/c.json")))
    assert len(read_pool("set/**/*.gz")) == 1
    assert len(read_pool("set/b.jsonl", "set/b.jsonl")) == 10


def test_rejects_hold_file_line_reason_and_bytes(here: Path) -> None:
    bad = [b'{"prompt": "a"', b'{"prompt": "\xff"}', b'{"prompt": "a", "completion": "\\ud800"}', b"7"]
    (here / "a.jsonl").write_bytes(b'{"prompt": "a", "completion": "b"}\n\n' + b"\n".join(bad) + b"\n")
    rejected = read_pool("a.jsonl").rejected.to_pylist()
    assert [each["raw"] for each in rejected] == bad
    assert [each["line"] for each in rejected] == [3, 4, 5, 6]
    assert {each["file"] for each in rejected} == {"a.jsonl"}
    assert [each["reason"].partition(":")[0] for each in rejected] == [
        "broken JSON",
        "invalid UTF-8",
        "lone surrogate",
        "not an object",
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", "no records in it"),
        ("a.csv", b"\n\n", "no records in it"),
        ("a.jsonl", b"\n \n", "no records in it"),
        ("a.parquet", b"", "no records in it"),
        ("a.json", b"[]", "no records in it"),
        ("a.csv", b"prompt,completion\n", "no records in it"),
        ("a.jsonl", b"\xff\n\xfe\n\x00\n", "none of 3 records is usable (2 x invalid UTF-8, 1 x broken JSON)"),
        ("a.jsonl", b'{"Question": "a", "Answer": "b"}\n', "--columns prompt=Question,completion=Answer"),
        ("a.bin", bytes(range(1, 200)), "is of no known kind"),
        ("a.parquet", b"garbage", "is named as parquet, but is none"),
        ("a.csv", b"Question,Best Answer\n", "--columns prompt=Question,completion='Best Answer'"),
    ],
)
def test_nothing_usable_is_a_clear_refusal(here: Path, name: str, data: bytes, message: str) -> None:
    (here / name).write_bytes(data)
    text = refusal(name)
    assert message in text
    assert text.startswith(name)


def test_inputs_that_are_not_there(here: Path) -> None:
    jsonl(here / "alpaca.jsonl", pairs(1))
    (here / "empty").mkdir()
    (here / "empty" / "notes.md").write_text("x", encoding="utf-8")
    assert "near it there: alpaca.jsonl" in refusal("alpaka.jsonl")
    assert "nor the folder nowhere" in refusal("nowhere/alpaca.jsonl")
    assert "'*.csv' matches no file" in refusal("*.csv")
    assert "of 1 files, none ends in .json" in refusal("empty")
    assert "no records in it" in refusal("/dev/null")
    assert "no pool was named" in refusal()
    assert "an empty name" in refusal("")
    assert "is no name of a file" in refusal("x" * 5000)
    assert "there is no file" in refusal("a\0b.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(here: Path) -> None:
    jsonl(here / "a.jsonl", pairs(1)).chmod(0)
    assert "a.jsonl cannot be read: Permission denied" in refusal("a.jsonl")


def test_file_names_that_are_no_text(here: Path) -> None:
    name = os.fsdecode(b"na\xffme.jsonl")
    jsonl(here / name, pairs(1))
    assert read_pool(".").column("file").tolist() == ["na\\udcffme.jsonl"]


@pytest.mark.parametrize(
    "data",
    [
        b'{"prompt": "a", "completion": "b"}\n',
        b'[{"prompt": "a", "completion": "b"}]',
        b"prompt\tcompletion\na\tb\n",
        gzip.compress(b"prompt,completion\na,b\n", mtime=0),
    ],
)
def test_standard_input(here: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    pool = read_pool("-")
    assert (prompts(pool), pool[0].source, pool.column("file")[0]) == (["a"], "stdin", "-")
    assert "once only" in refusal("-", "-")


def test_standard_input_from_a_pipe(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        pq.write_table(pa.Table.from_pylist(pairs(3)), file)
    with os.fdopen(reading, "r", encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert len(read_pool("-")) == 3


def test_ids(here: Path) -> None:
    jsonl(here / "x" / "a.jsonl", [*pairs(1, id="one"), *pairs(1, 1, id="two"), *pairs(1, 2), *pairs(1, 2)])
    jsonl(here / "y" / "a.jsonl", pairs(1, 5, uid="two"))
    pool = read_pool("x", "y")
    key = pool[2].key.hex()
    assert [example.id for example in pool] == ["one", "x/a.jsonl:two", key, f"{key}-2", "y/a.jsonl:two"]
    shutil.move(here / "x", here / "moved" / "x")
    shutil.move(here / "y", here / "moved" / "y")
    assert read_pool("moved/x", "moved/y").fingerprint == pool.fingerprint


def test_scalar_columns(here: Path) -> None:
    more = [
        {
            "flag": True,
            "n": 1,
            "x": 1,
            "s": "a",
            "mixed": 1,
            "big": 2**62,
            "huge": 2**70,
            "half": "\ud800",
            "wide": 2**60,
        },
        {"flag": None, "n": 2, "x": 1.5, "s": None, "mixed": "1", "big": 1, "huge": 1, "half": "b", "wide": 0.5},
        {"list": [1], "x": None, "n": 10**15},
    ]
    made = [{**pair, **extra} for pair, extra in zip(pairs(3), more, strict=True)]
    pool = read_pool(jsonl(here / "a.jsonl", made))
    types = {
        name.removeprefix("data."): str(pool.table.schema.field(name).type) for name in pool.table.column_names[9:]
    }
    assert types == {"flag": "bool", "n": "int64", "x": "double", "s": "string", "big": "int64"}
    assert pool.table.column("data.big").to_pylist() == [2**62, 1, None]
    np.testing.assert_equal(pool.column("x"), [1.0, 1.5, np.nan])
    assert pool.column("s").tolist() == ["a", None, None]


def test_scalar_columns_settle_over_batches(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coretune.readers.pool_table.BATCH_ROWS", 2)
    made = pairs(7)
    made[0]["x"], made[3]["x"], made[0]["late"], made[6]["late"], made[5]["y"] = 1, 2.5, "s", 1, True
    pool = read_pool(jsonl(here / "a.jsonl", made))
    assert pool.table.column("data.x").to_pylist() == [1.0, None, None, 2.5, None, None, None]
    assert pool.table.column("data.y").to_pylist() == [None, None, None, None, None, True, None]
    assert "data.late" not in pool.table.column_names
    assert pool.table.column("raw").num_chunks == 1


def test_too_many_keys_are_counted(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = [{**pair, f"k{i}": i} for i, pair in enumerate(pairs(300))]
    pool = read_pool(jsonl(here / "a.jsonl", made))
    assert len(pool.fields) == 5 + 256
    assert "more than 256 top-level keys: 44 values are in the raw records alone" in caplog.text


def test_named_columns(here: Path) -> None:
    (here / "t.csv").write_text("Q,Best Answer,Kind\nWhy?,So.,1\n", encoding="utf-8")
    pool = read_pool("t.csv", columns={"prompt": "Q", "completion": "Best Answer", "source": "Kind"})
    assert (pool[0].prompt, pool[0].answer, pool[0].source) == ("Why?", "So.", "1")
    assert pool.table.column("raw").to_pylist() == [b'{"Q": "Why?", "Best Answer": "So.", "Kind": "1"}']
    assert "did you mean 'Kind'" in refusal("t.csv", columns={"prompt": "Q", "completion": "Best Answer", "id": "Kin"})
    jsonl(here / "a.jsonl", pairs(2))
    assert "'key', which no record of a.jsonl has" in refusal("a.jsonl", columns={"id": "key"})
    with pytest.raises(ValueError, match="give completion=COLUMN too"):
        read_pool("t.csv", columns={"prompt": "Q"})


def test_mapped_pool_is_the_same_pool(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coretune.readers.pool_table.BATCH_ROWS", 7)
    monkeypatch.setattr(pool_cache, "ROWS", 20)
    made = [{**pair, "n": i} if i % 3 else {**pair, "n": i, "late": "x"} for i, pair in enumerate(pairs(100))]
    jsonl(here / "a.jsonl", [*made[:50], {"prompt": 1}, *made[50:], *made[:3]])
    small, large = read_pool("a.jsonl"), read_pool("a.jsonl", map_above_bytes=1000)
    kept = list((here.parent / "cache" / "coretune" / "pools").iterdir())
    assert [sorted(path.name for path in each.iterdir()) for each in kept] == [
        ["about.json", "pool.arrow", "rejected.arrow"]
    ]
    assert large.table.column("id").num_chunks > 3
    again = read_pool("a.jsonl")  # found by path, size and time of change, whatever the limit
    for pool in (large, again):
        assert pool.table.equals(small.table)
        assert pool.rejected.equals(small.rejected)
        assert (pool.fingerprint, pool.formats, pool.inputs) == (small.fingerprint, small.formats, small.inputs)
    rows = np.random.default_rng(0).integers(0, len(small), 300)
    assert large.examples(rows) == small.examples(rows)
    view = large.subset(rows[:50]).subset(np.array([3, 1, 1]))
    assert [example.id for example in view] == [small[int(rows[i])].id for i in (3, 1, 1)]
    assert large.examples(np.empty(0, dtype=np.int64)) == []


def test_cached_pool_is_left_when_the_file_changes(here: Path) -> None:
    path = jsonl(here / "a.jsonl", pairs(5))
    assert len(read_pool(path, map_above_bytes=0)) == 5
    jsonl(path, pairs(6))
    assert len(read_pool(path, map_above_bytes=0)) == 6
    assert len(read_pool(path, map_above_bytes=0, columns={"prompt": "completion", "completion": "prompt"})) == 6
    assert len(list((here.parent / "cache" / "coretune" / "pools").iterdir())) == 3


def test_large_pool_from_standard_input_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = jsonl(here / "a.jsonl", pairs(50)).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    pool = read_pool("-", map_above_bytes=0)
    assert list((here.parent / "cache" / "coretune" / "pools").iterdir()) == []
    assert prompts(pool) == prompts(read_pool("a.jsonl"))


def test_cache_that_cannot_be_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jsonl(here / "a.jsonl", pairs(5))
    (here / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "file"))
    assert "set XDG_CACHE_HOME to a folder with room" in refusal("a.jsonl", map_above_bytes=0)


def test_spool_gives_back_what_it_took(here: Path, rng: np.random.Generator) -> None:
    batches = [pa.record_batch({f"c{i % 3}": pa.array(rng.random(int(rng.integers(1, 9))))}) for i in range(12)]
    for limit in (0, 200, 10**6):
        with Spool(here / "spool", limit) as spool:
            for batch in batches:
                spool.append(batch)
            assert [list(spool), list(spool)] == [batches, batches]
        assert not (here / "spool").exists() or not list((here / "spool").iterdir())


def test_progress_goes_up_to_the_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coretune.readers.reading.EVERY_SECONDS", 0.0)
    jsonl(here / "a.jsonl", pairs(5000))
    (here / "b.json").write_text(json.dumps(pairs(500)), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(pairs(3000)), here / "c.parquet")
    calls: list[tuple[str, int, int | None]] = []
    read_pool(".", progress=lambda *call: calls.append(call))
    total = sum(path.stat().st_size for path in here.iterdir())
    done = [call[1] for call in calls]
    assert {call[0] for call in calls} == {"reading"}
    assert {call[2] for call in calls} == {total}
    assert done == sorted(done)
    assert done[-1] == total
    assert len(set(done)) > 5


def test_progress_is_told_now_and_then_only(here: Path) -> None:
    jsonl(here / "a.jsonl", pairs(3000))
    calls: list[int] = []
    read_pool("a.jsonl", progress=lambda stage, done, total: calls.append(done))
    assert len(calls) < 20


@pytest.fixture
def hub_layout(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local folder as the hub holds data sets, and a cache for what is made of it."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", here.parent / "hf")
    jsonl(here / "owner" / "name" / "data" / "train-00000-of-00001.jsonl", pairs(3))
    return here / "owner" / "name"


def test_hub_data_set(hub_layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coretune.readers import hub

    monkeypatch.chdir(hub_layout)
    load = hub.load_split
    monkeypatch.setattr(hub, "load_split", lambda address, *rest: load(str(hub_layout.parents[1] / address), *rest))
    pool = read_pool("owner/name")
    assert prompts(pool) == prompts(read_pool("owner/name:train")) == ["Double 0.", "Double 1.", "Double 2."]
    assert (pool[0].source, pool.column("file")[0]) == ("owner/name", "owner/name")
    assert pool.column("line").tolist() == [1, 2, 3]


def test_hub_data_set_with_several_splits(hub_layout: Path) -> None:
    from coretune.readers.hub import load_split

    jsonl(hub_layout / "data" / "test-00000-of-00001.jsonl", pairs(2))
    with pytest.raises(PoolError, match=r"has the splits train, test; name one: .*name:train"):
        load_split(str(hub_layout), None, None)
    assert load_split(str(hub_layout), None, "test").num_rows == 2
    with pytest.raises(PoolError, match="could not be had from the hub: Unknown split"):
        load_split(str(hub_layout), None, "dev")


def test_hub_out_of_reach(here: Path) -> None:
    pytest.importorskip("datasets")
    text = refusal("nobody/nothing")
    assert "'nobody/nothing' is no file here, and could not be had from the hub" in text
    assert "the network" in text


def test_hub_needs_its_extra(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"coretune\[hub\]"):
        read_pool("owner/name")
