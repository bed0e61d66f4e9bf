"""The verdict in words and large numbers: what was found, how surely, and how to say numbers with their error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from coretune.pages import wording
from coretune.pages.verdict_files import ComparisonFiles
from coretune.pages.verdict_records import RANDOM, Contrast, text

SAID = {"better": "better", "worse": "worse", "no_difference": "no difference", "cannot_tell": "cannot tell"}
KINDS = {"method": "method", "targeted": "targeted", "control": "control", "own model": "own model"}
NAME = 60  # characters of an arm's name, or a task's
MOST_DIGITS = 6
MOST_OPEN = 8  # findings that stand at the top one by one


def name(foreign: str) -> str:
    """A name of an arm, a task or a budget as the page shows it."""
    return wording.visible(foreign, NAME) or "–"


def digits_for(errors: Sequence[float]) -> int:
    """Digits after the point that say the median of these errors with two figures."""
    known = [abs(each) for each in errors if math.isfinite(each) and each]
    if not known:
        return 3
    return int(np.clip(1 - math.floor(math.log10(float(np.median(known)))), 0, MOST_DIGITS))


def digits_of(contrasts: Sequence[Contrast]) -> int:
    """Digits for contrasts of one task: their typical error has two figures."""
    return digits_for([(each.high - each.low) / 2 for each in contrasts] or [math.nan])


def plain(value: float, digits: int) -> str:
    """A number with so many digits and a true minus sign; a dash where it is none."""
    if not math.isfinite(value):
        return "–"
    made = f"{value:,.{digits}f}"
    return made.lstrip("-") if not float(made.replace(",", "")) else made.replace("-", "−")


def signed(value: float, digits: int) -> str:
    """A difference with its sign."""
    made = plain(value, digits)
    return f"+{made}" if math.isfinite(value) and not made.startswith("−") and float(made.replace(",", "")) else made


def interval(low: float, high: float, digits: int) -> str:
    """An interval as `−0.01 to +0.03`; `unknown` where it has no ends."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unknown"
    return f"{signed(low, digits)} to {signed(high, digits)}"


def p_value(value: float) -> str:
    """A p-value: two figures, and `< 0.0001` below that."""
    if not math.isfinite(value):
        return "–"
    return "<\u00a00.0001" if value < 1e-4 else f"{value:.2g}" if value < 0.995 else "1"


def of(unit: str) -> str:
    """` nats a token`, or nothing."""
    return f" {wording.visible(unit, 40)}" if unit else ""


def findings(files: ComparisonFiles) -> list[dict[str, Any]]:
    """Each arm that the verdict is about: its verdict in a word, in words, and what would settle it."""
    digits = digits_of(files.declared)
    return [
        {
            "arm": name(each.arm),
            "verdict": each.verdict,
            "said": SAID[each.verdict],
            "targeted": each.kind == "targeted",
            "words": wording.visible(each.words, 400).removeprefix(f"{SAID[each.verdict]}: ")
            or _composed(each, digits),
            "next": wording.visible(each.next, 400),
            "unequal": wording.visible(each.unequal, 400),
        }
        for each in files.declared
    ]


def folded(found: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The findings that stand open, and those that are folded away: of many, those that tell no arm from random."""
    if len(found) <= MOST_OPEN:
        return found, []
    told = [each for each in found if each["verdict"] in ("better", "worse")]
    return told, [each for each in found if each["verdict"] not in ("better", "worse")]


def _composed(each: Contrast, digits: int) -> str:
    """A contrast in words, where the file has none."""
    return f"{signed(each.difference, digits)}{of(each.unit)}, interval {interval(each.low, each.high, digits)}"


def tiles(files: ComparisonFiles) -> list[dict[str, Any]]:
    """The large numbers at the top: task, budget, margin, seeds, and what could have been found."""
    primary, declared = files.primary, files.declared
    way = "higher is better" if primary.higher_is_better else "lower is better"
    return [
        {
            "name": "primary task",
            "value": name(primary.task),
            "long": len(name(primary.task)) > 10,
            "lines": [f"{name(primary.metric)}{', ' if primary.unit else ''}{of(primary.unit).strip()}", way],
        },
        {"name": "budget", "value": name(primary.budget), "long": len(primary.budget) > 9, "lines": _amounts(files)},
        _margin(files),
        {
            "name": "seeds",
            "value": _range([float(each.seeds) for each in declared], 0),
            "long": False,
            "lines": [
                f"{_range([float(each.random_seeds) for each in declared], 0)} of random",
                f"{_range([float(each.items) for each in declared], 0)} items",
            ],
        },
        _detectable(files),
    ]


def _amounts(files: ComparisonFiles) -> list[str]:
    """What the budget came to, of random's runs."""
    here = [run for run in files.runs if (run.get("arm"), run.get("budget")) == (RANDOM, files.primary.budget)]
    lines = [f"equal {wording.visible(files.primary.equal, 40)} for all"]
    if here:
        tokens, rows = (float(np.mean([run.get(each) or 0 for run in here])) for each in ("answer_tokens", "rows"))
        lines.append(f"random: {wording.count(tokens)} answer tokens, {wording.plural(round(rows), 'row')}")
    return lines


def _margin(files: ComparisonFiles) -> dict[str, Any]:
    margin, asked = files.primary.margin, text(files.section("primary").get("margin"))
    lines = [of(files.primary.unit).strip()] if files.primary.unit else []
    if asked and asked != f"{margin:g}":
        lines.append(f"declared as {wording.visible(asked, 30)} of random’s value" if "%" in asked else asked)
    return {
        "name": "margin",
        "value": f"±{margin:.3g}" if math.isfinite(margin) else "none",
        "long": False,
        "lines": [*lines, "what does not matter"],
    }


def _detectable(files: ComparisonFiles) -> dict[str, Any]:
    """What the design could have found, held against the margin."""
    found = [each.smallest_detectable for each in files.declared]
    known, margin = [each for each in found if math.isfinite(each)], files.primary.margin
    line = "unknown: too few seeds"
    if known and math.isfinite(margin):
        line = (
            "all below the margin"
            if max(known) <= margin
            else "all above the margin: a difference of its size may be missed"
        )
        if min(known) <= margin < max(known):
            above = sum(each > margin for each in known)
            line = f"above the margin for {above} of {wording.plural(len(known), 'method')}"
    return {
        "name": "smallest detectable difference",
        "value": _range(known, digits_for(known)) if known else "–",
        "long": True,
        "lines": ["at 80% power", line],
    }


def _range(values: Sequence[float], digits: int) -> str:
    """`3`, or `3–5` where they differ."""
    known = [each for each in values if math.isfinite(each)]
    if not known:
        return "–"
    ends = [plain(each, digits) for each in (min(known), max(known))]
    return ends[0] if ends[0] == ends[1] else "–".join(ends)


def limits(files: ComparisonFiles) -> list[str]:
    """What the verdict does not speak for."""
    said = files.said.get("does_not_speak_for")
    return [wording.visible(text(each), 300) for each in said] if isinstance(said, list) else []


def failures(files: ComparisonFiles) -> list[str]:
    """Arms that could not be run, and items that were left out, in words."""
    failed, left = files.said.get("failed"), files.said.get("left_out_items")
    lines = [f"{name(arm)} could not be run: {wording.visible(text(why), 300)}" for arm, why in _items(failed)]
    return lines + [
        f"{name(task)}: {wording.plural(int(count), 'item')} without a score in some run "
        f"{'was' if count == 1 else 'were'} left out for all"
        for task, count in _items(left)
        if isinstance(count, int | float) and math.isfinite(count) and count
    ]


def _items(said: Any) -> list[tuple[str, Any]]:
    return list(said.items()) if isinstance(said, dict) else []
