"""Arms: what is compared. A method with its options, a control, the whole pool, or the model as it comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coretune import methods
from coretune.option_text import nested, split_options, typed_options
from coretune.runs import file_options

UNTUNED, FULL, RANDOM = "untuned", "full", "random"
EVERY_EPOCH, LENGTH_MATCHED = "random_every_epoch", "random_length_matched"
TARGETED_CONTROLS = ("bm25", "rds")
CONTROLS = (
    *(UNTUNED, RANDOM, "random_by_source", EVERY_EPOCH, LENGTH_MATCHED, "longest", FULL),
    *TARGETED_CONTROLS,
)
Kind = Literal["control", "method", "targeted", "own model"]


@dataclass(frozen=True)
class Arm:
    """One thing that is compared: a unique name, a method (or a control's own name), its options, and its kind.

    `targeted` arms have seen examples of the task, the others have not: they are never in one table. An `own model` is
    the one that a method has tuned while it chose, in place of a fresh tuning on the choice.
    """

    name: str
    method: str
    options: tuple[tuple[str, Any], ...] = field(default=(), hash=False)  # tables of a plan have no hash
    kind: Kind = "method"

    @classmethod
    def of(cls, name: str, *, method: str, given: Mapping[str, Any], control: bool = False, **options: Any) -> Arm:
        """An arm of a method. Raises `ValueError` for an unknown method or option, or where one is missing."""
        kind = methods.find(method)
        fields = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
        for each in options:
            if each not in fields:
                typed_options(method, kind, {each: ""})  # says which there are
        needed = [each.name for each in fields.values() if each.default is each.default_factory is dataclasses.MISSING]
        filled = {each: value for each, value in given.items() if each in fields and value is not None}
        for each in needed:
            if each not in options and each not in filled:
                advice = "a target (--target FILE, or dev)" if each == "target" else f"{each!r}: {method}?{each}=VALUE"
                raise ValueError(f"method {method} cannot be compared without {advice}")
        aims = "target" in fields and ("target" in options or "target" in filled)
        said: Kind = "targeted" if aims else "control" if control else "method"
        return cls(name, method, tuple(sorted(options.items())), said)

    @property
    def chooses(self) -> bool:
        """Whether the arm chooses within a budget."""
        return self.method not in (UNTUNED, FULL)


def own_loop(arm: Arm) -> Arm:
    """The arm of the model from inside a method's loop."""
    return dataclasses.replace(arm, name=f"{arm.name}/own-loop", kind="own model")


def as_long_as(arm: Arm) -> Arm:
    """The arm of random that trains for as long as this one chooses and trains."""
    return Arm(f"{RANDOM} as long as {arm.name}", RANDOM, (), "control")


def arm_of(text: str, given: Mapping[str, Any], *, control: bool = False) -> Arm:
    """The arm that a line of text says: a control's name, or METHOD?option=value; paths are short in its name."""
    if text in (UNTUNED, FULL, RANDOM, EVERY_EPOCH, LENGTH_MATCHED):
        return Arm(text, text, (), "control")
    method, options = split_options(text)
    typed = typed_options(method, methods.find(method), nested(options), file_options(method))
    said = [f"{name}={Path(value).name if '/' in value else value}" for name, value in options.items()]
    name = "?".join([method, "&".join(said)] if said else [method])
    return Arm.of(name, method=method, given=given, control=control, **typed)


def controls_for(target: bool, epochs: float, sources: int) -> tuple[str, ...]:
    """The controls that mean something: targeted ones with a target, a new draw an epoch where there are several."""
    apply = {EVERY_EPOCH: epochs > 1, "random_by_source": sources > 1}
    apply |= dict.fromkeys(TARGETED_CONTROLS, target)
    return tuple(name for name in CONTROLS if apply.get(name, True))


@dataclass(frozen=True)
class Run:
    """One tuning (or none) of a comparison: an arm, at a budget, with a seed of its own."""

    arm: Arm
    budget: str
    seed: int

    @property
    def label(self) -> str:
        """The run in words."""
        return f"{self.arm.name}, {self.budget}, seed {self.seed}" if self.budget else f"{self.arm.name}"
