"""What a comparison is, declared before anything runs: arms, budgets, seeds, the primary task and its margin."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coretune.chat import read_template
from coretune.compare.arms import CONTROLS, LENGTH_MATCHED, RANDOM, Arm, arm_of, controls_for
from coretune.errors import nearest
from coretune.models import Precision
from coretune.selection import Budget

HOLDOUT, DEV = "holdout", "dev"  # files of tasks and targets that stand for parts of the pool
HELD_OUT = f"heldout_loss:{HOLDOUT}"
SHARE = re.compile(r"^\d+(\.\d+)?%$")


@dataclass(frozen=True)
class Plan:
    """A comparison as it is declared. `margin` is in the unit of the primary task, or a share of random's value (1%).

    Raises `ValueError` where it means nothing.
    """

    inputs: tuple[str, ...]
    """Files of the pool."""
    model: str
    """The model to be tuned."""
    methods: tuple[str, ...] = ()
    """Methods, NAME or NAME?option=value&option=value."""
    budgets: tuple[str, ...] = ("5%-tokens",)
    """How much each arm may choose; shares are of the part of the pool that is left to train on."""
    tasks: tuple[str, ...] = (HELD_OUT,)
    """What tuned models are measured by: NAME:FILE; the file `holdout` is the part of the pool that is held out."""
    primary_task: str | None = None
    """The task that decides; none is the first."""
    primary_budget: str | None = None
    """The budget that decides; none is the first."""
    margin: str = "1%"
    """Differences smaller than this do not matter: a number in the task's unit, or a share of random's value."""
    seeds: int = 3
    """Runs of every method at every budget."""
    random_seeds: int | None = None
    """Runs of random, which stands in every contrast; none is twice the others'."""
    controls: tuple[str, ...] | None = None
    """Controls; none takes all that apply."""
    rows: int | None = None
    """Rows of the pool that take part, drawn by content; none is all. A pilot takes few."""
    sub_pool: float = 0.9
    """The share of the pool, drawn anew for every run, that a run may choose from."""
    holdout: str = "10%"
    """The part of the pool that is held out for evaluation: a share, or a number of rows."""
    dev: str = "5%"
    """The part of the pool that learning rates are tuned on and targets are taken from."""
    target: str | None = None
    """A file that targeted methods aim at, or dev."""
    embedder: str | None = None
    """The encoder of methods that embed."""
    template: str | None = None
    """Jinja text in place of the model's own chat template; a plan's file may say `plain`, or name a file with it."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Which columns of the pool hold what."""
    learning_rates: tuple[float, ...] = (2e-4,)
    """Rates tried on random at every budget, the best on dev taken by all arms; a single one is taken as it is."""
    lengths: tuple[float, ...] = ()
    """Epochs tried with every rate; none takes the tuning's own."""
    steps: int | None = None
    """Optimizer steps of every run, in place of epochs: small sets are then seen more often."""
    equal_compute: bool = False
    """Whether each method also stands against random that trains for as long as the method chooses and trains."""
    sensitivity: bool = False
    """Whether the best two methods are tuned again with half and with twice the rate."""
    tuning: Mapping[str, Any] = field(default_factory=dict)
    """Further options of the tuning, the same for all arms."""
    precision: Precision | None = None
    """What all models are read in; none is bfloat16 where the hardware has it and losses agree, settled once."""
    weights: bool = True
    """Whether rows count what the method says."""
    decontaminate: bool = True
    """Whether rows that overlap with an evaluation set are left out of the pool."""
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further arms by name, each a method with options of its own."""
    seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        """Refuse what means nothing before anything is read."""
        if not self.inputs:
            raise ValueError("no pool was named; give its files")
        if self.seeds < 2:
            raise ValueError(f"{self.seeds} seeds asked; give 2 or more, since one run says nothing of the next")
        if (self.random_seeds or 2 * self.seeds) < 2 * self.seeds:
            raise ValueError(
                f"{self.random_seeds} seeds of random asked; give {2 * self.seeds} or more, twice the others': it "
                "stands in every contrast"
            )
        if self.rows is not None and self.rows < 20:
            raise ValueError(f"{self.rows} rows of the pool asked to take part; give 20 or more")
        if not 0 < self.sub_pool <= 1:
            raise ValueError(f"a sub-pool of {self.sub_pool} asked; give a share above 0 and at most 1")
        for each in self.budgets:
            Budget.parse(each)
        _one_of("task", self.primary_task, self.tasks)
        _one_of("budget", self.primary_budget, self.budgets)
        for each in self.controls or ():
            _one_of("control", each, CONTROLS)
        _refuse_odd_steps(self)
        if not (self.budgets and self.tasks and self.learning_rates):
            raise ValueError("a comparison needs a budget, a task and a learning rate")
        self.margin_of(1.0)
        self.arms_for(1.0, 1)

    @property
    def primary(self) -> tuple[str, str]:
        """The task and the budget that decide."""
        return self.primary_task or self.tasks[0], self.primary_budget or self.budgets[0]

    @property
    def seeds_of_random(self) -> int:
        """Runs of random at every budget."""
        return self.random_seeds or 2 * self.seeds

    def margin_of(self, random_value: float) -> float:
        """The margin in the unit of the task, for a share of random's value."""
        share = SHARE.match(self.margin.strip())
        try:
            margin = float(self.margin.strip().rstrip("%")) * (abs(random_value) / 100 if share else 1.0)
        except ValueError as error:
            raise ValueError(f"margin {self.margin!r} is not understood; give a number, or a share as 1%") from error
        if not (math.isfinite(margin) and margin > 0):
            raise ValueError(f"margin {self.margin!r} asked; give more than 0")
        return margin

    def arms_for(self, epochs: float, sources: int) -> tuple[Arm, ...]:
        """Every arm: controls first, then methods, then those with names of their own.

        Which controls apply depends on the epochs of the tuning and the sources of the pool. Raises `ValueError` for
        unknown methods and options, for what they lack, for two arms of one name, and for a control of nothing.
        """
        given = {"model": self.model, "embedder": self.embedder, "target": self.target, "template": self.template}
        wanted = self.controls
        if wanted is None:
            longest = 1.0 if self.steps else max(self.lengths, default=epochs)
            wanted = controls_for(self.target is not None, longest, sources)
        wanted = wanted if RANDOM in wanted else (RANDOM, *wanted)
        asked = [arm_of(text, given) for text in self.methods if text not in wanted]
        asked += [Arm.of(name, **{**each, "given": given}) for name, each in self.arms.items()]
        if LENGTH_MATCHED in wanted and not any(arm.kind == "method" for arm in asked):
            if self.controls is not None:
                raise ValueError(f"control {LENGTH_MATCHED} asked, but there is no method to match; leave it out")
            wanted = tuple(name for name in wanted if name != LENGTH_MATCHED)
        controls = [arm_of(name, given, control=True) for name in wanted]
        names = [arm.name for arm in (*controls, *asked)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two arms are called {twice[0]!r}; name one of them otherwise under [arms.NAME]")
        return (*controls, *asked)


def _refuse_odd_steps(plan: Plan) -> None:
    """Raise `ValueError` for optimizer steps that mean nothing, or beside what also says how long runs are."""
    if plan.steps is not None and (plan.steps < 1 or plan.lengths):
        raise ValueError(f"{plan.steps} steps asked; give 1 or more, and then no lengths: steps are the length")
    if plan.steps is not None and plan.equal_compute:
        raise ValueError(
            "equal_compute gives random longer to train, and steps holds every run to one length; give epochs in the "
            "tuning in place of steps"
        )


def _one_of(what: str, asked: str | None, known: tuple[str, ...]) -> None:
    if asked is not None and asked not in known:
        raise ValueError(f"{what} {asked!r} asked, which is none of {', '.join(known)}{nearest(asked, known)}")


def read_plan(path: Path) -> Plan:
    """The plan in a TOML file: [primary] task, budget, margin; [plan] everything else; [arms.NAME]; [tuning].

    Files in it are relative to it. Raises `ValueError` where it is not one.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} holds no plan that can be read: {error}") from error
    plan = {name: tables[name] for name in ("tuning", "arms") if name in tables} | tables.get("plan", {})
    primary = dict(tables.get("primary", {}))
    known = {each.name: each for each in dataclasses.fields(Plan)}
    plan["inputs"] = plan.pop("pool", plan.get("inputs", []))
    primary = {("margin" if name == "margin" else f"primary_{name}"): value for name, value in primary.items()}
    asked = {**plan, **primary}
    for name in asked:
        if name not in known:
            raise ValueError(f"{path} says {name!r}, which is not known{nearest(name, known)}")
    made = _with_files(path, {name: _plain(value) for name, value in asked.items()})
    try:
        return Plan(**made)
    except TypeError as error:
        raise ValueError(f"{path} holds no whole plan: {error}; [plan] needs pool and model") from error


def _with_files(path: Path, made: dict[str, Any]) -> dict[str, Any]:
    """A plan's fields with its files from where it lies; a primary task or budget is a task and a budget."""
    made["inputs"] = tuple(_beside(path, each) for each in made["inputs"])
    for name in ("primary_task", "target"):
        if isinstance(made.get(name), str):
            made[name] = _task_beside(path, made[name])
    if "tasks" in made:
        made["tasks"] = tuple(_task_beside(path, each) for each in made["tasks"])
    for many, one in (("tasks", "primary_task"), ("budgets", "primary_budget")):
        if many not in made and one in made:
            made[many] = (made[one],)
    if made.get("template") is not None:
        made["template"] = read_template(made["template"], path.parent)
    for name in ("holdout", "dev", "margin"):
        if name in made:
            made[name] = str(made[name])
    return made


def _beside(path: Path, name: str) -> str:
    """A file that a plan names, from where the plan lies."""
    there = path.parent / name
    return str(there) if not Path(name).is_absolute() and any(path.parent.glob(name)) else name


def _task_beside(path: Path, text: str) -> str:
    """A task, `NAME:FILE?...` or a file, with its file from where the plan lies."""
    asked, mark, options = text.partition("?")
    name, colon, file = asked.rpartition(":")
    return f"{name}{colon}{_beside(path, file)}{mark}{options}" if file else text


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_plain(each) for each in value)
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return None if value == "none" else value
