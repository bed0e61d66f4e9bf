"""What the runs of a comparison have found: item by item for the statistics, and as files for whoever looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coretune import run_folder
from coretune.compare.ground import Asked, Ground
from coretune.compare.running import Done
from coretune.evaluation.items import Items
from coretune.shapes import Float

ASKED = 320  # characters of a question, and of its right answer, in a file of excerpts
Key = tuple[str, str]  # an arm's name and a budget


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one metric of one task: for each arm and budget, seeds x items.

    `own` says whether it is the task's own metric. Items that a run has no score for (an answer that a judge did not
    give) are left out for all runs: `left_out` of them.
    """

    task: str
    metric: str
    unit: str
    higher_is_better: bool
    own: bool
    items: tuple[str, ...]
    groups: tuple[str, ...]
    arms: Mapping[Key, Float[np.ndarray, "seeds n"]]
    left_out: int

    def mean(self, key: Key) -> float:
        """The mean over seeds and items."""
        return float(self.arms[key].mean())


def collect(done: Sequence[Done], tasks: Sequence[Asked]) -> list[Scores]:
    """The scores of all runs. Every run has read every task."""
    found = []
    for task in tasks:
        said = done[0].said(task)
        tables = [each.scores(task) for each in done]
        kept, left_out = _shared([_names(table) for table in tables])
        first = tables[0].take(pa.array(kept[0]))
        for metric in said["metrics"]:
            arms: dict[Key, list[np.ndarray]] = {}
            for each, table, rows in zip(done, tables, kept, strict=True):
                scores = table[metric].to_numpy()[rows]
                arms.setdefault((each.run.arm.name, each.run.budget), []).append(scores)
            found.append(
                Scores(
                    *(task.name, metric, said["unit"] if metric == said["metric"] else "", said["higher_is_better"]),
                    own=metric == said["metric"],
                    items=tuple(first["item"].to_pylist()),
                    groups=tuple(first["group"].to_pylist()),
                    arms={key: np.stack(each) for key, each in arms.items()},
                    left_out=left_out,
                )
            )
    return found


def _names(table: pa.Table) -> list[tuple[str, int]]:
    """The items of a reading, copies of an id told apart by their place among them."""
    seen: dict[str, int] = {}
    names = []
    for each in table["item"].to_pylist():
        seen[each] = seen.get(each, -1) + 1
        names.append((each, seen[each]))
    return names


def _shared(names: Sequence[Sequence[tuple[str, int]]]) -> tuple[list[np.ndarray], int]:
    """For each reading, the places of the items that all have, in the order of the first; and how many are left out."""
    shared = set(names[0]).intersection(*names[1:])
    order = [name for name in names[0] if name in shared]
    places = [{name: place for place, name in enumerate(each)} for each in names]
    rows = [np.array([place[name] for name in order], dtype=np.int64) for place in places]
    return rows, len(set().union(*names)) - len(order)


def run_rows(ground: Ground, done: Sequence[Done], tasks: Sequence[Asked]) -> list[dict[str, Any]]:
    """A line for every run: what it chose, what tuning and reading took, and what it scored."""
    lines = []
    for each in done:
        tuned, read = each.tuned(), [each.said(task)["spent"] for task in tasks]
        counts, spent = tuned.get("counts", {}), tuned["spent"]
        cost = each.chosen.cost if each.chosen is not None else {}
        rows = len(each.chosen.rows) if each.chosen is not None else 0
        fresh = rows > 0 and each.own is None
        answers = int(ground.tokens[each.chosen.rows].sum()) if each.chosen is not None else 0
        lines.append(
            {
                "arm": each.run.arm.name,
                "method": each.run.arm.method,
                "budget": each.run.budget,
                "seed": each.run.seed,
                "kind": each.run.arm.kind,
                "rows": rows,
                "answer_tokens": answers,
                "mean_answer_tokens": answers / rows if rows else 0.0,
                "total_tokens": counts.get("tokens", 0),
                "steps": counts.get("steps", 0),
                "epochs": each.tuning.epochs if fresh else 0.0,
                "learning_rate": each.tuning.learning_rate if fresh else None,
                "address": tuned["address"] if each.own is None else each.own.address,
                "loss_first": tuned.get("loss_first"),
                "loss_last": tuned.get("loss_last"),
                "select_seconds": cost.get("seconds", 0.0),
                "select_tokens": int(cost.get("tokens", 0)),
                "select_tokens_back": int(cost.get("tokens_back", 0)),
                "tune_seconds": tuned.get("seconds", 0.0),
                "tune_tokens": spent.get("tokens", 0),
                "read_seconds": sum(one["seconds"] for one in read),
                "read_tokens": sum(one["tokens"] for one in read),
                "judge_tokens": sum(int(one.get("judge_tokens", 0)) for one in (cost, *read)),
                "money": sum(float(one.get("money", 0.0)) for one in (cost, *read)),
                "estimated": False,
            }
        )
    return lines


def write_files(folder: Path, ground: Ground, done: Sequence[Done], scores: Sequence[Scores]) -> None:
    """`runs`, `items`, `asked`, `selections`, `pool` and `texts` as parquet."""
    _write(folder / "runs.parquet", pa.Table.from_pylist(run_rows(ground, done, ground.tasks)))
    _write(folder / "items.parquet", pa.concat_tables(_item_tables(scores)))
    asked = [_asked_table(each.name, items) for each in ground.tasks if (items := each.items) is not None]
    if asked:
        _write(folder / "asked.parquet", pa.concat_tables(asked))
    chosen = [table for each in done if (table := _selection(each)) is not None]
    if chosen:
        _write(folder / "selections.parquet", pa.concat_tables(chosen))
    _write(folder / "pool.parquet", _pool_table(ground))
    texts = list(_text_tables(done, ground.tasks))
    if texts:
        _write(folder / "texts.parquet", pa.concat_tables(texts))


def _write(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd")


def _item_tables(scores: Sequence[Scores]) -> Iterator[pa.Table]:
    """The scores of every arm and seed, long: a row an item."""
    for each in scores:
        for (arm, budget), values in each.arms.items():
            seeds, items = values.shape
            total = seeds * items
            yield pa.table(
                {
                    "task": _same(each.task, total),
                    "metric": _same(each.metric, total),
                    "unit": _same(each.unit, total),
                    "higher_is_better": pa.array(np.full(total, each.higher_is_better)),
                    "arm": _same(arm, total),
                    "budget": _same(budget, total),
                    "seed": np.repeat(np.arange(seeds), items),
                    "item": pa.array(list(each.items) * seeds, pa.string()),
                    "group": pa.array(list(each.groups) * seeds, pa.string()),
                    "score": values.ravel().astype(np.float64),
                }
            )


def _same(text: str, count: int) -> pa.Array:
    """A column of one text."""
    return pa.repeat(pa.scalar(text, pa.string()), count)


def _asked_table(task: str, items: Items) -> pa.Table:
    """The beginnings of what a task asks, and of its right answers."""
    return pa.table(
        {
            "task": _same(task, len(items.items)),
            "item": pa.array([each.id for each in items.items], pa.string()),
            "asked": pa.array([each.asked[:ASKED] for each in items.items], pa.large_string()),
            "answer": pa.array([(each.answer or "")[:ASKED] for each in items.items], pa.large_string()),
        }
    )


def _selection(done: Done) -> pa.Table | None:
    if done.chosen is None or not done.run.arm.chooses:
        return None
    count = len(done.chosen.rows)
    weights = np.ones(count, dtype=np.float32) if done.chosen.weights is None else done.chosen.weights
    return pa.table(
        {
            "arm": _same(done.run.arm.name, count),
            "budget": _same(done.run.budget, count),
            "seed": np.full(count, done.run.seed),
            "row": done.chosen.rows,
            "rank": np.arange(count),
            "weight": weights,
        }
    )


def _pool_table(ground: Ground) -> pa.Table:
    """A row for every row of the pool: where it comes from, which part it is in, why it may not be chosen."""
    pool = ground.pool
    own = pool.take(("id", "source"))
    return pa.table(
        {
            "row": np.arange(len(pool)),
            "id": own["id"].cast(pa.large_string()),
            "source": own["source"].cast(pa.string()),
            "part": pa.array([str(each) for each in ground.part], pa.string()),
            "answer_tokens": ground.tokens,
            "excluded_by": pa.array(pool.excluded_by, pa.string()),
            "excerpt": pa.array([run_folder.excerpt_of(example) for example in pool], pa.large_string()),
        }
    )


def _text_tables(done: Sequence[Done], tasks: Sequence[Asked]) -> Iterator[pa.Table]:
    for each in done:
        for task in tasks:
            path = each.folder / task.digest / "texts.parquet"
            if path.is_file():
                table = pq.read_table(path)
                name = next(name for name in table.column_names if name != "item")
                count = len(table)
                yield pa.table(
                    {
                        "task": _same(task.name, count),
                        "arm": _same(each.run.arm.name, count),
                        "budget": _same(each.run.budget, count),
                        "seed": np.full(count, each.run.seed),
                        "item": table["item"].cast(pa.string()),
                        "text": table[name].cast(pa.string()),
                    }
                )
