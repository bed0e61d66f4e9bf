"""The run folder: everything a run says, in files that anyone can read, put in place in one step."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from coretune.errors import FolderError
from coretune.pool import Example
from coretune.shapes import Float32

if TYPE_CHECKING:
    from coretune.lab import Stage
    from coretune.rounds import Outcome

RUN, TUNING = "run.toml", "tuning.toml"  # written last, into the folder of a selection and of a tuning
SELECTION = "selection.parquet"
STAGES = "stages.jsonl"
ROUNDS, HEAD = "rounds", "run.json"  # of a run of several rounds; while it goes on, HEAD says there whose they are
EXCERPT = 160  # characters of the prompt, and of the answer, in an excerpt
BLOCK = 8192  # rows written at a time


def identity_of(folder: Path, name: str = RUN) -> str | None:
    """What the run in this folder was asked, as a digest; None where no run is there.

    `name` is the file that tells of finished runs of its kind. A folder that holds nothing but the rounds of a run that
    has not come to its end gives that run's identity too. Raises `FolderError` where the folder holds other things.
    """
    if not folder.exists():
        return None
    if (folder / name).is_file():
        try:
            return str(tomllib.loads((folder / name).read_text(encoding="utf-8"))["run"]["identity"])
        except (tomllib.TOMLDecodeError, KeyError, UnicodeDecodeError):
            return "unreadable"
    if folder.is_dir() and not any(folder.iterdir()):
        return None
    if name == RUN and is_going_on(folder):
        try:
            return str(json.loads((folder / ROUNDS / HEAD).read_text(encoding="utf-8"))["identity"])
        except (ValueError, KeyError, TypeError):
            return "unreadable"
    kind = "run" if name == RUN else "tuning"
    raise FolderError(f"{folder} exists and is no {kind} folder (it has no {name}); give another --out or move it away")


def is_going_on(folder: Path) -> bool:
    """Whether the folder holds the rounds of a run that has not come to its end, and nothing else."""
    return (folder / ROUNDS / HEAD).is_file() and [each.name for each in folder.iterdir()] == [ROUNDS]


@contextmanager
def in_place_at_once(folder: Path) -> Iterator[Path]:
    """A new, empty folder beside `folder`, which takes its place when the block ends well, and is removed if not."""
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = folder.with_name(f".{folder.name}.part-{os.getpid()}")
        for state in ("part", "old"):
            for left in folder.parent.glob(f".{folder.name}.{state}-*"):
                if not _running(left):
                    shutil.rmtree(left, ignore_errors=True)
        part.mkdir()
    except OSError as error:
        raise FolderError(f"{folder} cannot be written: {error}; give another --out") from error
    try:
        yield part
        old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _running(part: Path) -> bool:
    """Whether the process that writes this unfinished folder is alive."""
    return Path("/proc", part.name.rpartition("-")[2]).exists()


def write_toml(path: Path, tables: Mapping[str, Any]) -> None:
    """Write tables, None as the string `none`, synced to disk."""
    with path.open("wb") as file:
        tomli_w.dump(sayable(tables), file)
        file.flush()
        os.fsync(file.fileno())


def sayable(value: Any) -> Any:
    """The value in TOML's types."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return {str(key): sayable(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: sayable(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [sayable(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def write_stages(path: Path, stages: list[Stage]) -> None:
    """One line of JSON a stage: rows measured, rows found in the store, seconds, bytes, peak memory, tokens, counts."""
    lines = [json.dumps(stage_words(stage), ensure_ascii=False) for stage in stages]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def stage_words(stage: Stage) -> dict[str, Any]:
    """A stage as JSON has it."""
    said = dataclasses.asdict(stage)
    return {"stage": said.pop("name"), **said}


def write_selection(path: Path, outcome: Outcome, places: Float32[np.ndarray, "n 2"] | None) -> None:
    """`selection.parquet`: one row for every row of the pool, chosen or not, with what is known of it."""
    facts = _facts(outcome, places)
    text = _TEXT if outcome.answer_tokens is None else pa.schema([("excerpt", pa.large_string())])
    order = [name for name in _ORDER if name in facts or name in ("answer_tokens", "excerpt")]
    scores = [name for name in facts if name not in _ORDER]
    schema = pa.schema(
        [(name, facts[name].type if name in facts else text.field(name).type) for name in order + scores],
        metadata={"length_unit": "characters" if outcome.answer_tokens is None else "tokens"},
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, max(1, len(outcome.pool)), BLOCK):
            examples = outcome.pool.examples(np.arange(start, min(start + BLOCK, len(outcome.pool))))
            block = {name: array.slice(start, len(examples)) for name, array in facts.items()}
            block |= {name: pa.array([_READ[name](e) for e in examples], text.field(name).type) for name in text.names}
            writer.write_table(pa.table([block[name] for name in schema.names], schema=schema))


_TEXT = pa.schema([("answer_tokens", pa.int64()), ("excerpt", pa.large_string())])
_ORDER = (
    *("row", "id", "file", "line", "duplicate_of", "excluded_by", "selected", "round", "rank", "gain", "weight"),
    *("cell", "source", "lang", "answer_tokens", "x", "y", "excerpt"),
)


def _answer_characters(example: Example) -> int:
    return sum(len(message.content) for message in example.messages if message.role == "assistant")


def excerpt_of(example: Example) -> str:
    """The beginnings of an example's prompt and answer."""
    return f"{example.prompt[:EXCERPT]} ⟶ {example.answer[:EXCERPT]}"


_READ = {"answer_tokens": _answer_characters, "excerpt": excerpt_of}


def _facts(outcome: Outcome, places: np.ndarray | None) -> dict[str, pa.Array]:
    """The columns of `selection.parquet` that need no text, as Arrow arrays of the pool's length."""
    pool, last = outcome.pool, outcome.rounds[-1]
    n, chosen = len(pool), last.selection
    rank = np.full(n, -1, dtype=np.int64)
    rank[chosen.rows] = np.arange(len(chosen))
    entered = np.full(n, -1, dtype=np.int32)
    for number in range(len(outcome.rounds) - 1, -1, -1):
        entered[outcome.rounds[number].selection.rows] = number + 1
    gain, weight = np.full(n, np.nan, dtype=np.float32), np.full(n, np.nan, dtype=np.float32)
    gain[chosen.rows], weight[chosen.rows] = chosen.gains, chosen.weights
    cell = np.full(n, -1, dtype=np.int32) if last.partition is None else last.partition.cell
    xy = np.full((n, 2), np.nan, dtype=np.float32) if places is None else places
    own = pool.take(("id", "file", "line", "source", "lang"))
    facts = {
        "row": pa.array(np.arange(n)),
        **{name: _plain(own.column(name)) for name in own.column_names},
        "duplicate_of": known_only(pool.duplicate_of, pool.duplicate_of >= 0),
        "excluded_by": pa.array(pool.excluded_by, pa.string()),
        "selected": pa.array(rank >= 0),
        "round": known_only(entered, rank >= 0),
        "rank": known_only(rank, rank >= 0),
        "gain": known_only(gain, np.isfinite(gain)),
        "weight": known_only(weight, rank >= 0),
        "cell": known_only(cell, cell >= 0),
        "x": known_only(xy[:, 0], np.isfinite(xy[:, 0])),
        "y": known_only(xy[:, 1], np.isfinite(xy[:, 1])),
    }
    if outcome.answer_tokens is not None:
        facts["answer_tokens"] = pa.array(outcome.answer_tokens)
    for name, values in last.columns.items():
        facts[free_name(name, facts)] = known_only(values.astype(np.float32), np.isfinite(values))
    return facts


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """One array of plain strings or numbers from a table's column."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def known_only(values: np.ndarray, known: np.ndarray) -> pa.Array:
    """The values, null where they are not known."""
    return pa.array(values, mask=~known)


def free_name(name: str, taken: Mapping[str, Any]) -> str:
    """A score's own name, or `score.NAME` where the table has a column of that name."""
    return f"score.{name}" if name in taken or name in _ORDER else name
