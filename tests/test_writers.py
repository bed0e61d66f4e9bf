"""Records written as they came in, converted, with their own types; rejects; files that appear whole."""

from __future__ import annotations

import base64
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.atomic import replacing
from coretune.errors import PoolError
from coretune.pool import Pool
from coretune.readers import read_pool
from coretune.writers import write_records, write_rejected
from coretune.writers.writing import on_one_line

CALLS = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}]
DIALOGUE = {
    "id": "d1",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "1 + 1?"}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "assistant", "content": "2 é"},
    ],
    "tools": [{"type": "function", "function": {"name": "add"}}],
    "score": 0.5,
}
ALPACA = {"id": "a1", "instruction": "Translate.", "input": "Fluss", "output": "river", "system": "Be brief."}


def read(path: Path, *made: Any) -> Pool:
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in made), encoding="utf-8")
    return read_pool(path)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_raw_records_come_back_to_the_byte_in_the_order_of_picking(tmp_path: Path) -> None:
    given = [
        '{"completion": "b", "prompt": "a", "x": 1.0, "y": 1e5, "z": "\\u00e9é", "n": {"k":  []}}',
        '{"prompt":"c","completion":"d"}',
        '  {"prompt": "e", "completion": "f"} ',
    ]
    (tmp_path / "a.jsonl").write_text("\r\n".join(given), encoding="utf-8")
    pool = read_pool(tmp_path / "a.jsonl")
    write_records(pool, np.array([2, 0, 1]), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text("utf-8").splitlines() == [given[2], given[0], given[1]]
    write_records(pool.subset(np.array([1, 2])), [1], tmp_path / "view.jsonl")
    assert (tmp_path / "view.jsonl").read_text("utf-8") == given[2] + "\n"


def test_indented_record_is_put_on_one_line_with_its_values_untouched(tmp_path: Path) -> None:
    text = '[\n  {\n    "prompt": "a\\n \\" ,\\n",\n    "completion" : "b",\r\n    "x": [\n 1.0,\n 1e5\n ]\n  }\n]'
    (tmp_path / "a.json").write_text(text, encoding="utf-8", newline="")
    write_records(read_pool(tmp_path / "a.json"), [0], tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == '{"prompt": "a\\n \\" ,\\n", "completion" : "b", "x": [1.0, 1e5]}\n'


@given(
    st.recursive(
        st.none() | st.floats(allow_nan=False) | st.text(max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from([None, 0, 1, "\t"]),
)
def test_one_line_says_the_same(value: Any, indent: int | str | None) -> None:
    raw = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    line = on_one_line(raw)
    assert b"\n" not in line
    assert json.loads(line) == value
    assert line == raw if indent is None else True


def test_csv_and_parquet_rows_come_back_as_json(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('n,prompt,completion\n007,"a\nb",c\n', encoding="utf-8")
    pq.write_table(pa.table({"prompt": ["a"], "completion": ["b"], "n": [7]}), tmp_path / "b.parquet")
    pool = read_pool(tmp_path / "a.csv", tmp_path / "b.parquet")
    write_records(pool, [1, 0], tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text().splitlines() == [
        '{"prompt": "a", "completion": "b", "n": 7}',
        '{"n": "007", "prompt": "a\\nb", "completion": "c"}',
    ]


@pytest.mark.parametrize("format", ["messages", "sharegpt", "parquet"])
def test_conversions_read_back_as_the_same_content(tmp_path: Path, format: str) -> None:
    pool = read(tmp_path / "a.jsonl", DIALOGUE, ALPACA, {"messages": [["x"]]}, {"conversations": ["Hi", "Hello"]})
    out = tmp_path / ("out.parquet" if format == "parquet" else "out.jsonl")
    write_records(pool, [2, 0, 1], out, format)
    back = read_pool(out)
    assert back.rejected.num_rows == 0
    assert [e.id for e in back] == [pool[i].id for i in (2, 0, 1)]
    assert [(e.messages, e.tools, e.key) for e in back] == [
        (e.messages, e.tools, e.key) for e in (pool[2], pool[0], pool[1])
    ]
    assert back.column("source").tolist() == ["a"] * 3


def test_messages_by_hand(tmp_path: Path) -> None:
    pool = read(tmp_path / "a.jsonl", DIALOGUE)
    write_records(pool, [0], tmp_path / "out.jsonl", "messages")
    turns = [dict(turn) for turn in DIALOGUE["messages"]]  # type: ignore[attr-defined]
    turns[1] = {"role": "user", "content": "1 + 1?", "parts": turns[1]["content"][1:]}
    turns[2]["content"] = ""
    assert lines(tmp_path / "out.jsonl") == [{"id": "d1", "messages": turns, "tools": DIALOGUE["tools"], "source": "a"}]


def test_alpaca_keeps_instruction_and_input_apart(tmp_path: Path) -> None:
    dolly = {"instruction": "Sum up.", "context": "Long.", "response": "Short."}
    pool = read(tmp_path / "a.jsonl", ALPACA, dolly, {"conversations": ["Hi", "Hello"]}, DIALOGUE)
    write_records(pool, [2, 1, 0], tmp_path / "out.jsonl", "alpaca")
    assert [{k: v for k, v in each.items() if k not in ("id", "source")} for each in lines(tmp_path / "out.jsonl")] == [
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"instruction": "Sum up.", "input": "Long.", "output": "Short."},
        {"instruction": "Translate.", "input": "Fluss", "output": "river", "system": "Be brief."},
    ]
    with pytest.raises(ValueError, match=r"1 of 2 rows are no single .* rows 3; --format messages or sharegpt"):
        write_records(pool, [0, 3], tmp_path / "no.jsonl", "alpaca")
    assert not (tmp_path / "no.jsonl").exists()


def test_unknown_format_names_the_nearest(tmp_path: Path) -> None:
    pool = read(tmp_path / "a.jsonl", ALPACA)
    with pytest.raises(ValueError, match="did you mean 'alpaca'"):
        write_records(pool, [0], tmp_path / "out", "alpacca")


def test_parquet_keeps_columns_and_types(tmp_path: Path) -> None:
    tables = [
        pa.table(
            {
                "prompt": [f"{name}{i}" for i in range(6)],
                "completion": ["x", "", "x", "x", "x", "x"],
                "day": [datetime.date(2024, 1, i + 1) for i in range(6)],
                "x": pa.array([float("nan")] * 6, pa.float32()),
            }
        )
        for name in "ab"
    ]
    pq.write_table(tables[0], tmp_path / "a.parquet", row_group_size=2)
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as file, pa.ipc.new_file(file, tables[1].schema) as writer:
        writer.write_table(tables[1], max_chunksize=4)
    with pa.OSFile(str(tmp_path / "c.arrow"), "wb") as file, pa.ipc.new_stream(file, tables[1].schema) as writer:
        writer.write_table(tables[1], max_chunksize=4)
    pool = read_pool(tmp_path / "a.parquet", tmp_path / "b.arrow", tmp_path / "c.arrow")
    assert (len(pool), pool.rejected.num_rows) == (15, 3)
    write_records(pool, [9, 0, 14, 4, 5], tmp_path / "out.parquet", "parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.schema.remove_metadata() == tables[0].schema
    assert found.column("prompt").to_pylist() == ["b5", "a0", "b5", "a5", "b0"]
    pq.write_table(tables[1], tmp_path / "a.parquet")
    with pytest.raises(PoolError, match=r"a\.parquet has changed since it was read"):
        write_records(pool, [0], tmp_path / "no.parquet", "parquet")
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(PoolError, match=r"a\.parquet, which the pool was read from, is there no more"):
        write_records(pool, [0], tmp_path / "no.parquet", "parquet")
    assert not (tmp_path / "no.parquet").exists()


def test_parquet_of_other_files_holds_messages_and_scalars(tmp_path: Path) -> None:
    pool = read(tmp_path / "a.jsonl", {"conversations": ["Hi", "Hello"], "score": 0.5}, {**ALPACA, "id": None})
    write_records(pool, [0], tmp_path / "out.parquet", "parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["id", "messages", "source", "lang", "score"]
    assert found.column("messages").to_pylist() == [
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    ]
    write_records(pool, [], tmp_path / "none.parquet", "parquet")
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


def test_rejected_records_with_their_bytes(tmp_path: Path) -> None:
    bad = [b'{"prompt": "\xff\x00"}', '{"prompt": "é"}'.encode(), b"\x00"]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([b'{"prompt": "a", "completion": "b"}', *bad]))
    pool = read_pool(tmp_path / "a.jsonl")
    write_rejected(pool, tmp_path / "rejected.jsonl")
    found = lines(tmp_path / "rejected.jsonl")
    assert [list(each) for each in found] == [
        ["file", "line", "reason", "raw_base64"],
        *[["file", "line", "reason", "raw"]] * 2,
    ]
    assert base64.b64decode(found[0]["raw_base64"]) == bad[0]
    assert [each["raw"].encode() for each in found[1:]] == bad[1:]
    assert [each["line"] for each in found] == [2, 3, 4]
    write_rejected(read(tmp_path / "b.jsonl", ALPACA), tmp_path / "rejected.jsonl")
    assert (tmp_path / "rejected.jsonl").read_bytes() == b""


def test_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError), replacing(path) as part:
        part.write_text("half", encoding="utf-8")
        raise RuntimeError
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.txt", "old")]
    with replacing(path) as part:
        part.write_text("new", encoding="utf-8")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.txt", "new")]
