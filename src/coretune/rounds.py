"""Rounds: drive a method to its budget on the rows that may be chosen, and lift what it says back to the pool."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from coretune.errors import PoolError, Unmeasurable
from coretune.partitions import Partition
from coretune.pool import Pool
from coretune.selection import Budget, Selection, lift
from coretune.shapes import Int64

if TYPE_CHECKING:
    from coretune.lab import Lab
    from coretune.methods import Method
    from coretune.tuning import Tuned

log = logging.getLogger(__name__)

DUPLICATE = "duplicate"
NO_ANSWER = "no answer tokens"


@dataclass(frozen=True)
class Round:
    """What a method says after a round: the selection so far, and everything that explains it.

    `model` is the one tuned in the round; `columns` holds one value a row `(n,)` for each score, `cells` one value a
    cell `(c,)` for whatever the round says of cells (`weight`, `score`); `schedule` is what was trained on where that
    is more than the selection (its `row` or `rows` are rows of the pool), and `notes` anything else worth writing down.
    `seconds` is filled in by `run`: what the round took, with what came from the store at what it took when it was
    measured.
    """

    selection: Selection
    model: Tuned | None = None
    partition: Partition | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    cells: Mapping[str, np.ndarray] = field(default_factory=dict)
    added: Pool | None = None
    schedule: Mapping[str, Any] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """A method driven to its budget: the pool with its exclusions, the budget met, and the rounds in pool rows."""

    pool: Pool
    budget: Budget
    rounds: tuple[Round, ...]
    answer_tokens: Int64[np.ndarray, " n"] | None

    @property
    def selection(self) -> Selection:
        """The final, cumulative selection."""
        return self.rounds[-1].selection


EachRound = Callable[[Outcome], None]


def run(  # noqa: PLR0913 - what a method is driven with, and who is told
    method: Method,
    pool: Pool,
    budget: Budget,
    lab: Lab,
    *,
    seed: int = 0,
    model: str | None = None,
    template: str | None = None,
    each_round: EachRound | None = None,
) -> Outcome:
    """Drive `method` on the candidates of `pool`.

    Rows that a feature cannot measure are excluded with its reason and the method starts again on the others; what
    was measured is in the lab's store, so only arithmetic is repeated. With a `model`, answer tokens are counted under
    its template first, and rows without any are excluded. Raises `ValueError` where the budget cannot be met.

    `each_round` is called after every round with what came out so far; where the method starts again, so do the rounds:
    an outcome of one round says that those before it count for nothing.
    """
    pool, tokens = (pool, None) if model is None else count_answer_tokens(pool, lab, model, template)
    while True:
        rows = np.flatnonzero(pool.candidates)
        if not len(rows):
            raise PoolError(f"none of the {len(pool)} rows may be chosen: {reasons(pool)}")
        view = pool if len(rows) == len(pool) else pool.subset(rows)
        resolved = budget.on(len(pool), len(rows), tokens)
        made: tuple[Round, ...] = ()
        try:
            with lab.stage("choose"):
                for each in _timed(method.rounds(view, resolved.view(rows), lab, np.random.default_rng(seed)), lab):
                    made = (*made, _lifted(each, rows, len(pool)))
                    if each_round is not None:
                        each_round(Outcome(pool, resolved, made, tokens))
        except Unmeasurable as error:
            if error.pool is not view:
                raise
            log.warning("%d rows are left out: %s", len(error.rows), error.reason)
            pool = pool.exclude(rows[error.rows], error.reason)
            continue
        return Outcome(pool, resolved, made, tokens)


def _timed(rounds: Iterable[Round], lab: Lab) -> Iterator[Round]:
    """The rounds, each with what it took; what is done between two of them is no part of that."""
    began, known = time.perf_counter(), len(lab.stages)
    for made in rounds:
        spared = sum(each.spared_seconds for each in lab.stages[known:])
        yield replace(made, seconds=time.perf_counter() - began + spared)
        began, known = time.perf_counter(), len(lab.stages)


def count_answer_tokens(
    pool: Pool, lab: Lab, model: str, template: str | None = None
) -> tuple[Pool, Int64[np.ndarray, " n"]]:
    """Answer tokens of every row under the model's template, or the one given, 0 where a row has none.

    Rows without any, and rows that the template refuses, are excluded with the reason.
    """
    from coretune.features.answer_tokens import AnswerTokens

    while True:
        rows = np.flatnonzero(pool.candidates)
        view = pool.subset(rows)
        try:
            counts = lab.features(AnswerTokens(model, template), view).array()
        except Unmeasurable as error:
            pool = pool.exclude(rows[error.rows], error.reason)
            continue
        tokens = np.zeros(len(pool), dtype=np.int64)
        tokens[rows] = counts.astype(np.int64)
        empty = rows[counts == 0]
        return (pool.exclude(empty, NO_ANSWER) if len(empty) else pool), tokens


def reasons(pool: Pool) -> str:
    """The exclusions of a pool in words, `12 duplicate, 3 no answer tokens`."""
    return ", ".join(f"{len(rows)} {reason}" for reason, rows in pool.excluded.items()) or "nothing is excluded"


def _lifted(made: Round, rows: Int64[np.ndarray, " m"], n: int) -> Round:
    """A round said of the candidates, said of the whole pool: cell -1 and NaN for rows that were no candidates."""
    if len(rows) == n:
        return made
    columns = {}
    for name, values in made.columns.items():
        columns[name] = np.full(n, np.nan, dtype=np.float32)
        columns[name][rows] = values
    partition = None if made.partition is None else made.partition.lift(rows, n)
    schedule = made.schedule
    if schedule is not None:
        schedule = {k: rows[np.asarray(v)] if k in ("row", "rows") else v for k, v in schedule.items()}
    return replace(made, selection=lift(made.selection, rows), partition=partition, columns=columns, schedule=schedule)
