"""The course of a run read back: its rounds from `rounds/`, of a finished run and of one that goes on."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coretune.errors import FolderError
from coretune.round_folder import CELLS, ROUND, ROWS
from coretune.run_folder import HEAD, ROUNDS, RUN, is_going_on
from coretune.shapes import Float


@dataclass(frozen=True)
class RoundFiles:
    """One round: what `round.toml` says, and its tables when they are asked for."""

    folder: Path
    said: Mapping[str, Any]

    @property
    def number(self) -> int:
        """Counted from 1; 0 is the model before any tuning."""
        return int(self.said["round"])

    @property
    def model(self) -> Mapping[str, Any]:
        """The model tuned in the round; empty where there is none."""
        found: Mapping[str, Any] = self.said.get("model", {})
        return found

    @property
    def training_loss(self) -> float | None:
        """The mean loss over the last tenth of the tuning's steps."""
        return self.model.get("last_loss")

    @property
    def heldout_loss(self) -> float | None:
        """The loss a token on the held-out file."""
        found = self.said.get("readings", {}).get("heldout_loss", {}).get("per_token")
        return None if found is None else float(found)

    @cached_property
    def rows(self) -> pa.Table:
        """Rows chosen so far or measured in the round."""
        return pq.read_table(self.folder / ROWS)

    @cached_property
    def cells(self) -> pa.Table | None:
        """What the round says of its cells; None where it has none."""
        return pq.read_table(self.folder / CELLS) if (self.folder / CELLS).is_file() else None

    @property
    def weights(self) -> Float[np.ndarray, " c"] | None:
        """The cells' weights as shares of their sum; None where the round gives none."""
        if self.cells is None or "weight" not in self.cells.column_names:
            return None
        found = self.cells["weight"].to_numpy().astype(np.float64)
        total = found.sum()
        return found / total if np.isfinite(total) and total > 0 else None

    @property
    def names(self) -> list[str]:
        """What the cells are called."""
        if self.cells is None:
            return []
        if "name" in self.cells.column_names:
            return [name or "(none)" for name in self.cells["name"].to_pylist()]
        return [f"cell {number}" for number in self.cells["cell"].to_pylist()]


@dataclass(frozen=True)
class Course:
    """The rounds of a run, in order. `head` says what was asked; `untuned` is round 0, where it was read."""

    folder: Path
    head: Mapping[str, Any]
    finished: bool
    rounds: tuple[RoundFiles, ...]
    untuned: RoundFiles | None = None

    def moved(self, place: int, most: int = 3) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """The cells whose share of the weight rose and fell most since the round before, with the change.

        Empty for the first round, and where two rounds do not have the same cells.
        """
        now, before = self.rounds[place], self.rounds[place - 1] if place else None
        if before is None or now.weights is None or before.weights is None or now.names != before.names:
            return [], []
        change = now.weights - before.weights
        order = np.argsort(-change, kind="stable")
        rose = [(now.names[i], float(change[i])) for i in order[:most] if change[i] > 0]
        fell = [(now.names[i], float(change[i])) for i in order[::-1][:most] if change[i] < 0]
        return rose, fell


def read_course(folder: Path) -> Course:
    """The rounds of a run. Raises `FolderError` where there are none, and says why."""
    finished = (folder / RUN).is_file()
    if not finished and not is_going_on(folder):
        what = "does not exist" if not folder.exists() else f"has neither {RUN} nor {ROUNDS}/{HEAD}"
        raise FolderError(
            f"rounds were asked of {folder}, which {what} and so is the folder of no run; give one made by "
            "coretune select with a method that works in rounds"
        )
    head = _head(folder, finished)
    try:
        found = sorted(each for each in (folder / ROUNDS).glob("[0-9]*") if (each / ROUND).is_file())
        rounds = [RoundFiles(each, tomllib.loads((each / ROUND).read_text(encoding="utf-8"))) for each in found]
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FolderError(f"{folder} holds rounds that cannot be read: {error}; run its command again") from error
    if finished and not rounds:
        raise FolderError(
            f"{folder} holds a run of {head.get('method')}, which chooses in one step: there are no rounds to show. "
            f"Its report: {folder / 'report.html'}"
        )
    untuned = next((each for each in rounds if each.number == 0), None)
    return Course(folder, head, finished, tuple(each for each in rounds if each.number), untuned)


def _head(folder: Path, finished: bool) -> dict[str, Any]:
    """What was asked: method, budget, seed."""
    try:
        if not finished:
            head: dict[str, Any] = json.loads((folder / ROUNDS / HEAD).read_text(encoding="utf-8"))
            return head
        said = tomllib.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FolderError(f"{folder} holds a run that cannot be read: {error}; run its command again") from error
    run = said.get("run", {})
    return {
        "method": run.get("method"),
        "budget": said.get("budget", {}).get("asked"),
        "seed": run.get("seed"),
        "started": run.get("started"),
        "held_out": said.get("request", {}).get("held_out", "none"),
    }
