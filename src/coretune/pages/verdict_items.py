"""Scores of items, added up while they are read: by run, by group, and item by item for the primary task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coretune.errors import FolderError
from coretune.pages.verdict_files import AGAIN, ASKED, ITEMS, TEXTS, ComparisonFiles, read_table
from coretune.pages.verdict_records import RANDOM
from coretune.shapes import Float

BATCH = 1_000_000  # rows of items.parquet in memory at a time
Run = tuple[str, str, int]  # arm, budget, seed


@dataclass(frozen=True, eq=False)
class ItemScores:
    """Scores of the primary task at the primary budget: for each arm, means over seeds `(n,)` of the same items."""

    ids: Sequence[str]
    groups: Sequence[str]
    means: Mapping[str, Float[np.ndarray, " n"]]


@dataclass(frozen=True)
class GroupScores:
    """Scores of a group of items: for each arm, the mean of every seed; `items` how many items it has."""

    name: str
    items: int
    seeds: Mapping[str, Float[np.ndarray, " s"]]


def sums(path: Path, keys: Sequence[str], where: pc.Expression | None = None) -> pa.Table:
    """Sum and number of the scores by these keys, in their order; the file is read in blocks."""
    parts = []
    try:
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(batch_size=BATCH):
            table = pa.Table.from_batches([batch])
            table = table if where is None else table.filter(where)
            made = table.group_by(list(keys), use_threads=False).aggregate([("score", "sum"), ("score", "count")])
            parts.append(made.select([*keys, "score_sum", "score_count"]))
        if not parts:
            return pa.table({name: [] for name in (*keys, "sum", "count")})
        whole = pa.concat_tables(parts).unify_dictionaries().group_by(list(keys), use_threads=False)
        made = whole.aggregate([("score_sum", "sum"), ("score_count", "sum")])
    except (OSError, KeyError, pa.ArrowException) as error:
        raise FolderError(f"{path} cannot be read: {error}; {AGAIN}") from error
    made = made.select([*keys, "score_sum_sum", "score_count_sum"]).rename_columns([*keys, "sum", "count"])
    plain = pa.schema([(each.name, _undictionaried(each.type)) for each in made.schema])
    return made.cast(plain).sort_by([(name, "ascending") for name in keys])


def _undictionaried(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def run_values(files: ComparisonFiles) -> dict[tuple[str, str], dict[Run, float]]:
    """The mean over items of every run, by task and metric."""
    path = files.path(ITEMS)
    found: dict[tuple[str, str], dict[Run, float]] = {}
    if path is None:
        return found
    for row in sums(path, ("task", "metric", "arm", "budget", "seed")).to_pylist():
        values = found.setdefault((row["task"], row["metric"]), {})
        values[row["arm"], row["budget"], row["seed"]] = row["sum"] / row["count"] if row["count"] else float("nan")
    return found


def _at_primary(files: ComparisonFiles) -> pc.Expression:
    primary = files.primary
    wanted = {"task": primary.task, "metric": primary.metric, "budget": primary.budget}
    where = pc.scalar(True)
    for name, value in wanted.items():
        where = where & (pc.field(name).cast(pa.string()) == value)
    return where


def group_scores(files: ComparisonFiles) -> list[GroupScores]:
    """Scores by group of the primary task at the primary budget, the largest group first."""
    path = files.path(ITEMS)
    if path is None:
        return []
    table = sums(path, ("group", "arm", "seed"), _at_primary(files)).to_pylist()
    groups: dict[str, dict[str, list[float]]] = {}
    sizes: dict[str, int] = {}
    for row in table:
        seeds = groups.setdefault(row["group"] or "", {}).setdefault(row["arm"], [])
        seeds.append(row["sum"] / row["count"] if row["count"] else float("nan"))
        sizes[row["group"] or ""] = max(sizes.get(row["group"] or "", 0), row["count"])
    made = [
        GroupScores(name, sizes[name], {arm: np.array(seeds) for arm, seeds in arms.items()})
        for name, arms in groups.items()
    ]
    return sorted(made, key=lambda each: (-each.items, each.name))


def item_scores(files: ComparisonFiles) -> ItemScores | None:
    """Means over seeds item by item, of items that every arm has; None without a file, or without random's scores."""
    path = files.path(ITEMS)
    if path is None:
        return None
    table = sums(path, ("item", "group", "arm"), _at_primary(files))
    if not table.num_rows:
        return None
    arms = table["arm"].to_pylist()
    names = list(dict.fromkeys(arms))
    if RANDOM not in names:
        return None
    places = pc.dictionary_encode(table["item"]).combine_chunks()
    ids = places.dictionary.to_pylist()
    at = places.indices.to_numpy()
    means = np.full((len(names), len(ids)), np.nan)
    columns = {name: i for i, name in enumerate(names)}
    counts = table["count"].to_numpy().astype(np.float64)
    scores = np.divide(table["sum"].to_numpy(), counts, out=np.full(len(counts), np.nan), where=counts > 0)
    means[[columns[arm] for arm in arms], at] = scores
    groups: list[str] = [""] * len(ids)
    for place, group in zip(at, table["group"].to_pylist(), strict=True):
        groups[place] = group or ""
    kept = np.flatnonzero(np.isfinite(means).all(axis=0))
    return ItemScores(
        [ids[i] for i in kept], [groups[i] for i in kept], {name: means[i, kept] for name, i in columns.items()}
    )


def item_prompts(files: ComparisonFiles, items: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The beginnings of what these items ask and of their right answers, by item; empty without such a file."""
    path = files.path(ASKED)
    if path is None or not items:
        return {}
    wanted: Any = [("task", "==", files.primary.task), ("item", "in", list(dict.fromkeys(items)))]
    rows = read_table(path, ("task", "item", "asked", "answer"), wanted).to_pylist()
    return {row["item"]: (row["asked"] or "", row["answer"] or "") for row in rows}


def item_texts(files: ComparisonFiles, items: Sequence[str]) -> dict[tuple[str, str], str]:
    """What the first seed's model of each arm wrote for these items, by arm and item; empty without such a file."""
    path = files.path(TEXTS)
    if path is None or not items:
        return {}
    wanted: Any = [
        ("task", "==", files.primary.task),
        ("budget", "==", files.primary.budget),
        ("item", "in", list(dict.fromkeys(items))),
    ]
    table = read_table(path, ("task", "budget", "arm", "seed", "item", "text"), wanted)
    found: dict[tuple[str, str], str] = {}
    for row in sorted(table.to_pylist(), key=lambda row: row["seed"]):
        found.setdefault((row["arm"], row["item"]), row["text"] or "")
    return found
