"""Any bytes under any name: a pool in which every record is accounted for, or a `PoolError`; never a traceback.

`benchmarks/fuzz_readers.py` runs the same cases by the thousand.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coretune.errors import PoolError
from coretune.pool import ROLES, content_key
from coretune.readers import read_pool
from coretune.turns import ROLE_OF
from coretune.writers import write_records, write_rejected
from coretune.writers.writing import on_one_line

KEYS = ("messages", "conversations", "instruction", "input", "output", "prompt", "completion", "question", "answer",
        "context", "response", "system", "history", "tools", "id", "source", "lang", "score", "", "é")  # fmt: skip


class Case(NamedTuple):
    """A file, and how many records it holds where that is known."""

    name: str
    data: bytes
    records: int | None


class Account(NamedTuple):
    """What became of a case: rows and rejects, or a refusal."""

    rows: int
    rejected: int
    refused: bool


texts = st.text(max_size=12) | st.sampled_from(["\ud800", "\x00", "﻿", "a\r\nb", '"', "[", '{"a":1}', "NaN", "x" * 300])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | texts, inner, max_size=3),
    max_leaves=6,
)
said = st.text(min_size=1, max_size=12)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(sorted(ROLE_OF)), "content": said | values},
    optional={"tool_calls": values, "name": values},
)
pairs = st.fixed_dictionaries({"prompt": said, "completion": said}, optional={"id": values, "score": values, "é": said})
records = st.one_of(
    pairs,
    st.fixed_dictionaries({"instruction": said, "output": said}, optional={"input": said | values, "system": values}),
    st.fixed_dictionaries({"messages": st.lists(turns, max_size=4)}, optional={"tools": values, "source": values}),
    st.fixed_dictionaries({"conversations": st.lists(said | turns, max_size=4)}),
    st.dictionaries(st.sampled_from(KEYS), values, max_size=4),
    values,
)


def _said(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@st.composite
def json_lines(draw: st.DrawFn) -> Case:
    """Lines, the first of them a plain record, with blank ones between; perhaps damaged after the first."""
    first = draw(pairs)
    made = [
        _said({"prompt": first["prompt"], "completion": first["completion"]}),
        *map(_said, draw(st.lists(records, max_size=6))),
    ]
    end = draw(st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \t\n"]))
    data = draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\n"])) + end.join(made) + draw(st.sampled_from([b"", b"\n"]))
    if draw(st.booleans()):
        place = draw(st.integers(min(len(data), data.index(made[0]) + len(made[0]) + len(end)), len(data)))
        data = data[:place] + draw(st.binary(max_size=6)) + data[place + draw(st.integers(0, 8)) :]
    lines = [line.rstrip(b"\r").removeprefix(b"\xef\xbb\xbf") for line in data.split(b"\n")]
    return Case("a.jsonl", data, sum(not (line.isspace() or not line) for line in lines))


@st.composite
def json_documents(draw: st.DrawFn) -> Case:
    """An array, or an object around one, in any layout."""
    made = draw(st.lists(records, max_size=6))
    indent = draw(st.sampled_from([None, 0, 2]))
    around = isinstance(made[0] if made else None, dict) and draw(st.booleans())
    text = json.dumps({"n": 1, "rows": made} if around else made, indent=indent, ensure_ascii=draw(st.booleans()))
    return Case(draw(st.sampled_from(["a.json", "a.jsonl"])), text.encode("utf-8", "surrogatepass"), len(made))


@st.composite
def tables(draw: st.DrawFn) -> Case:
    """The same rows of texts as csv, tsv, Parquet or Arrow."""
    cell = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=10)
    names = draw(st.permutations(["prompt", "completion", "score", "id"]))
    rows = draw(st.lists(st.tuples(cell, cell, cell, cell), max_size=5))
    kind = draw(st.sampled_from(["csv", "tsv", "parquet", "arrow"]))
    out = io.BytesIO()
    table = pa.table(
        {name: [row[i] for row in rows] for i, name in enumerate(names)}, pa.schema({n: pa.string() for n in names})
    )
    if kind == "parquet":
        pq.write_table(table, out, row_group_size=2)
    elif kind == "arrow":
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    else:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter="\t" if kind == "tsv" else ",", quoting=csv.QUOTE_ALL).writerows([names, *rows])
        out.write(text.getvalue().encode())
    return Case(f"a.{kind}", out.getvalue(), len(rows))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A file of any kind, perhaps compressed, perhaps damaged or misnamed; or any bytes at all."""
    names = [
        f"a.{kind}{end}"
        for kind in ("json", "jsonl", "csv", "tsv", "parquet", "arrow", "txt")
        for end in ("", ".gz", ".zst")
    ]
    case: Case = draw(
        json_lines() | json_documents() | tables() | st.builds(Case, st.sampled_from(names), st.binary(), st.none())
    )
    compress = draw(st.sampled_from([None, None, gzip.compress, zstandard.compress]))
    if compress is not None:
        case = case._replace(data=compress(case.data), name=case.name + draw(st.sampled_from(["", ".gz", ".zst"])))
    damage = draw(st.sampled_from(["none", "none", "cut", "flip", "name"]))
    if damage == "cut":
        return case._replace(data=case.data[: draw(st.integers(0, len(case.data)))], records=None)
    if damage == "flip" and case.data:
        changed = bytearray(case.data)
        for place in draw(st.lists(st.integers(0, len(changed) - 1), min_size=1, max_size=4)):
            changed[place] = draw(st.integers(0, 255))
        return case._replace(data=bytes(changed), records=None)
    return case._replace(name=draw(st.sampled_from(names)), records=None) if damage == "name" else case


def account(case: Case, folder: Path) -> Account:
    """Read the case and check all that must hold of what comes out."""
    path = folder / case.name
    path.write_bytes(case.data)
    try:
        pool = read_pool(path)
    except PoolError as error:
        str(error).encode("utf-8")
        assert case.records is None or f"none of {case.records} records" in str(error) or not case.records, str(error)
        return Account(0, 0, True)
    rows, rejected = len(pool), pool.rejected.num_rows
    assert case.records is None or rows + rejected == case.records
    examples = list(pool)
    assert len({example.id for example in examples}) == rows > 0
    for example in examples:
        assert all(message.role in ROLES for message in example.messages)
        assert any(message.role == "assistant" for message in example.messages)
        assert example.key == content_key(example.messages, example.tools)
    assert len(pool.fingerprint) == 32
    write_records(pool, np.arange(rows)[::-1], folder / "selected.jsonl")
    raws = pool.table.column("raw").to_pylist()[::-1]
    assert (folder / "selected.jsonl").read_bytes().split(b"\n") == [*map(on_one_line, raws), b""]
    write_rejected(pool, folder / "rejected.jsonl")
    said = [json.loads(line) for line in (folder / "rejected.jsonl").read_bytes().splitlines()]
    assert len(said) == rejected
    assert all(each["reason"] and each["line"] >= 1 for each in said)
    return Account(rows, rejected, False)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(cases())
def test_every_record_is_accounted_for(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        account(case, Path(folder))
