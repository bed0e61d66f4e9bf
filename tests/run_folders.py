"""Run folders made by hand, as a run would leave them: for the report's tests, without a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}} {% for x in y %} {#",
    "nul \x00 bell \x07 escape \x1b[31m",
    "right to left \u202egnp.exe\u202c and \u2066isolated\u2069",
    "line\u2028separator\u2029paragraph",
    "w" * 100_000,
    "<!-- <style>*{display:none}</style> ]]> &lt;b&gt; '\"`",
    "javascript:alert(1) </TITLE></textarea></noscript>",
)
TOPICS = {
    "closed_qa": ("Who wrote {w}?", "{w} was written by {v} in the spring of that year."),
    "open_qa": ("What do you know about {w}?", "{w} is known for {v}, and for much else besides. "),
    "summarization": ("Summarise the text on {w}: {v} {v} {v}", "It says that {w} follows from {v}."),
    "brainstorming": ("Give me ideas for {w}", "1. {v}\n2. {w} with {v}\n3. something about {w}"),
    "classification": ("Is {w} a plant or an animal?", "{w}: plant; {v}: animal"),
    "creative_writing": ("Write a story about {w}.", "Once upon a time there was {w}. It met {v}. " * 4),
}
WORDS = (
    "the river",
    "a lighthouse",
    "copper",
    "Lisbon",
    "an old clock",
    "moss",
    "the violin",
    "winter wheat",
    "a comet",
)
SILHOUETTE = {"clusters": [8, 16, 24, 64], "corrected": [0.037, 0.05, 0.062, 0.04], "chosen": 24}
SCRIPTS = ("Latin", "Han", "Arabic")


def made_records(n: int, rng: np.random.Generator) -> list[tuple[str, str, str, str]]:
    """Prompts, answers, sources and scripts of some variety; sources are of different sizes."""
    names = list(TOPICS)
    source = rng.choice(len(names), n, p=np.array([30, 25, 18, 12, 10, 5]) / 100)
    script = rng.choice(len(SCRIPTS), n, p=(0.9, 0.07, 0.03))
    words = rng.choice(len(WORDS), (n, 2))
    records = []
    for i in range(n):
        ask, answer = TOPICS[names[source[i]]]
        filling = {"w": WORDS[words[i, 0]], "v": WORDS[words[i, 1]]}
        records.append((ask.format(**filling), answer.format(**filling), names[source[i]], SCRIPTS[script[i]]))
    return records


def make_run_folder(
    folder: Path,
    n: int = 300,
    share: float = 0.1,
    *,
    seed: int = 0,
    cells: int | None = 24,
    mapped: bool = True,
    scores: Sequence[str] = ("quality",),
    texts: Sequence[str] = (),
    records: Sequence[tuple[str, str, str, str]] | None = None,
    places: np.ndarray | None = None,
    run: dict[str, Any] | None = None,
) -> Path:
    """Write a run folder of `n` rows. `texts` go into rows, names and reasons; `run` overrides `run.toml`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    records = list(records or made_records(n, rng))
    for i, text in enumerate(texts):
        records[i] = (text, text, text[:300], text[:300])
    columns, k = _columns(n, share, rng, cells=cells, texts=texts)
    if mapped:
        spots = _spots(columns["cell"], rng) if places is None else places
        columns |= {"x": _masked(spots[:, 0], columns), "y": _masked(spots[:, 1], columns)}
    columns |= {name: _score(columns, i, rng) for i, name in enumerate(scores)}
    columns |= _texts(records, rng)
    pq.write_table(
        pa.table(columns).replace_schema_metadata({"length_unit": "tokens"}),
        folder / "selection.parquet",
        compression="zstd",
        row_group_size=8192,
    )
    rejected = _rejected(texts)
    _lines(folder / "rejected.jsonl", rejected)
    _lines(folder / "stages.jsonl", _stages(n, k, texts))
    (folder / "run.toml").write_text(tomli_w.dumps(_run(n, k, len(rejected), columns, texts) | (run or {})), "utf-8")
    return folder


def add_rounds(folder: Path, rounds: int = 6, *, names: Sequence[str] = (), held_out: bool = True) -> Path:
    """Give a made run folder rounds that end in its selection: later cells gain weight, losses fall."""
    table = pq.read_table(folder / "selection.parquet")
    ranks = np.array([np.inf if rank is None else rank for rank in table["rank"].to_pylist()])
    order = np.argsort(ranks, kind="stable")[: int(np.isfinite(ranks).sum())]
    cell = np.array([-1 if each is None else each for each in table["cell"].to_pylist()])
    tokens, count = table["answer_tokens"].to_numpy(), int(cell.max()) + 1
    entered = np.full(len(table), -1)
    weights = np.full(count, 1 / max(1, count))
    if held_out:
        _round_toml(folder, {"round": 0, "readings": {"heldout_loss": {"per_token": 2.9}}})
    ends = [round(len(order) * number / rounds) for number in range(rounds + 1)]
    for number in range(1, rounds + 1):
        chosen, new = order[: ends[number]], order[ends[number - 1] : ends[number]]
        entered[new] = number
        weights = weights * np.exp(0.25 * np.sin(np.arange(count) + number / 3))
        weights /= weights.sum() or 1
        said = {"round": number, "rows": len(chosen), "new_rows": len(new), "gone_rows": 0, "seconds": 61.5 * number}
        said |= {"answer_tokens": int(tokens[chosen].sum()), "notes": {}, "cells": count}
        said["model"] = {"path": f"/store/tunings/{number:032x}/checkpoints/0000040", "last_loss": 2.2 - 0.1 * number}
        said["readings"] = {"heldout_loss": {"per_token": 2.9 - 0.8 * (1 - 0.7**number)}} if held_out else {}
        _round_toml(folder, said)
        rows = {"row": np.sort(chosen), "new": np.isin(np.sort(chosen), new), "cell": cell[np.sort(chosen)]}
        pq.write_table(pa.table(rows), folder / "rounds" / f"{number:03d}" / "round.parquet")
        if count:
            told: dict[str, Any] = {"cell": np.arange(count), "size": np.bincount(cell[cell >= 0], minlength=count)}
            told |= {"name": list(names)} if names else {}
            pq.write_table(pa.table({**told, "weight": weights}), folder / "rounds" / f"{number:03d}" / "cells.parquet")
    place = table.column_names.index("round")
    changed = table.set_column(place, "round", pa.array(entered.astype(np.int32), mask=entered < 0))
    pq.write_table(changed, folder / "selection.parquet")
    return folder


def _round_toml(folder: Path, said: dict[str, Any]) -> None:
    place = folder / "rounds" / f"{said['round']:03d}"
    place.mkdir(parents=True)
    (place / "round.toml").write_text(tomli_w.dumps(said), "utf-8")


def _columns(
    n: int, share: float, rng: np.random.Generator, *, cells: int | None, texts: Sequence[str]
) -> tuple[dict[str, Any], int]:
    """All columns but texts, scores and places: later cells are liked better."""
    excluded = np.full(n, None, dtype=object)
    excluded[n // 5 + 1 :: 40] = "duplicate"
    excluded[n // 3 + 1 :: 90] = texts[0] if texts else "no answer tokens"
    duplicate_of = np.where(excluded == "duplicate", np.arange(n) // 2, -1)
    cell = np.full(n, -1) if cells is None else np.minimum(rng.geometric(min(1, 3 / cells), n) - 1, cells - 1)
    liking = rng.gumbel(size=n) + 0.08 * cell
    liking[excluded != None] = -np.inf  # noqa: E711
    k = max(1, round(share * n))
    order = np.argsort(-liking, kind="stable")[:k]
    rank, gain, weight = np.full(n, -1), np.full(n, np.nan), np.full(n, np.nan)
    rank[order], gain[order] = np.arange(k), np.sort(liking[order])[::-1]
    weight[order] = rng.gamma(4, 0.25, k)
    if cells is not None:
        cell = np.where(excluded == "duplicate", -1, cell)
    return {
        "row": pa.array(np.arange(n)),
        "duplicate_of": pa.array(duplicate_of, mask=duplicate_of < 0),
        "excluded_by": pa.array(excluded.tolist(), pa.string()),
        "selected": pa.array(rank >= 0),
        "round": pa.array(np.zeros(n, dtype=np.int32), mask=rank < 0),
        "rank": pa.array(rank, mask=rank < 0),
        "gain": pa.array(gain.astype(np.float32), mask=rank < 0),
        "weight": pa.array(weight.astype(np.float32), mask=rank < 0),
        "cell": pa.array(cell.astype(np.int32), mask=cell < 0),
    }, k


def _spots(cell: pa.Array, rng: np.random.Generator) -> np.ndarray:
    """A map in which each cell is a cloud."""
    cells = cell.fill_null(0).to_numpy()
    angle = 2.4 * np.arange(cells.max() + 1)
    middles = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.sqrt(np.arange(cells.max() + 1))[:, None] * 14
    return middles[cells] + rng.normal(scale=4.5, size=(len(cells), 2))


def _masked(values: np.ndarray, columns: dict[str, Any]) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=columns["excluded_by"].is_valid().to_numpy(zero_copy_only=False))


def _score(columns: dict[str, Any], i: int, rng: np.random.Generator) -> pa.Array:
    """A score that the chosen have more of, without a value for the excluded."""
    chosen = columns["selected"].to_numpy(zero_copy_only=False)
    return _masked(rng.beta(4, 2 + i, len(chosen)) + 0.12 * chosen * (i == 0), columns)


def _texts(records: Sequence[tuple[str, str, str, str]], rng: np.random.Generator) -> dict[str, pa.Array]:
    """Columns made of the records' texts."""
    n = len(records)
    lengths = [max(1, len(answer) // 4) + int(rng.integers(0, 9)) for _, answer, _, _ in records]
    return {
        "id": pa.array([f"{prompt[:12]}-{i}" for i, (prompt, *_) in enumerate(records)], pa.large_string()),
        "file": pa.array(["pool.jsonl"] * n, pa.string()),
        "line": pa.array(np.arange(1, n + 1)),
        "source": pa.array([source for _, _, source, _ in records], pa.string()),
        "lang": pa.array([script for *_, script in records], pa.string()),
        "answer_tokens": pa.array(lengths, pa.int64()),
        "excerpt": pa.array([f"{ask[:160]} ⟶ {answer[:160]}" for ask, answer, *_ in records], pa.large_string()),
    }


def _rejected(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Records that could not be read, one of them of bytes that are no text."""
    made: list[dict[str, Any]] = [
        {
            "file": "pool.jsonl",
            "line": 41 + i,
            "reason": "no answer",
            "raw": '{"instruction": "Say nothing", "output": ""}',
        }
        for i in range(4)
    ]
    made.append({"file": "pool.jsonl", "line": 77, "reason": "broken JSON", "raw": '{"instruction": "torn'})
    made.append({"file": "pool.jsonl", "line": 78, "reason": "invalid UTF-8", "raw_base64": "/9j/4AAQSkY="})
    return made + [{"file": text, "line": 1, "reason": text, "raw": text} for text in texts]


def _stages(n: int, k: int, texts: Sequence[str]) -> list[dict[str, Any]]:
    names = [
        ("read", 0.31, n, 0, 0, 140, {"rejected": 6, "duplicates": n // 40}),
        ("answer_tokens", 1.94, n, 0, 8 * n, 310, {"no answer tokens": n // 90}),
        ("embedding", 38.2, n - n // 4, n // 4, 1536 * n, 905, {"truncated": n // 9}),
        ("choose", 0.62, 0, 0, 0, 640, {}),
        ("map", 2.4, n, 0, 8 * n, 650, {}),
        (texts[0] if texts else "write", 0.18, n, 0, 400 * n + 900 * k, 480, {text: 1 for text in texts}),
    ]
    keys = ("stage", "seconds", "rows", "stored", "bytes", "peak_memory_bytes", "counts")
    return [dict(zip(keys, (*each[:5], each[5] * 2**20, each[6]), strict=True)) for each in names]


def _run(n: int, k: int, rejected: int, columns: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """What `run.toml` says."""
    reached = int(np.sum(columns["answer_tokens"].to_numpy()[columns["selected"].to_numpy(zero_copy_only=False)]))
    excluded = len(columns["excluded_by"]) - columns["excluded_by"].null_count
    tables: dict[str, Any] = {
        "run": {
            "coretune": "0.1.0",
            "method": "ltd",
            "title": "Keep the rows nearest the centre of the task: one task needs a hundredth of the data",
            "paper": "Chen et al., Maybe Only 0.5% Data is Needed, arXiv:2305.09246, 2023",
            "seed": 0,
            "started": "2025-03-01T10:00:00+00:00",
            "seconds": 43.65,
            "command": "coretune select pool.jsonl --method ltd --budget 5% --out runs/ltd --embedder minilm",
        },
        "options": {"embedder": "minilm", "clusters": "none", "task": "none", "share": 0.05, "spherical": True},
        "pool": {
            "inputs": ["pool.jsonl"],
            "fingerprint": "5f0c6f7e3e0a4c7d9a1be0d6a4b1f2c3",
            "rows": n,
            "rejected": rejected,
            "candidates": n - excluded,
            "formats": {"dolly": n - 12, "messages": 12},
            "dedup": True,
        },
        "budget": {
            "asked": "5%",
            "rows": k,
            "reached_tokens": reached,
            "share_of_pool": k / n,
            "share_of_candidates": k / (n - excluded),
        },
        "models": {"embedder": {"name": "minilm", "digest": "b1d29c5e4f6a7b80", "kind": "folder"}},
        "notes": {"partition": {"cells": 24, "inertia": 1203.5, "silhouette": SILHOUETTE}},
        "versions": {"python": "3.11.7", "numpy": "2.3.1", "pyarrow": "21.0.0"},
    }
    if texts:
        tables["run"] |= {"method": texts[0], "title": texts[1], "paper": texts[2], "command": texts[3]}
        tables["notes"] = {text[:200]: text for text in texts}
        tables["options"] = {text[:200]: [text] for text in texts}
    return tables


def _lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
