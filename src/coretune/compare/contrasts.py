"""Contrasts: every arm against random, with Holm over those that decide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from coretune.compare.arms import RANDOM, UNTUNED, Arm, as_long_as
from coretune.compare.ground import Ground
from coretune.compare.results import Key, Scores
from coretune.statistics.detectable import smallest_detectable
from coretune.statistics.differences import Difference, difference
from coretune.statistics.families import holm
from coretune.statistics.verdicts import verdict


@dataclass(frozen=True, eq=False)
class Contrast:
    """An arm against random: the difference, oriented so that above 0 is better, and who stands in it."""

    scores: Scores
    arm: Arm
    key: Key
    against: Key
    found: Difference
    margin: float
    pooled: int  # further arms over which run variance is pooled
    primary: bool


def contrasts(ground: Ground, scores: Scores, arms: Mapping[str, Arm]) -> list[Contrast]:
    """Every arm against random at its own budget; the untuned model and the full pool against the primary budget's."""
    task, budget = ground.primary
    turn = 1.0 if scores.higher_is_better else -1.0
    found = []
    for key, values in scores.arms.items():
        arm = arms[key[0]]
        if arm.name == RANDOM:
            continue
        against = (RANDOM, key[1] if arm.chooses else budget)
        others = [
            turn * each
            for other, each in scores.arms.items()
            if other[1] == against[1] and other not in (key, against) and len(each) > 1
        ]
        random = scores.arms[against]
        primary = scores.task == task.name and key[1] == budget and arm.kind in ("method", "targeted")
        apart = difference(turn * values, turn * random, others=others, fixed=(arm.method == UNTUNED, False))
        margin = ground.plan.margin_of(float(random.mean()))
        found.append(Contrast(scores, arm, key, against, apart, margin, len(others), primary))
    return found


def adjusted(found: Sequence[Contrast]) -> dict[int, float]:
    """Holm's p-values of the primary contrasts, by place; targeted methods apart, as in their own table."""
    p_values: dict[int, float] = {}
    for kind in ("method", "targeted"):
        family = [place for place, each in enumerate(found) if each.primary and each.arm.kind == kind]
        known = [place for place in family if math.isfinite(found[place].found.p)]
        if known:
            p_values |= dict(zip(known, holm([found[place].found.p for place in known]).tolist(), strict=True))
    return p_values


def line_of(each: Contrast, p_holm: float | None) -> dict[str, Any]:
    """A contrast as `verdict.json` has it."""
    scores, found = each.scores, each.found
    said = verdict(found, each.margin, p_holm=p_holm, other_arms=each.pooled, unit=scores.unit)
    low, high = found.interval()
    return {
        "method": each.arm.method,
        "arm": each.arm.name,
        "kind": each.arm.kind,
        "budget": each.key[1],
        "against": each.against[1],
        "task": scores.task,
        "metric": scores.metric,
        "unit": scores.unit,
        "seeds": found.seeds[0],
        "random_seeds": found.seeds[1],
        "items": found.items,
        "value": scores.mean(each.key),
        "random_value": scores.mean(each.against),
        "difference": found.value,
        "stderr": _number(found.stderr),
        "df": _number(found.df),
        "interval": [_number(low), _number(high)],
        "margin": each.margin,
        "p": _number(found.p),
        "p_holm": p_holm,
        "smallest_detectable": _number(smallest_detectable(found)),
        "components": {name: _number(value) for name, value in asdict(found.components).items()},
        "verdict": said.kind,
        "words": said.words,
        "next": said.next,
        "exploratory": not each.primary,
    }


def contrasts_at_equal_compute(
    ground: Ground, scores: Scores, rows: Sequence[Mapping[str, Any]], arms: Mapping[str, Arm]
) -> list[dict[str, Any]]:
    """Each method against random that trained for as long as it chose and trained; none of them decides anything."""
    turn = 1.0 if scores.higher_is_better else -1.0
    found = []
    for (name, budget), values in scores.arms.items():
        against: Key = (as_long_as(arms[name]).name, budget)
        if against not in scores.arms:
            continue
        random = scores.arms[against]
        others = [
            turn * each
            for key, each in scores.arms.items()
            if key[1] == budget and key not in ((name, budget), against) and len(each) > 1
        ]
        made = difference(turn * values, turn * random, others=others, fixed=(False, False))
        said = verdict(made, ground.plan.margin_of(float(random.mean())), other_arms=len(others), unit=scores.unit)
        low, high = made.interval()
        mine = [row for row in rows if (row["arm"], row["budget"]) == against]
        found.append(
            {
                "arm": name,
                "budget": budget,
                "against": against[0],
                "task": scores.task,
                "unit": scores.unit,
                "random_answer_tokens": float(np.mean([row["answer_tokens"] for row in mine])),
                "difference": made.value,
                "interval": [_number(low), _number(high)],
                "verdict": said.kind,
                "words": said.words,
            }
        )
    return found


def _number(value: float) -> float | None:
    """A number as JSON has it: none where it is not finite."""
    return float(value) if math.isfinite(value) else None
