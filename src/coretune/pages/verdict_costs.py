"""What the comparison took against what it brought: the bill, gain by cost, and from when on choosing pays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coretune.pages import charts, wording
from coretune.pages import verdict_words as words
from coretune.pages.verdict_curves import log_ticks
from coretune.pages.verdict_files import ComparisonFiles
from coretune.pages.verdict_records import FULL, UNTUNED, Contrast, number, table_of, tables_of, text

STEPS = (("select", "choosing"), ("tune", "tuning"), ("read", "reading"))
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 330, 58, 16, 24, 40
CLOSE = 19  # spots nearer than that would cover each other
NOTHING = 0.4  # of a decade, left of the cheapest: where arms that cost nothing stand


@dataclass(frozen=True)
class Spot:
    """An arm in the chart of gain by cost: its number in the table, its place and its interval."""

    number: int
    x: float
    y: float
    low: float
    high: float
    verdict: str
    title: str


def gains(files: ComparisonFiles) -> dict[str, Any] | None:
    """Gain over random by what choosing costs, at the primary budget, with a table of the same; None without arms."""
    cost = {each["arm"]: each for each in _break_evens(files) if each["budget"] == files.primary.budget}
    here = [each for each in files.on_primary if each.arm not in (FULL, UNTUNED) and math.isfinite(each.difference)]
    if not here:
        return None
    seconds = {each.arm: _seconds(files, each.arm, cost) for each in here}
    here = sorted(here, key=lambda each: (seconds[each.arm], each.arm))
    full = _full(files)
    digits = words.digits_of(files.declared or here)
    rows = [
        {
            "number": place,
            "arm": words.name(each.arm),
            "verdict": each.verdict,
            "said": words.SAID[each.verdict],
            "difference": words.signed(each.difference, digits),
            "seconds": wording.seconds(seconds[each.arm]) if seconds[each.arm] else "none",
            "share": wording.share(seconds[each.arm], full) if full else "–",
            "pays": _pays(cost.get(each.arm), seconds[each.arm]),
        }
        for place, each in enumerate(here, 1)
    ]
    return {"rows": rows, "drawing": _drawing(here, seconds, full, digits), "full": _full_words(files, full)}


def _break_evens(files: ComparisonFiles) -> list[dict[str, Any]]:
    names = ("select_seconds", "full_seconds", "share_of_full", "pays_from")
    said = tables_of(table_of(files.said.get("bill")).get("break_even") or files.said.get("break_even"))
    return [
        {"arm": text(each.get("arm")), "budget": text(each.get("budget"))}
        | {name: number(each.get(name)) for name in names}
        for each in said
    ]


def _seconds(files: ComparisonFiles, arm: str, cost: Mapping[str, Mapping[str, float]]) -> float:
    """Seconds of choosing once: as the bill says, or the mean over runs."""
    if arm in cost and math.isfinite(cost[arm]["select_seconds"]):
        return cost[arm]["select_seconds"]
    here = [run for run in files.runs if (run.get("arm"), run.get("budget")) == (arm, files.primary.budget)]
    spent = [each for run in here if math.isfinite(each := number(run.get("select_seconds")))]
    return sum(spent) / len(spent) if spent else 0.0


def _full(files: ComparisonFiles) -> float:
    """Seconds of one tuning on everything; 0 where nothing tells."""
    said = number(table_of(table_of(files.said.get("bill")).get("full_tuning")).get("seconds"))
    if math.isfinite(said):
        return said
    told = [each["full_seconds"] for each in _break_evens(files) if math.isfinite(each["full_seconds"])]
    runs = [each for run in files.runs if run.get("arm") == FULL and (each := number(run.get("tune_seconds"))) > 0]
    return told[0] if told else sum(runs) / len(runs) if runs else 0.0


def _full_words(files: ComparisonFiles, full: float) -> str:
    if not full:
        return "How long tuning on the whole pool takes is not known."
    said = table_of(table_of(files.said.get("bill")).get("full_tuning"))
    how = "estimated from the smaller tunings" if said.get("measured") is False else "measured"
    return f"One tuning on the whole pool takes {wording.seconds(full)} ({how})."


def _pays(cost: Mapping[str, float] | None, seconds: float) -> str:
    """From which tuning on choosing and tuning on the choice is quicker than tuning on everything."""
    if not seconds:
        return "at once"
    if cost is None:
        return "not known"
    if not math.isfinite(cost["pays_from"]):
        return "never"
    return f"{wording.place(max(1, round(cost['pays_from'])))} tuning"


def _drawing(here: Sequence[Contrast], seconds: Mapping[str, float], full: float, digits: int) -> dict[str, Any] | None:
    """The chart; None where no arm costs anything."""
    unit = full or 1.0
    costs = {arm: spent / unit for arm, spent in seconds.items()}
    paid = [cost for cost in costs.values() if cost > 0]
    if not paid:
        return None
    low = math.log10(min(paid)) - (NOTHING if min(costs.values()) <= 0 else 0.08)
    high = max(math.log10(max(paid)) + 0.08, low + 0.6)
    ends = [end for each in here for end in (each.low, each.high, each.difference, 0.0) if math.isfinite(end)]
    least, most = min(ends), max(ends)
    room = 0.05 * ((most - least) or 1.0)

    def across(cost: float) -> float:
        share = (math.log10(cost) - low) / (high - low) if cost > 0 else 0.0
        return round(LEFT + 10 + share * (WIDTH - LEFT - RIGHT - 20), 1)

    def up(value: float) -> float:
        share = (value - least + room) / (most - least + 2 * room)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    spots = [
        Spot(
            number=place,
            x=across(costs[each.arm]),
            y=up(each.difference),
            low=up(each.low if math.isfinite(each.low) else each.difference),
            high=up(each.high if math.isfinite(each.high) else each.difference),
            verdict=each.verdict,
            title=f"{place}: {words.name(each.arm)}, {words.signed(each.difference, digits)}, choosing took "
            f"{wording.seconds(seconds[each.arm])}",
        )
        for place, each in enumerate(here, 1)
    ]
    ticks = [charts.Tick(across(value), _said(value, full)) for value in _ticks(min(paid), 10**high)]
    if min(costs.values()) <= 0:
        ticks = [charts.Tick(across(0), "none"), *(tick for tick in ticks if tick.at > across(0) + 44)]
    return {
        "label": f"Difference to random by what choosing costs, {wording.plural(len(here), 'arm')}; the table beside "
        "it says the same",
        "x_title": "choosing, of one tuning on everything (log scale)" if full else "seconds of choosing (log scale)",
        "y_title": "difference to random, up is better",
        "x_ticks": ticks,
        "y_ticks": [
            charts.Tick(up(value), wording.number(value).replace("-", "−"))
            for value in charts.nice(least - room, most + room, 5)
        ],
        "zero": up(0.0),
        "spots": _apart(spots),
    }


def _ticks(low: float, high: float) -> list[float]:
    """Round values for a log scale; even ones where it is short."""
    found = log_ticks(low, high)
    return found if len(found) > 2 else charts.nice(low, high, 4)


def _apart(spots: Sequence[Spot]) -> list[Spot]:
    """The spots, moved to the right where they would cover each other."""
    placed: list[Spot] = []
    for spot in spots:
        moved = spot
        while any(abs(moved.x - each.x) < CLOSE and abs(moved.y - each.y) < CLOSE for each in placed):
            moved = replace(moved, x=round(moved.x + 4, 1))
        placed.append(moved)
    return placed


def _said(value: float, full: float) -> str:
    return (f"{100 * value:.3g}%" if value < 10 else f"{value:.3g}×") if full else f"{value:.3g}"


def bill(files: ComparisonFiles) -> dict[str, Any]:
    """What was predicted and what was measured: by step, by arm and budget, and the stages of the last command."""
    said = table_of(files.said.get("bill"))
    measured, predicted = table_of(said.get("measured")), table_of(said.get("predicted"))
    spent, foretold = (_by_arm(tables_of(each.get("stages"))) for each in (measured, predicted))
    steps = [_step(files, name, title, predicted) for name, title in STEPS] if files.runs else []
    arms = [_arm(key, spent.get(key, {}), foretold.get(key, {})) for key in dict.fromkeys([*spent, *foretold])]
    return {
        "steps": steps,
        "seconds": wording.seconds(sum(step["measured"] for step in steps)),
        "predicted": _time(number(predicted.get("seconds"))),
        "tokens": wording.count(sum(step["tokens"] for step in steps)),
        "arms": arms,
        "money": _money(files),
        "took": _time(number(files.section("run").get("seconds"))),
    }


def _money(files: ComparisonFiles) -> str:
    """What judges took, in words."""
    money, tokens = (
        sum(each for run in files.runs if math.isfinite(each := number(run.get(name))))
        for name in ("money", "judge_tokens")
    )
    if not money and not tokens:
        return "No judge was asked."
    price = f"{money:,.2f} at the prices given" if money else "for which no price was given"
    return f"Judges read and wrote {wording.count(tokens)} tokens, {price}."


def _by_arm(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(text(each.get("arm")), text(each.get("budget"))): each for each in lines}


def _step(files: ComparisonFiles, name: str, title: str, predicted: Mapping[str, Any]) -> dict[str, Any]:
    """A step over all runs, each counted as if it stood alone."""
    sums = {
        what: sum(each for run in files.runs if math.isfinite(each := number(run.get(f"{name}_{what}"))))
        for what in ("seconds", "tokens", "tokens_back")
    }
    return {
        "title": title,
        "predicted": _time(number(predicted.get(f"{name}_seconds"))),
        "measured": sums["seconds"],
        "said": wording.seconds(sums["seconds"]),
        "tokens": sums["tokens"],
        "back": sums["tokens"] if name == "tune" else sums["tokens_back"],
    }


def _arm(key: tuple[str, str], spent: Mapping[str, Any], foretold: Mapping[str, Any]) -> dict[str, Any]:
    """A run of an arm, on average over its seeds: predicted and measured, step by step."""
    cells = []
    for step, _ in STEPS:
        cells.append(_time(number(foretold.get(f"{step}_seconds"))))
        cells.append(_time(number(spent.get(f"{step}_seconds"))))
    tokens = [number(spent.get(f"{step}_tokens")) for step, _ in STEPS]
    known = [each for each in tokens if math.isfinite(each)]
    return {
        "arm": words.name(key[0]),
        "budget": words.name(key[1]),
        "runs": wording.number(number(spent.get("runs"))),
        "cells": cells,
        "tokens": wording.count(sum(known)) if known else "–",
    }


def _time(value: float) -> str:
    return wording.seconds(value) if math.isfinite(value) else "–"
