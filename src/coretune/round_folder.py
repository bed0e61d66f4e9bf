"""The rounds of a run, written as they happen: what each chose, from what, with which model, and what that is worth.

rounds/run.json              whose rounds these are, while the run goes on
rounds/000/round.toml        readings of the model before any tuning, where there are some
rounds/001/round.toml        rows, new rows, answer tokens, the model tuned, seconds, notes, readings
rounds/001/round.parquet     rows chosen so far or measured: row, rank, gain, weight, new, cell, and the round's columns
rounds/001/cells.parquet     cell, size, chosen, new, and what the round says of each cell: weight, score
rounds/001/schedule.parquet  what was trained on, where that is more than the rows
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coretune.run_folder import HEAD, ROUNDS, free_name, identity_of, in_place_at_once, is_going_on, known_only
from coretune.run_folder import write_toml as write_tables

if TYPE_CHECKING:
    from coretune.rounds import Outcome, Round
    from coretune.tuning import Tuned

log = logging.getLogger(__name__)

ROUND, ROWS, CELLS, SCHEDULE = "round.toml", "round.parquet", "cells.parquet", "schedule.parquet"

Readings = Mapping[str, Any]


@dataclass
class RoundsWriter:
    """Writes the rounds of a run while it goes on into `out`, and again, whole, into the finished folder.

    `head` is what `run.json` says of the run, its `identity` above all. `read` gives the readings of a round's model,
    `read_untuned` those of that model before tuning.
    """

    out: Path
    head: Mapping[str, Any]
    read: Callable[[Tuned], Readings] | None = None
    read_untuned: Callable[[Tuned], Readings] | None = None
    readings: dict[int, Readings] = field(default_factory=dict)
    _written: int = 0

    def __call__(self, outcome: Outcome) -> None:
        """Write the last round of an outcome, which may be that of a run that has started again.

        A first round without a model and without words on cells may be all there is: it waits for the second.
        """
        number = len(outcome.rounds)
        if number == 1 and self._written:
            for left in (self.out / ROUNDS).glob("[0-9]*"):
                shutil.rmtree(left)
            self.readings.clear()
            self._written = 0
        made = outcome.rounds[-1]
        if made.model is not None:
            self._read(number, made.model)
        if number == 1 and made.model is None and not made.cells:
            return
        self._begin()
        while self._written < number:
            self._written += 1
            self._write(self.out, outcome, self._written)
        if 0 in self.readings:
            self._write(self.out, outcome, 0)

    def finish(self, folder: Path, outcome: Outcome) -> None:
        """Write all rounds into the folder of a run that has come to its end; nothing where it was of one step."""
        if not self._written:
            return
        for number in range(0 if 0 in self.readings else 1, len(outcome.rounds) + 1):
            self._write(folder, outcome, number)

    def _read(self, number: int, model: Tuned) -> None:
        if self.read_untuned is not None and 0 not in self.readings:
            self.readings[0] = self.read_untuned(model)
        if self.read is not None:
            self.readings[number] = self.read(model)

    def _begin(self) -> None:
        """Make `out` the folder of this run, in place of whatever may be replaced there; go on where it is that."""
        if is_going_on(self.out) and identity_of(self.out) == self.head["identity"]:
            return
        with in_place_at_once(self.out) as folder:
            (folder / ROUNDS).mkdir()
            text = json.dumps(self.head, indent=1, ensure_ascii=False, default=str)
            (folder / ROUNDS / HEAD).write_text(text + "\n", encoding="utf-8")

    def _write(self, folder: Path, outcome: Outcome, number: int) -> None:
        readings = self.readings.get(number, {})
        with in_place_at_once(folder / ROUNDS / f"{number:03d}") as place:
            if number:
                write_round(place, outcome, number, readings)
            else:
                write_tables(place / ROUND, {"round": 0, "readings": readings})


def write_round(folder: Path, outcome: Outcome, number: int, readings: Readings) -> None:
    """Write one round of an outcome, `round.toml` last. Raises `ValueError` for cells or schedules of no one length."""
    made = outcome.rounds[number - 1]
    before = outcome.rounds[number - 2].selection.rows if number > 1 else np.empty(0, dtype=np.int64)
    new = np.setdiff1d(made.selection.rows, before)
    pq.write_table(_rows(made, new), folder / ROWS, compression="zstd")
    cells = _cells(made, new)
    if cells is not None:
        pq.write_table(cells, folder / CELLS, compression="zstd")
    schedule, plain = _schedule(made, number)
    if schedule is not None:
        pq.write_table(schedule, folder / SCHEDULE, compression="zstd")
    tables = _facts(outcome, number, new) | {"readings": readings}
    tables["gone_rows"] = len(np.setdiff1d(before, made.selection.rows))
    tables["cells"] = 0 if cells is None else cells.num_rows
    write_tables(folder / ROUND, tables | ({"schedule": plain} if plain else {}))


def _facts(outcome: Outcome, number: int, new: np.ndarray) -> dict[str, Any]:
    """What `round.toml` says of the choice and of the model."""
    made, tokens = outcome.rounds[number - 1], outcome.answer_tokens
    facts: dict[str, Any] = {
        "round": number,
        "rows": len(made.selection),
        "new_rows": len(new),
        "seconds": round(made.seconds, 3),
        "notes": dict(made.notes),
    }
    if tokens is not None:
        facts["answer_tokens"] = int(tokens[made.selection.rows].sum())
        facts["new_answer_tokens"] = int(tokens[new].sum())
    if made.model is not None:
        so_far = made.model.checkpoints[-1].step  # of a training that goes on, a round's model is one on the way
        first, last = replace(made.model, losses=made.model.losses[:so_far]).ends
        facts["model"] = {
            "tuning": made.model.address,
            "model": made.model.model,
            "path": str(made.model.path),
            "digest": made.model.checkpoints[-1].digest,
            "first_loss": first,
            "last_loss": last,
            "seconds": made.model.seconds,
            "counts": dict(made.model.counts),
        }
    return facts


def _rows(made: Round, new: np.ndarray) -> pa.Table:
    """A row for every row of the pool that is chosen so far, or has a value in one of the round's columns."""
    chosen = made.selection
    measured = [np.flatnonzero(np.isfinite(values)) for values in made.columns.values()]
    rows = np.unique(np.concatenate([chosen.rows, *measured]))
    place = np.searchsorted(rows, chosen.rows)
    rank = np.full(len(rows), -1, dtype=np.int64)
    rank[place] = np.arange(len(chosen))
    gain, weight = np.full(len(rows), np.nan, dtype=np.float32), np.full(len(rows), np.nan, dtype=np.float32)
    gain[place], weight[place] = chosen.gains, chosen.weights
    cell = np.full(len(rows), -1, dtype=np.int32) if made.partition is None else made.partition.cell[rows]
    facts = {
        "row": pa.array(rows),
        "rank": known_only(rank, rank >= 0),
        "gain": known_only(gain, np.isfinite(gain)),
        "weight": known_only(weight, rank >= 0),
        "new": pa.array(np.isin(rows, new)),
        "cell": known_only(cell, cell >= 0),
    }
    for name, values in made.columns.items():
        own = values[rows].astype(np.float32)
        facts[free_name(name, facts)] = known_only(own, np.isfinite(own))
    return pa.table(facts)


def _cells(made: Round, new: np.ndarray) -> pa.Table | None:
    """A row a cell; None where the round has neither a partition nor words on cells."""
    said = {name: np.asarray(values) for name, values in made.cells.items()}
    cells = made.partition
    count = len(cells) if cells is not None else len(next(iter(said.values()), ()))
    if wrong := {name: values.shape for name, values in said.items() if values.shape != (count,)}:
        raise ValueError(f"a round says {wrong} of {count} cells; one value a cell is needed")
    if not count:
        return None
    facts: dict[str, Any] = {"cell": pa.array(np.arange(count))}
    if cells is not None:
        names = cells.notes.get("names")
        if isinstance(names, list) and len(names) == count:
            facts["name"] = pa.array([str(each) for each in names], pa.string())
        facts["size"] = pa.array(cells.sizes)
        for name, rows in (("chosen", made.selection.rows), ("new", new)):
            inside = cells.cell[rows]
            facts[name] = pa.array(np.bincount(inside[inside >= 0], minlength=count))
    for name, values in said.items():
        facts[name if name not in facts else f"cells.{name}"] = pa.array(values)
    return pa.table(facts)


def _schedule(made: Round, number: int) -> tuple[pa.Table | None, dict[str, Any]]:
    """The arrays of a schedule as a table, and its other words."""
    said = dict(made.schedule or {})
    arrays = {name: np.asarray(value) for name, value in said.items() if isinstance(value, np.ndarray | list | tuple)}
    if len({len(each) for each in arrays.values()}) > 1:
        lengths = {name: len(each) for name, each in arrays.items()}
        raise ValueError(f"the schedule of round {number} has {lengths}; its arrays are to be of one length")
    plain = {name: value for name, value in said.items() if name not in arrays}
    return (pa.table({name: pa.array(each) for name, each in arrays.items()}) if arrays else None), plain
