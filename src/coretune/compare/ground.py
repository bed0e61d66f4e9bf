"""The ground that all runs of a comparison stand on: the pool and its parts, the tasks, the arms, the tuning."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from coretune.compare.arms import FULL, UNTUNED, Arm, Run
from coretune.compare.guarding import guarded
from coretune.compare.plan import DEV, HELD_OUT, HOLDOUT, Plan
from coretune.evaluation import Task
from coretune.evaluation.asking import read_task, task_name
from coretune.evaluation.heldout_loss import HeldoutLoss
from coretune.evaluation.items import Items, items_of_pool
from coretune.features.answer_loss import AnswerLoss
from coretune.models import Precision
from coretune.overlap import warn_of_targets
from coretune.pool import Pool
from coretune.readers import read_pool
from coretune.rounds import count_answer_tokens
from coretune.selection import Budget
from coretune.shapes import Int64
from coretune.splits import share_or_count, split, sub_pool
from coretune.store.digests import digest, words
from coretune.tuning import Tuning

if TYPE_CHECKING:
    from coretune.lab import Lab
    from coretune.overlap import Leak

log = logging.getLogger(__name__)

TRAIN = "train"
WHOLE = "100%"  # the budget of the full pool


@dataclass(frozen=True)
class Asked:
    """A task as the plan asks for it, its name in tables, and the digest of all that it asks."""

    text: str
    name: str
    task: Task
    digest: str

    @classmethod
    def of(cls, text: str, task: Task, precision: Precision) -> Asked:
        """A task; one that says no precision reads all models in this one, so that none is better by its rounding."""
        made: Any = task
        if dataclasses.is_dataclass(made) and getattr(made, "precision", precision) is None:
            made = dataclasses.replace(made, precision=precision)  # type: ignore[type-var]
        return cls(text, task_name(task), made, digest(words(made)))

    @property
    def items(self) -> Items | None:
        """What is asked, where the task holds it; the harness has its own."""
        items = getattr(self.task, "items", None)
        return items if isinstance(items, Items) else None


@dataclass(frozen=True, eq=False)
class Ground:
    """What all runs share. `part` says of each row of the pool whether it is train, dev or holdout.

    `train` are the rows that may be chosen, `tokens` `(n,)` the answer tokens of all rows. `tuning` is the tuning with
    everything settled but rate and seed. `leaks` is what the pool has in common with each evaluation set.
    """

    plan: Plan
    pool: Pool
    part: np.ndarray
    train: Int64[np.ndarray, " t"]
    tokens: Int64[np.ndarray, " n"]
    tasks: tuple[Asked, ...]
    dev: Asked | None
    target: Pool | None
    arms: tuple[Arm, ...]
    tuning: Tuning
    digests: Mapping[str, str]
    leaks: Mapping[str, Leak]

    @property
    def primary(self) -> tuple[Asked, str]:
        """The task and the budget that decide."""
        name, budget = self.plan.primary
        return next(each for each in self.tasks if each.text == name), budget

    def amount(self, budget: str) -> Budget:
        """A budget as an amount: shares are of the rows, or the answer tokens, that are there to train on.

        Raises `ValueError` where a run's own sub-pool has less than that.
        """
        asked = Budget.parse(budget)
        there = int(self.tokens[self.train].sum()) if asked.in_tokens else len(self.train)
        amount = round(asked.share * there) if asked.share is not None else int(asked.amount or 0)
        if amount > self.plan.sub_pool * there:
            raise ValueError(
                f"budget {budget!r} is {amount:,} of {there:,}, but a run chooses from {self.plan.sub_pool:.0%} of "
                "that, drawn anew for each; lower the budget, or raise sub_pool. (All of it is the arm `full`.)"
            )
        return replace(asked, share=None, amount=amount)

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run: the untuned model once for each seed in which something is random, every arm at every budget."""
        made: list[Run] = []
        for arm in self.arms:
            if arm.method == UNTUNED:
                made.append(Run(arm, "", 0))
            elif arm.method == FULL:
                made += [Run(arm, WHOLE, seed) for seed in range(self.plan.seeds)]
            else:
                seeds = self.plan.seeds_of_random if arm.name == "random" else self.plan.seeds
                made += [Run(arm, budget, seed) for budget in self.plan.budgets for seed in range(seeds)]
        return tuple(made)


def lay(plan: Plan, lab: Lab) -> Ground:
    """Read, count, split and guard. Raises what reading raises, and `ValueError` for a plan that cannot be met."""
    tuning = Tuning(plan.model, template=plan.template, learning_rate=plan.learning_rates[0], **plan.tuning).resolved()
    with lab.stage("read") as stage:
        pool = read_pool(*plan.inputs, columns=dict(plan.columns) or None, progress=lab.progress)
        stage.rows, stage.counts = len(pool), {"rejected": pool.rejected.num_rows}
        if plan.rows is not None and plan.rows < len(pool):
            everything = np.arange(len(pool))
            pool = pool.subset(sub_pool(everything, pool.keys, share=plan.rows / len(pool), seed=plan.seed))
    pool, tokens = count_answer_tokens(pool, lab, plan.model, plan.template)
    with lab.stage("split") as stage:
        parts = split(pool, holdout=share_or_count(plan.holdout), dev=share_or_count(plan.dev), seed=plan.seed)
        stage.rows = len(pool)
    part = parts.part
    precision = plan.precision or AnswerLoss(plan.model, template=plan.template).resolved().precision
    assert precision is not None
    tasks = tuple(_task(name, pool, part, precision) for name in plan.tasks)
    twice = [each.name for each in tasks]
    if len(set(twice)) < len(twice):
        raise ValueError(f"two tasks have one name among {', '.join(twice)}; rename a file, or ask for it once")
    dev = _part_task(pool, part, DEV, precision) if (part == DEV).any() else None
    if dev is None and len(plan.learning_rates) * max(1, len(plan.lengths)) > 1:
        raise ValueError(
            "learning rates or lengths are to be tried on the dev part of the pool, which is empty; set dev"
        )
    sets = {each.name: items for each in tasks if (items := each.items) is not None}
    target = _target(plan, pool, part)
    rows = np.flatnonzero((part == TRAIN) & pool.candidates)
    pool, found = guarded(pool, rows, sets, lab, embedder=plan.embedder, left_out=plan.decontaminate)
    if target is not None:
        warn_of_targets({"target": target}, list(sets.values()), lab)
    train = np.flatnonzero((part == TRAIN) & pool.candidates)
    sources = len({each for each in pool.column("source")[train] if each is not None})
    arms = plan.arms_for(tuning.epochs, sources)
    settled = (plan, pool, part, train, tokens, tasks, dev, target, arms, tuning)
    ground = Ground(*settled, digests=_digests(plan), leaks=found)
    for budget in plan.budgets:
        ground.amount(budget)
    return ground


def _task(name: str, pool: Pool, part: np.ndarray, precision: Precision) -> Asked:
    """A task of the plan; the held-out part of the pool is asked as any file would be."""
    if name == HELD_OUT:
        return _part_task(pool, part, HOLDOUT, precision)
    return Asked.of(name, read_task(name), precision)


def _part_task(pool: Pool, part: np.ndarray, name: str, precision: Precision) -> Asked:
    """The answer loss on a part of the pool. Raises `ValueError` where the part is empty."""
    rows = np.flatnonzero((part == name) & pool.candidates)
    if not len(rows):
        raise ValueError(f"the {name} part of the pool is empty; give --{name} a share such as 10%, or other tasks")
    return Asked.of(f"heldout_loss:{name}", HeldoutLoss(items_of_pool(pool.subset(rows), name)), precision)


def _target(plan: Plan, pool: Pool, part: np.ndarray) -> Pool | None:
    """What targeted methods aim at: a file, or the dev part of the pool."""
    if plan.target is None:
        return None
    if plan.target == DEV:
        rows = np.flatnonzero((part == DEV) & pool.candidates)
        if not len(rows):
            raise ValueError("targets are to come from the dev part of the pool, which is empty; give --dev a share")
        return pool.subset(rows)
    return read_pool(plan.target)


def _digests(plan: Plan) -> dict[str, str]:
    """The models that choose and are tuned, by content."""
    from coretune.models import find_model

    named = {"model": plan.model, "embedder": plan.embedder}
    return {name: find_model(each).digest for name, each in named.items() if each is not None}
