"""A comparison's folder read back: the plan, the verdict, and the tables beside them, as far as they are there."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coretune.errors import FolderError
from coretune.pages.run_files import UNFINISHED
from coretune.pages.verdict_records import (
    FULL,
    RANDOM,
    UNTUNED,
    Contrast,
    Curve,
    Primary,
    part,
    read_contrast,
    read_curve,
    read_primary,
    table_of,
    tables_of,
    text,
)
from coretune.run_folder import STAGES

COMPARE, VERDICT = "compare.toml", "verdict.json"
RUNS, ITEMS, SELECTIONS = "runs.parquet", "items.parquet", "selections.parquet"
POOL, TEXTS, ASKED = "pool.parquet", "texts.parquet", "asked.parquet"
AGAIN = "run the comparison again: what was trained and read is kept"


@dataclass(frozen=True, eq=False)
class ComparisonFiles:
    """What a comparison's folder holds. `unread` lines of its stages could not be read."""

    folder: Path
    plan: Mapping[str, Any]
    said: Mapping[str, Any]
    primary: Primary
    contrasts: Sequence[Contrast]
    curves: Sequence[Curve]
    runs: Sequence[Mapping[str, Any]]
    stages: Sequence[Mapping[str, Any]]
    unread: int

    @property
    def name(self) -> str:
        """The folder's name, also while it is still being written under a temporary one."""
        name = self.folder.absolute().name
        unfinished = UNFINISHED.fullmatch(name)
        return unfinished[1] if unfinished else name

    def section(self, name: str) -> Mapping[str, Any]:
        """A table of `compare.toml`, empty where it has none."""
        return table_of(self.plan.get(name))

    def path(self, name: str) -> Path | None:
        """A file of the folder, None where it is absent."""
        path = self.folder / name
        return path if path.is_file() else None

    @cached_property
    def declared(self) -> list[Contrast]:
        """The arms that the verdict is about, those that gain most first."""
        return by_gain([each for each in self.contrasts if not each.exploratory])

    @cached_property
    def on_primary(self) -> list[Contrast]:
        """All arms on the primary task and budget, the untuned model and the full pool too."""
        here = [each for each in self.contrasts if (each.task, each.metric) == (self.primary.task, self.primary.metric)]
        return [each for each in here if each.budget == self.primary.budget or each.arm in (UNTUNED, FULL)]

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of every arm that was run or compared."""
        found = {text(run.get("arm")): text(run.get("kind")) for run in self.runs}
        return {**found, **{each.arm: each.kind for each in self.contrasts}}

    @cached_property
    def metrics(self) -> list[tuple[str, str]]:
        """Each task with its own metric, which is the one that the verdict gives; the primary task first."""
        first = {self.primary.task: self.primary.metric}
        told = [(each.task, each.metric) for each in self.contrasts]
        for task, metric in [*told, *((each.task, each.metric) for each in self.curves)]:
            first.setdefault(task, metric)
        return list(first.items())

    def in_order(self, arms: Iterable[str]) -> list[str]:
        """Arms as all lists have them: random, then methods, targeted ones, controls, and others; each as declared."""
        places = {arm: place for place, arm in enumerate(self.kinds)}
        return sorted(
            arms, key=lambda arm: (_standing(arm, self.kinds.get(arm, "")), places.get(arm, len(places)), arm)
        )

    def higher_is_better(self, task: str) -> bool | None:
        """Which way a task's own metric goes, read off a contrast; None where none tells."""
        if task == self.primary.task:
            return self.primary.higher_is_better
        for each in self.contrasts:
            apart = each.value - each.random_value
            if each.task == task and math.isfinite(apart) and apart and each.difference:
                return (apart > 0) == (each.difference > 0)
        return None


def by_gain(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """Contrasts in order of their differences, the greatest gain first, those without one last."""
    return sorted(contrasts, key=lambda each: -each.difference if math.isfinite(each.difference) else math.inf)


def _standing(arm: str, kind: str) -> int:
    """Where an arm stands in lists: random, methods, targeted ones, controls, other models, untuned, full."""
    if arm in (RANDOM, UNTUNED, FULL):
        return {RANDOM: 0, UNTUNED: 5, FULL: 6}[arm]
    return {"method": 1, "targeted": 2, "control": 3}.get(kind, 4)


def read_comparison(folder: Path) -> ComparisonFiles:
    """Read a comparison's folder. Raises `FolderError` where it is unfinished, or its plan or verdict are no such."""
    try:
        plan = tomllib.loads((folder / COMPARE).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FolderError(f"{folder / COMPARE} cannot be read: {error}; {AGAIN}") from error
    said = _verdict(folder)
    runs = _rows(folder / RUNS)
    stages, unread = _stages(folder / STAGES)
    try:
        primary = read_primary(said)
        contrasts = [read_contrast(each, f"arms[{i}]", primary) for i, each in enumerate(part(said, "arms", list))]
    except ValueError as error:
        raise FolderError(f"{folder / VERDICT} holds no verdict that can be shown: {error}; {AGAIN}") from error
    curves = [read_curve(each) for each in tables_of(said.get("curves"))]
    return ComparisonFiles(folder, plan, said, primary, contrasts, curves, runs, stages, unread)


def read_table(path: Path, columns: Sequence[str], filters: Any = None) -> pa.Table:
    """These columns of a table. Raises `FolderError` where it cannot be read or lacks one."""
    try:
        return pq.read_table(path, columns=list(columns), filters=filters).select(list(columns))
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise FolderError(f"{path} cannot be read: {error}; {AGAIN}") from error


def _rows(path: Path) -> list[dict[str, Any]]:
    """A small table's rows, none where the file is absent."""
    if not path.is_file():
        return []
    try:
        return list(pq.read_table(path).to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise FolderError(f"{path} cannot be read: {error}; {AGAIN}") from error


def _verdict(folder: Path) -> Mapping[str, Any]:
    path = folder / VERDICT
    if not path.is_file():
        raise FolderError(
            f"a report was asked of {folder}, which has no {VERDICT} and so is no finished comparison; "
            "run its command again to finish it: what was trained and read is kept"
        )
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FolderError(f"{path} cannot be read: {error}; {AGAIN}") from error
    if not isinstance(said, dict):
        raise FolderError(f"{path} holds a {type(said).__name__}, and should hold a table; {AGAIN}")
    return said


def _stages(path: Path) -> tuple[list[Mapping[str, Any]], int]:
    """The stages, and how many lines could not be read: one that was cut off while it was written."""
    if not path.is_file():
        return [], 0
    found, unread = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            found += [table_of(json.loads(line))] if line.strip() else []
        except ValueError:
            unread += 1
    return found, unread
