"""The shipped pool is what its README says, and the script that drew it draws by content alone."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from coretune.data import DEMO_POOL

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_demo_pool.py"


@pytest.fixture(scope="module")
def records() -> list[dict[str, str]]:
    with gzip.open(DEMO_POOL, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_demo_pool", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pool_is_as_described(records: list[dict[str, str]]) -> None:
    assert len(records) == 3000
    assert {tuple(record) for record in records} == {("instruction", "context", "response", "category")}
    assert max(sum(len(record[key]) for key in ("instruction", "context", "response")) for record in records) <= 1000
    assert all(record["instruction"] and record["response"] for record in records)
    assert Counter(Counter(map(json.dumps, records)).values()) == {1: 2996, 2: 2}


def test_the_readme_beside_it_counts_right(records: list[dict[str, str]]) -> None:
    readme = DEMO_POOL.with_name("README.md").read_text(encoding="utf-8")
    counted = {name: int(count) for name, count in re.findall(r"^\| (\w+) \| (\d+) \|$", readme, re.MULTILINE)}
    assert counted == Counter(record["category"] for record in records)
    assert "creativecommons.org/licenses/by-sa/3.0" in readme and "Databricks, Inc." in readme


def test_drawing_again_changes_nothing(script: ModuleType, records: list[dict[str, str]], tmp_path: Path) -> None:
    assert script.draw(reversed(records), rows=3000, longest=1000) == records
    script.write(records[:50], tmp_path / "pool.jsonl.gz")
    assert gzip.decompress((tmp_path / "pool.jsonl.gz").read_bytes()) == b"".join(
        gzip.decompress(DEMO_POOL.read_bytes()).splitlines(keepends=True)[:50]
    )


def test_a_draw_keeps_what_is_short_and_drops_note_marks(script: ModuleType) -> None:
    made = {"category": "open_qa", "response": " Peru[4] ", "context": "City of[a] Lima[12]", "instruction": "Where?"}
    tidy = {"instruction": "Where?", "context": "City of Lima", "response": "Peru", "category": "open_qa"}
    long = {**made, "response": "y" * 1000}
    assert script.draw([long, made], rows=5, longest=1000) == [tidy]
    assert list(script.draw([made], rows=5, longest=len("Where?City of LimaPeru"))[0]) == list(tidy)
    assert script.draw([made], rows=5, longest=len("Where?City of LimaPeru") - 1) == []
