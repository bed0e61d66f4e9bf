"""Files of every kind, whole, broken and cut short, into raw records; fast paths against naive twins."""

from __future__ import annotations

import base64
import datetime
import decimal
import gzip
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from coretune.errors import PoolError
from coretune.formats import Recogniser
from coretune.readers.arrow_records import plain_values
from coretune.readers.open_inputs import Record, open_input
from coretune.readers.record_files import kind_of_name, read_records, stem_of_name
from coretune.readers.unique_ids import IdPlan

FIRST, SECOND = {"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}
LINE = b'{"prompt": "a", "completion": "b"}'


def records(path: Path, data: bytes | None = None, **columns: str) -> list[Record]:
    if data is not None:
        path.write_bytes(data)
    with open_input(str(path), path) as opened:
        return list(read_records(opened, Recogniser(columns)))


def faults(found: list[Record]) -> list[str | None]:
    return [None if record.fault is None else record.fault.partition(":")[0] for record in found]


def test_kinds_and_stems() -> None:
    assert [kind_of_name(name) for name in ("a.JSONL", "b.csv.gz", "c.pq", "d.txt", "e.gz")] == [
        "json",
        "csv",
        "parquet",
        None,
        None,
    ]
    assert [stem_of_name(name) for name in ("x/a.jsonl", "b.v2.csv.zst", "notes.txt")] == ["a", "b.v2", "notes.txt"]


def test_lines_are_kept_to_the_byte(tmp_path: Path) -> None:
    lines = [
        b'{"prompt": "a",  "completion":"b", "x": 1.0, "y": 1e5}',
        b'  {"completion": "\\u00e9", "prompt": "\xc3\xa9"}\t',
    ]
    data = b"\xef\xbb\xbf" + lines[0] + b"\r\n\r\n   \n" + lines[1]
    found = records(tmp_path / "a.jsonl", data)
    assert [(record.line, record.raw, record.fault) for record in found] == [(1, lines[0], None), (4, lines[1], None)]
    assert found[1].value == {"completion": "é", "prompt": "é"}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"prompt": "a", "completion": }', "broken JSON"),
        (b'{"prompt": "\xff"}', "invalid UTF-8"),
        (b'{"prompt": "a\x00b"}', "broken JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": ' * 201 + b"1" + b"}" * 201, "nested too deep"),
        (b'{"n": ' + b"9" * 5000 + b"}", "number too long"),
        (b"hello", "broken JSON"),
        (b'{"prompt": NaN, "n": 1e999}', None),
        (b'{"a": ' * 200 + b"1" + b"}" * 200, None),
        (b'{"prompt": "a\\u0000b"}', None),
        (b"[1]", None),
        (b"null", None),
    ],
)
def test_one_bad_line_costs_itself_alone(tmp_path: Path, line: bytes, fault: str | None) -> None:
    found = records(tmp_path / "a.jsonl", LINE + b"\n" + line + b"\n" + LINE + b"\n")
    assert faults(found) == [None, fault, None]
    assert [record.raw for record in found] == [LINE, line, LINE]


def test_torn_last_line(tmp_path: Path) -> None:
    found = records(tmp_path / "a.jsonl", LINE + b"\n" + LINE[:-4])
    assert faults(found) == [None, "torn last line"]
    assert faults(records(tmp_path / "b.jsonl", LINE + b"\n" + LINE)) == [None, None]


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt", "a.json.gz"])
def test_array_gives_the_bytes_of_its_elements(tmp_path: Path, indent: int | None, name: str) -> None:
    text = json.dumps([FIRST, {**SECOND, "x": [1, {"y": "}],{"}]}], indent=indent, ensure_ascii=False)
    data = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    found = records(tmp_path / name, data)
    assert [record.value for record in found] == json.loads(text)
    assert all(record.raw.decode() in text for record in found)
    assert [record.line for record in found] == [1, 2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"a":1}, {"b":}, {"c":3}]', [None, "broken JSON", None]),
        ('[{"a":1}}, {"c":3}]', ["broken JSON", None]),
        ('[{"a":[1}, {"c":3}]', ["broken JSON", None]),
        ('[{"a":1} {"c":3},,]', [None, None]),
        ('[1, "x, y", null, [2]]', [None, None, None, None]),
        ('[nul, {"a":1}]', ["broken JSON", None]),
        ('[{"a":"x}, \n{"c":3}]', ["broken JSON", None]),
        ('[{"a":1}, {"c":3', [None, "torn end"]),
        ('[{"a":1}, ', [None, "torn end"]),
        ("[", ["torn end"]),
        ("[]", []),
        ('[{"a":1}] tail', [None, "broken JSON"]),
        ('[{"a":1}, {"b":"\udcff"}]', [None, "invalid UTF-8"]),
        ('{"a":1}\n{"b":2}', [None, None]),
        ('{"a":\n{"b":2}\n{"c":3}', ["broken JSON", None, None]),
        ('{\n"a":1}\n{\n"b":2}', [None, None]),
        ('{\n"a":1', ["torn end"]),
        ("{}{}", [None, None]),
        ('[\n{"a":"x},\n{"b":2},\n{"c":}\n]', ["broken JSON", None, "broken JSON"]),
        ('[\n {\n "a": "x\n },\n {\n "b": 2\n }\n]', ["broken JSON", None]),
        ('"text"', [None]),
    ],
)
def test_layouts_of_json(tmp_path: Path, text: str, expected: list[str | None]) -> None:
    assert faults(records(tmp_path / "a.json", text.encode("utf-8", "surrogateescape"))) == expected


def test_object_around_one_list_is_unwrapped(tmp_path: Path) -> None:
    found = records(
        tmp_path / "a.json", b'{"note": "x [{", "n": {"a": [{}]}, "examples": [{"input": "q", "target": "t"}, 5]}'
    )
    assert [record.value for record in found] == [{"input": "q", "target": "t"}, 5]
    two = b'{"train": [{"input": "q"}], "test": [{"input": "q"}]}'
    assert [record.raw for record in records(tmp_path / "b.json", two)] == [two]
    lone = json.dumps({"messages": [{"role": "user", "content": "x"}]}, indent=1).encode()
    assert [record.raw for record in records(tmp_path / "c.json", lone)] == [lone]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(values=st.lists(JSON, max_size=5), indent=st.sampled_from([None, 0, 2]), ascii_only=st.booleans())
def test_arrays_are_cut_as_json_reads_them(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    path = tmp_path_factory.getbasetemp() / "cut.json"
    found = records(path, text.encode())
    assert [record.value for record in found] == values
    assert [json.loads(record.raw) for record in found] == values


def test_csv_keeps_every_value_as_text(tmp_path: Path) -> None:
    text = 'prompt,completion,n,day\r\n"a, ""b""\nc",007,1.0,2024-01-01\n\n,é,,\r\n'
    found = records(tmp_path / "a.csv", text.encode("utf-8-sig"))
    assert [record.value for record in found] == [
        {"prompt": 'a, "b"\nc', "completion": "007", "n": "1.0", "day": "2024-01-01"},
        {"prompt": "", "completion": "é", "n": "", "day": ""},
    ]
    assert [record.line for record in found] == [2, 5]
    assert json.loads(found[0].raw) == found[0].value
    assert found[0].origin == b'"a, ""b""\nc",007,1.0,2024-01-01'


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.csv.gz"])
def test_delimiter_is_found_from_the_header(tmp_path: Path, delimiter: str, name: str) -> None:
    data = f"prompt{delimiter}completion\nx{delimiter}y\n".encode()
    assert records(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data)[0].value == {
        "prompt": "x",
        "completion": "y",
    }


def test_bad_rows_of_csv_cost_themselves_alone(tmp_path: Path) -> None:
    rows = [b"x,y", b"x,y,z", b"x", b"\xff,y", b'"x"y,z', b'x,"never closed', b"swallowed,row"]
    found = records(tmp_path / "a.csv", b"prompt,completion\n" + b"\n".join(rows) + b"\n")
    assert (
        faults(found)
        == [None, "wrong number of values", "wrong number of values", "invalid UTF-8"] + ["broken CSV"] * 2
    )
    assert [record.origin or record.raw for record in found] == [*rows[:5], rows[5] + b"\n" + rows[6]]


def test_long_fields_and_old_line_ends(tmp_path: Path) -> None:
    found = records(tmp_path / "a.csv", b"prompt,completion\r" + b"x" * 200_000 + b",y\r")
    assert len(found[0].value["prompt"]) == 200_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Question,Best Answer\nx,y\n", "--columns prompt=Question,completion='Best Answer'"),
        (b"Why is the sky blue?,Scattering,A\nx,y,z\n", "put a header line in front"),
        (b"prompt,prompt\nx,y\n", "two columns are called 'prompt'"),
        (b'"prompt\n', "the header cannot be read"),
        (b"\xff\xfe\x00,\x00", "UTF-16"),
        (b"\x00\xff,\x80\n", "invalid UTF-8"),
        (b"\x00,\x07\n", "no known format has the columns"),
    ],
)
def test_csv_headers_that_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(PoolError, match=r"a\.csv") as raised:
        records(tmp_path / "a.csv", data)
    assert message in str(raised.value)
    str(raised.value).encode("utf-8")


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_compressed_data_cut_anywhere(tmp_path: Path, compress: Any, rng: np.random.Generator) -> None:
    lines = [json.dumps({**FIRST, "n": float(n)}).encode() for n in rng.random(2000)]
    data = compress(b"".join(line + b"\n" for line in lines))
    assert [record.raw for record in records(tmp_path / "whole.jsonl", data)] == lines  # known by its first bytes
    assert len(records(tmp_path / "two.jsonl.gz", data + data)) == 2 * len(lines)  # members one after the other
    for size in (5, len(data) // 3, len(data) // 2, len(data) - 5):
        found = records(tmp_path / "cut.jsonl", data[:size])
        assert faults(found)[-1] == "torn end"
        assert [record.raw for record in found[:-1]] == lines[: len(found) - 1]
    damaged = bytearray(data)
    damaged[len(data) // 2 : len(data) // 2 + 8] = b"\xff" * 8
    assert "torn end" in faults(records(tmp_path / "damaged.jsonl", bytes(damaged)))


def test_parquet_and_arrow_rows(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "completion": "b", "n": 1, "l": [1, None]},
        {"prompt": "é", "completion": None, "n": None, "l": None},
    ]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    with pa.OSFile(str(tmp_path / "c.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "d.jsonl").write_bytes((tmp_path / "a.parquet").read_bytes())
    (tmp_path / "e.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    for path in sorted(tmp_path.iterdir()):
        found = records(path)
        assert [record.value for record in found] == rows
        assert [json.loads(record.raw) for record in found] == rows
        assert [record.line for record in found] == [1, 2]


def test_damaged_tables_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    table = pa.table({"prompt": [str(n) for n in rng.random(500)], "completion": ["y"] * 500})
    pq.write_table(table, tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    for name, bad in (("a.parquet", data[:900]), ("b.parquet", b"PAR1" + data[10:]), ("c.parquet", b"no table")):
        with pytest.raises(PoolError, match=name):
            records(tmp_path / name, bad)
    with pytest.raises(PoolError, match=r"d\.arrow"):
        records(tmp_path / "d.arrow", b"ARROW1\0\0" + data[:500])


def test_values_that_json_cannot_say_are_converted_and_counted() -> None:
    from collections import Counter

    day = datetime.date(2024, 1, 2)
    cases = [
        (pa.array([day, None]), ["2024-01-02", None], {"date32[day] -> text": 1}),
        (
            pa.array([datetime.datetime(2024, 1, 2, 3, 4)], pa.timestamp("s")),
            ["2024-01-02 03:04:05"[:16] + ":00"],
            None,
        ),
        (pa.array([decimal.Decimal("1.50")]), ["1.50"], {"decimal128(3, 2) -> text": 1}),
        (
            pa.array([1.5, float("nan"), float("inf"), None]),
            [1.5, None, None, None],
            {"number that is not finite -> null": 2},
        ),
        (
            pa.array([b"text", b"\xff\x00", None]),
            ["text", base64.b64encode(b"\xff\x00").decode(), None],
            {"binary -> text": 2},
        ),
        (pa.array([[{"d": day}], None, []]), [[{"d": "2024-01-02"}], None, []], {"date32[day] -> text": 1}),
        (pa.array([[("k", 1.0)]], pa.map_(pa.string(), pa.float64())), [{"k": 1.0}], {}),
        (pa.array([[(1, "v")]], pa.map_(pa.int64(), pa.string())), [[[1, "v"]]], {}),
        (pa.array(["x", None, "x"]).dictionary_encode(), ["x", None, "x"], {}),
        (pa.array([[0.5, 1.0], None], pa.list_(pa.float32(), 2)), [[0.5, 1.0], None], {}),
        (pa.array([3], pa.duration("ms")), [3], {"duration[ms] -> number": 1}),
        (pa.array([b"\xff ok", b"ok"]).cast(pa.binary()).view(pa.string()), ["\udcff ok", "ok"], {}),
        (pa.array([{"a": {"b": 0.5}}, None]).slice(1), [None], {}),
        (pa.array([[1.0], [2.0, 3.0], None]).slice(1, 2), [[2.0, 3.0], None], {}),
    ]
    for array, values, counts in cases:
        tally: Counter[str] = Counter()
        assert plain_values(array, tally) == values
        assert counts is None or +tally == Counter(counts)


def test_invalid_utf8_in_a_column_costs_the_row(tmp_path: Path) -> None:
    text = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    pq.write_table(pa.table({"prompt": text, "completion": ["x", "y", "z"]}), tmp_path / "a.parquet")
    found = records(tmp_path / "a.parquet")
    assert faults(found) == [None, "invalid UTF-8", None]
    assert b'"\xff"' in found[1].raw


def test_conversions_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from coretune.readers import read_pool

    table = pa.table({"prompt": ["a"], "completion": ["b"], "day": [datetime.date(2024, 1, 2)], "x": [float("nan")]})
    pq.write_table(table, tmp_path / "a.parquet")
    with caplog.at_level(logging.WARNING):
        pool = read_pool(tmp_path / "a.parquet")
    assert "1 x date32[day] -> text, 1 x number that is not finite -> null" in caplog.text
    assert pool.column("day").tolist() == ["2024-01-02"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "a", "b", "a-2", "f:a", "g:a", "00" * 16]),
            st.sampled_from([0, 1, 2]),
            st.integers(0, 1),
        )
    )
)
def test_ids_are_unique_and_stay_where_they_can(rows: list[tuple[str | None, int, int]]) -> None:
    plan = IdPlan(["f", "g"])
    facts = [(own, bytes([content] * 16), file) for own, content, file in rows]
    for row in facts:
        plan.add(*row)
    plan.settle(lambda: iter(facts))
    ids = [plan.id_of(i, *row) for i, row in enumerate(facts)]
    assert len(set(ids)) == len(ids)
    owns = [own for own, _, _ in facts]
    made = {made for own, made in zip(owns, ids, strict=True) if own is None or owns.count(own) > 1}
    for own, name in zip(owns, ids, strict=True):
        if own is not None and owns.count(own) == 1 and own not in made:
            assert name == own or name.startswith(f"{own}~")


def test_ids_by_hand() -> None:
    plan = IdPlan(["f.jsonl", "g.jsonl"])
    key = bytes(range(16))
    facts = [("a", key, 0), (None, key, 0), ("a", key, 1), ("a", key, 1), (None, key, 1), ("b", key, 1)]
    for row in facts:
        plan.add(*row)
    plan.settle(lambda: iter(facts))
    ids = [plan.id_of(i, *row) for i, row in enumerate(facts)]
    assert ids == ["f.jsonl:a", key.hex(), "g.jsonl:a", "g.jsonl:a-2", f"{key.hex()}-2", "b"]
