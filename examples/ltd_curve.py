"""How little of a task matches all of it: the smallest matching subset of a comparison's arm, with its interval.

    python examples/ltd_curve.py ltd --arm specialist --task-rows 342

The arm's largest budget stands for all of the task. Sizes are rows; shares are given of the task's rows (or of the
largest size, without --task-rows) and of the whole pool (LTD's "0.5%" is the latter).
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coretune.statistics import enough


def main() -> None:
    """Read the scores, fit, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arm", default="specialist")
    parser.add_argument("--task-rows", type=int, help="rows of the task that may be chosen")
    asked = parser.parse_args()
    verdict = json.loads((asked.folder / "verdict.json").read_text())
    primary = verdict["primary"]
    runs = pq.read_table(asked.folder / "runs.parquet")
    items = pq.read_table(asked.folder / "items.parquet")
    ours = (pc.field("task") == primary["task"]) & (pc.field("metric") == primary["metric"])
    items = items.filter(ours)
    sizes: dict[float, np.ndarray] = {}
    for budget in tomllib.loads((asked.folder / "compare.toml").read_text())["plan"]["budgets"]:
        rows = runs.filter((pc.field("arm") == asked.arm) & (pc.field("budget") == budget))
        sizes[float(np.mean(rows["rows"].to_numpy()))] = scores(items, asked.arm, budget)
    found = enough(
        list(sizes),
        list(sizes.values()),
        margin=primary["margin"],
        higher_is_better=primary["higher_is_better"],
        rng=np.random.default_rng(0),
        untuned=scores(items, "untuned", ""),
    )
    may_be_chosen = pc.field("excluded_by").is_null() & (pc.field("part") == "train")
    whole = len(pq.read_table(asked.folder / "pool.parquet").filter(may_be_chosen))
    task = asked.task_rows or max(sizes)
    print("| rows | of the task | of the pool | mean | runs |\n|---|---|---|---|---|")
    for size, values in sizes.items():
        said = ", ".join(f"{run.mean():.4f}" for run in values)
        print(f"| {size:,.0f} | {size / task:.1%} | {size / whole:.1%} | {values.mean():.4f} | {said} |")
    print(f"\nsmallest matching size within {found.margin:g}: {found.size:,.0f} rows [{found.low}, {found.high}]")
    print("identified" if found.identified else f"not identified: {'; '.join(found.reasons)}")
    print(f"certified by non-inferiority tests: {found.certified}; share of the gain: {found.recovery}")


def scores(items: object, arm: str, budget: str) -> np.ndarray:
    """Scores `(seeds, items)` of an arm at a budget, items in one order."""
    table = items.filter((pc.field("arm") == arm) & (pc.field("budget") == budget))  # type: ignore[attr-defined]
    table = table.sort_by([("seed", "ascending"), ("item", "ascending")])
    seeds = len(set(table["seed"].to_pylist()))
    return np.asarray(table["score"].to_numpy()).reshape(seeds, -1)


if __name__ == "__main__":
    main()
