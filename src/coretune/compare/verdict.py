"""The verdict: what each arm gains over random, how sure that is, and what it cost. All of it as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coretune.compare.arms import RANDOM
from coretune.compare.bill import bill
from coretune.compare.contrasts import Contrast, adjusted, contrasts, contrasts_at_equal_compute, line_of
from coretune.compare.ground import Ground
from coretune.compare.results import Scores, collect, run_rows
from coretune.compare.running import Done
from coretune.compare.sizes import curves, equivalent_sizes, full_estimate, smallest_matching
from coretune.compare.wording import sentence_of, unequal_of
from coretune.statistics.detectable import Plan, expected, smallest_detectable
from coretune.statistics.differences import difference

DOES_NOT_SPEAK_FOR = (
    "other models, or the same model at another size",
    "other pools, or ten times as much of this one",
    "other budgets than those that were run",
    "other ways of tuning: more epochs, other ranks, all weights",
    "what the tasks do not measure",
)


def judge(
    ground: Ground,
    done: Sequence[Done],
    trials: Sequence[Mapping[str, Any]],
    failed: Mapping[str, str],
    predicted: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that `verdict.json` says."""
    scores = collect(done, ground.tasks)
    arms = {each.run.arm.name: each.run.arm for each in done}
    found = [each for own in scores if own.own for each in contrasts(ground, own, arms)]
    p_values = adjusted(found)
    lines = [line_of(each, p_values.get(place)) for place, each in enumerate(found)]
    rows = run_rows(ground, done, ground.tasks)
    lines = [line | {"unequal": _unequal(ground, rows, each)} for line, each in zip(lines, found, strict=True)]
    own = [each for each in scores if each.own]
    primary = next(each for each in own if each.task == ground.primary[0].name)
    facts = _primary_facts(ground, primary)
    return {
        "primary": facts,
        "sentence": sentence_of(facts, lines),
        "arms": lines,
        "curves": [curve for each in own for curve in curves(each, rows)],
        "enough": smallest_matching(ground, primary, rows),
        "full_estimate": full_estimate(ground, primary, rows),
        "equivalent": equivalent_sizes(ground, primary, rows),
        "at_equal_compute": contrasts_at_equal_compute(ground, primary, rows, arms),
        "learning_rates": list(trials),
        "failed": dict(failed),
        "left_out_items": {each.task: each.left_out for each in own if each.left_out},
        "bill": bill(ground, rows, predicted),
        "does_not_speak_for": list(DOES_NOT_SPEAK_FOR),
    }


def announce(ground: Ground, baselines: Sequence[Done]) -> list[str]:
    """What can be detected, in words, from random's own runs: said before any method is tuned."""
    task, budget = ground.primary
    scores = next(each for each in collect(baselines, [task]) if each.own)
    random = scores.arms[RANDOM, budget]
    seeds = ground.plan.seeds
    if len(random) <= seeds:
        return []
    seen = difference(random[:seeds], random[seeds:]).components
    least = smallest_detectable(expected(seen, Plan(seeds, len(random), random.shape[1])))
    margin = ground.plan.margin_of(float(random.mean()))
    said = (
        f"{seeds} seeds against {len(random)} of random on {random.shape[1]:,} items of {task.name} detect about "
        f"{least:.3g} {scores.unit} (power 80%), judged by random's own runs; the margin is {margin:.3g}"
    )
    more = (
        ": differences as small as the margin will not be settled; take more seeds or items" if least > margin else ""
    )
    return [said + more]


def _primary_facts(ground: Ground, scores: Scores) -> dict[str, Any]:
    task, budget = ground.primary
    random = scores.mean((RANDOM, budget))
    return {
        "task": task.name,
        "metric": scores.metric,
        "unit": scores.unit,
        "higher_is_better": scores.higher_is_better,
        "budget": budget,
        "margin": ground.plan.margin_of(random),
        "margin_asked": ground.plan.margin,
        "random_value": random,
        "items": len(scores.items),
        "equal": f"{'answer tokens' if ground.amount(budget).in_tokens else 'rows'}, {_length(ground)}",
    }


def _unequal(ground: Ground, rows: Sequence[Mapping[str, Any]], each: Contrast) -> str:
    """What an arm that chose had more or less of than random at the same budget, in words."""
    if not each.arm.chooses or each.arm.kind == "own model":
        return ""
    mine, random = ([row for row in rows if (row["arm"], row["budget"]) == key] for key in (each.key, each.against))
    return unequal_of(mine, random, ground.amount(each.key[1]).in_tokens)


def best_methods(verdict: Mapping[str, Any], count: int = 2) -> list[str]:
    """The methods that gain most over random at the primary budget."""
    primary = [line for line in verdict["arms"] if not line["exploratory"]]
    return [line["arm"] for line in sorted(primary, key=lambda line: -line["difference"])[:count]]


def _length(ground: Ground) -> str:
    """How long all runs are tuned, in words."""
    plan = ground.plan
    if plan.steps is not None:
        return f"{plan.steps} optimizer steps"
    tried = plan.lengths or (ground.tuning.epochs,)
    return f"{' or '.join(f'{each:g}' for each in tried)} epoch{'s' if tried[-1] != 1 else ''}"
