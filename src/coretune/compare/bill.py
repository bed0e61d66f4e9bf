"""The bill: what choosing, tuning and reading took, and from which tuning on choosing pays for itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coretune.compare.arms import FULL
from coretune.compare.ground import Ground

STEPS = ("select", "tune", "read")


def bill(ground: Ground, rows: Sequence[Mapping[str, Any]], predicted: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds and tokens by arm and step, in all, and what it takes until choosing pays.

    Costs are those of every run alone, as if no other had measured anything: so arms can be compared. `spent` is
    what was paid in truth, with what runs share counted once.
    """
    full = [row for row in rows if row["arm"] == FULL]
    rate = _rate(rows)
    tokens = int(ground.tokens[ground.train].sum())
    full_seconds = (
        float(np.mean([row["tune_seconds"] for row in full])) if full else rate * tokens * ground.tuning.epochs
    )
    keys = dict.fromkeys((row["arm"], row["budget"]) for row in rows)
    stages = [_stage(*key, [row for row in rows if (row["arm"], row["budget"]) == key]) for key in keys]
    return {
        "predicted": dict(predicted),
        "measured": {
            "stages": stages,
            "seconds": sum(row[f"{step}_seconds"] for row in rows for step in STEPS),
            "tokens": sum(row[f"{step}_tokens"] for row in rows for step in STEPS),
            "judge_tokens": sum(row["judge_tokens"] for row in rows),
            "money": sum(row["money"] for row in rows),
        },
        "full_tuning": {"seconds": full_seconds, "measured": bool(full)},
        "break_even": [_break_even(each, full_seconds) for each in stages if each["select_seconds"] > 0],
    }


def _rate(rows: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of tuning an answer token and epoch, over all runs."""
    tokens = sum(row["answer_tokens"] * row["epochs"] for row in rows)
    return sum(row["tune_seconds"] for row in rows) / tokens if tokens else math.nan


def _stage(arm: str, budget: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run of an arm takes, on average over its seeds."""
    names = [f"{step}_{what}" for step in STEPS for what in ("seconds", "tokens")]
    means = {name: float(np.mean([row[name] for row in rows])) for name in (*names, "judge_tokens", "money")}
    return {"arm": arm, "budget": budget, "runs": len(rows), **means}


def _break_even(stage: Mapping[str, Any], full_seconds: float) -> dict[str, Any]:
    """From how many tunings on choosing once and tuning on the choice is quicker than tuning on everything."""
    saved = full_seconds - stage["tune_seconds"]
    pays = math.floor(stage["select_seconds"] / saved) + 1 if saved > 0 else None
    return {
        "arm": stage["arm"],
        "budget": stage["budget"],
        "select_seconds": stage["select_seconds"],
        "tune_seconds": stage["tune_seconds"],
        "full_seconds": full_seconds if math.isfinite(full_seconds) else None,
        "share_of_full": stage["select_seconds"] / full_seconds if full_seconds > 0 else None,
        "pays_from": pays,
    }
