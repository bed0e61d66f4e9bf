"""The tables of a comparison's page: every contrast, differences by group, sizes, overlaps with tests, and all runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coretune.pages import verdict_words as words
from coretune.pages import wording
from coretune.pages.verdict_files import ComparisonFiles, by_gain
from coretune.pages.verdict_items import GroupScores, Run, group_scores
from coretune.pages.verdict_records import RANDOM, Contrast, number, table_of, tables_of, text

MOST_RUNS, MOST_TASKS, MOST_GROUPS, MOST_SIZES = 1_500, 5, 12, 40


def contrasts(files: ComparisonFiles) -> list[dict[str, Any]]:
    """All contrasts, by task and budget, the greatest gain first."""
    groups: dict[tuple[str, str, str], list[Contrast]] = {}
    for each in files.contrasts:
        groups.setdefault((each.task, each.metric, each.against), []).append(each)
    order = {task: place for place, (task, _) in enumerate(files.metrics)}
    keys = sorted(groups, key=lambda key: (order.get(key[0], 0), key[2] != files.primary.budget))
    return [_group(key, groups[key]) for key in keys]


def _group(key: tuple[str, str, str], members: Sequence[Contrast]) -> dict[str, Any]:
    digits = words.digits_of(members)
    unit, random = members[0].unit, members[0].random_value
    title = f"{words.name(key[0])}: {words.name(key[1])}{',' if unit else ''}{words.of(unit)}; at {words.name(key[2])}"
    return {
        "title": f"{title}, random {words.plain(random, digits)}",
        "rows": [
            {
                "arm": words.name(each.arm),
                "kind": words.KINDS.get(each.kind, "other"),
                "value": words.plain(each.value, digits),
                "difference": words.signed(each.difference, digits),
                "interval": words.interval(each.low, each.high, digits),
                "p": words.p_value(each.p),
                "holm": words.p_value(each.p_holm),
                "least": words.plain(each.smallest_detectable, digits),
                "seeds": f"{each.seeds} / {each.random_seeds}",
                "size": wording.count(each.items),
                "verdict": each.verdict,
                "said": words.SAID[each.verdict],
                "exploratory": each.exploratory,
            }
            for each in by_gain(members)
        ],
    }


def by_group(files: ComparisonFiles) -> dict[str, Any] | None:
    """Differences to random of the primary task by group of items; None with fewer than two groups."""
    groups = [each for each in group_scores(files) if RANDOM in each.seeds]
    if len(groups) < 2:
        return None
    shown = groups[:MOST_GROUPS]
    turn = 1.0 if files.primary.higher_is_better else -1.0
    arms = files.in_order(dict.fromkeys(arm for each in shown for arm in each.seeds if arm != RANDOM))
    cells = {(each.name, arm): _apart(each, arm, turn) for each in shown for arm in arms}
    digits = words.digits_for([error for _, error in cells.values()])
    return {
        "groups": [
            {"name": words.name(each.name), "size": wording.count(each.items), "random": _mean(each, RANDOM, digits)}
            for each in shown
        ],
        "rows": [
            {"arm": words.name(arm), "cells": [_cell(cells[each.name, arm], digits) for each in shown]} for arm in arms
        ],
        "left_out": len(groups) - len(shown),
    }


def _apart(group: GroupScores, arm: str, turn: float) -> tuple[float, float]:
    """The oriented difference of a group's means, and its standard error over runs."""
    if arm not in group.seeds:
        return math.nan, math.nan
    mine, random = group.seeds[arm], group.seeds[RANDOM]
    runs = [each.var(ddof=1) / len(each) for each in (mine, random) if len(each) > 1]
    return turn * float(mine.mean() - random.mean()), math.sqrt(sum(runs)) if len(runs) == 2 else math.nan


def _mean(group: GroupScores, arm: str, digits: int) -> str:
    return words.plain(float(group.seeds[arm].mean()), digits)


def _cell(cell: tuple[float, float], digits: int) -> dict[str, str]:
    difference, error = cell
    away = abs(difference) > 2 * error if math.isfinite(error) else False
    return {
        "difference": words.signed(difference, digits),
        "error": f"± {words.plain(error, digits)}" if math.isfinite(error) else "",
        "tone": ("up" if difference > 0 else "down") if away else "",
    }


def leakage(files: ComparisonFiles) -> list[dict[str, Any]]:
    """Rows of the pool and items of each evaluation set that overlap."""
    found = []
    for task, said in files.section("leakage").items():
        if not isinstance(said, Mapping):
            continue
        rows, over, items, over_items = (
            number(said.get(name)) for name in ("rows", "overlapping_rows", "items", "overlapping_items")
        )
        kinds = [_kind(key, number(value)) for key, value in said.items() if "_by_" in key and number(value) > 0]
        kinds += [f"{wording.count(value)} similar rows" for value in [number(said.get("similar_rows"))] if value > 0]
        found.append(
            {
                "task": words.name(task),
                "rows": f"{_count(over)} of {_count(rows)}",
                "row_share": wording.share(over, rows) if math.isfinite(over + rows) else "–",
                "tests": f"{_count(over_items)} of {_count(items)}",
                "item_share": wording.share(over_items, items) if math.isfinite(over_items + items) else "–",
                "kinds": ", ".join(kinds) or "none",
            }
        )
    return found


def _kind(key: str, count: float) -> str:
    """`rows_by_prompt` in words: `2 rows by prompt`."""
    what, _, how = key.partition("_by_")
    return f"{wording.plural(int(count), wording.visible(what, 30).removesuffix('s'))} by {wording.visible(how, 30)}"


def _count(value: float) -> str:
    return wording.count(value) if math.isfinite(value) else "–"


def sizes(files: ComparisonFiles) -> dict[str, Any]:
    """How much of each arm matches the full pool, and how much of random does as well as each arm."""
    enough, equivalent = (tables_of(files.said.get(name))[:MOST_SIZES] for name in ("enough", "equivalent"))
    return {
        "enough": [_enough(each) for each in enough],
        "equivalent": [_equivalent(each) for each in equivalent],
        "compute": [_at_equal_compute(each) for each in tables_of(files.said.get("at_equal_compute"))[:MOST_SIZES]],
        "full": _full(table_of(files.said.get("full_estimate"))),
    }


def _full(said: Mapping[str, Any]) -> str:
    """What the full pool would give where it was not tuned on, in words; empty where nothing points there."""
    value, low, high = (number(said.get(name)) for name in ("value", "low", "high"))
    if not math.isfinite(value):
        return ""
    between = f" [{wording.number(low)}, {wording.number(high)}]" if math.isfinite(low + high) else ""
    reasons = _reasons(said)
    return (
        f"The full pool was not tuned on. Estimated, not measured: random’s curve, followed as a power law, points to "
        f"{wording.number(value)}{between}{words.of(text(said.get('unit')))} at its "
        f"{_count(number(said.get('size')))} answer tokens{f'; {reasons}' if reasons else ''}."
    )


def _at_equal_compute(said: Mapping[str, Any]) -> dict[str, Any]:
    low, high = (number(each) for each in (said.get("interval") or [None, None])[:2])
    digits = words.digits_for([(high - low) / 4])
    kind = text(said.get("verdict"))
    return {
        "arm": words.name(text(said.get("arm"))),
        "tokens": _count(number(said.get("random_answer_tokens"))),
        "difference": words.signed(number(said.get("difference")), digits),
        "interval": words.interval(low, high, digits),
        "verdict": kind,
        "said": words.SAID.get(kind, "–"),
    }


def _enough(said: Mapping[str, Any]) -> dict[str, Any]:
    size, full, certified = (number(said.get(name)) for name in ("size", "full", "certified"))
    identified = said.get("identified") is True
    return {
        "arm": words.name(text(said.get("arm"))),
        "identified": identified,
        "size": _count(size) if identified else "not identified",
        "estimate": _count(size),
        "interval": _ends(said, "low", "high"),
        "share": wording.share(size, full) if math.isfinite(size + full) else "–",
        "certified": f"{_count(certified)}" if math.isfinite(certified) else "no part",
        "reasons": _reasons(said),
    }


def _equivalent(said: Mapping[str, Any]) -> dict[str, Any]:
    identified = said.get("identified") is True
    away = (
        "less than any budget" if said.get("below") is True else "more than any" if said.get("beyond") is True else ""
    )
    saving = number(said.get("saving"))
    same = {"better": "better", "worse": "worse", "cannot_tell": "cannot tell"}
    return {
        "arm": words.name(text(said.get("arm"))),
        "size": _count(number(said.get("size"))),
        "equal": away or _count(number(said.get("equal_to"))),
        "interval": _ends(said, "low", "high"),
        "saving": f"×{saving:.2f}" if math.isfinite(saving) else "–",
        "identified": identified,
        "compute": same.get(text(said.get("at_equal_compute")), "–"),
        "reasons": _reasons(said),
    }


def _ends(said: Mapping[str, Any], low: str, high: str) -> str:
    ends = [number(said.get(name)) for name in (low, high)]
    return (
        " to ".join(_count(end) if math.isfinite(end) else "?" for end in ends)
        if any(map(math.isfinite, ends))
        else "–"
    )


def _reasons(said: Mapping[str, Any]) -> str:
    reasons = said.get("reasons")
    return wording.visible("; ".join(text(each) for each in reasons), 300) if isinstance(reasons, list) else ""


def rates(files: ComparisonFiles) -> dict[str, list[dict[str, Any]]]:
    """Learning rates that were tried on random, and those that the best arms were tried at again."""
    tried, again = (tables_of(files.said.get(name)) for name in ("learning_rates", "sensitivity"))
    return {
        name: [
            {
                "where": words.name(text(each.get("budget" if name == "tried" else "arm"))),
                "rate": wording.number(number(each.get("learning_rate"))),
                "value": wording.number(number(each.get("dev_loss" if name == "tried" else "value"))),
                "taken": each.get("taken") is True,
            }
            for each in lines
        ]
        for name, lines in (("tried", tried), ("again", again))
    }


def runs(files: ComparisonFiles, values: Mapping[tuple[str, str], Mapping[Run, float]]) -> dict[str, Any]:
    """A line for every run, with its value on every task; the first of them where there are very many."""
    tasks = files.metrics[:MOST_TASKS]
    shown = [each for each in files.runs if isinstance(each.get("arm"), str)][:MOST_RUNS]
    lines = [_run(each, [values.get(task, {}) for task in tasks]) for each in shown]
    return {
        "tasks": [f"{words.name(task)}: {words.name(metric)}" for task, metric in tasks],
        "rows": lines,
        "left_out": len(files.runs) - len(lines),
        "tasks_left_out": len(files.metrics) - len(tasks),
    }


def _run(run: Mapping[str, Any], values: Sequence[Mapping[Run, float]]) -> dict[str, Any]:
    key = (text(run.get("arm")), text(run.get("budget")), int(number(run.get("seed"))) if run.get("seed") else 0)
    first, last = number(run.get("loss_first")), number(run.get("loss_last"))
    figures = [number(run.get(name)) for name in ("rows", "answer_tokens", "steps")]
    return {
        "arm": words.name(key[0]),
        "kind": text(run.get("kind")),
        "estimated": run.get("estimated") is True,
        "budget": words.name(key[1]),
        "seed": str(key[2]),
        "figures": [_count(each) for each in figures],
        "rate": wording.number(number(run.get("learning_rate"))),
        "losses": f"{first:.3f} → {last:.3f}" if np.isfinite([first, last]).all() else "–",
        "seconds": " / ".join(_seconds(run, name) for name in ("select", "tune", "read")),
        "scores": [_value(each.get(key, math.nan)) for each in values],
    }


def _seconds(run: Mapping[str, Any], step: str) -> str:
    value = number(run.get(f"{step}_seconds"))
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if math.isfinite(value) else "–"


def _value(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) and abs(value) < 100 else wording.number(value)
