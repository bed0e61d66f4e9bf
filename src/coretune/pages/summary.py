"""The run in numbers and in a few plain sentences made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.pages import wording
from coretune.pages.comparison import Comparison
from coretune.pages.run_files import RunFiles

FLAT = 160  # characters of one value from run.toml


@dataclass(frozen=True)
class Counts:
    """What became of the records. `given = rejected + rows`, `rows = excluded + candidates`."""

    given: int
    rejected: int
    rows: int
    excluded: int
    candidates: int
    chosen: int
    duplicates: int
    length: int  # the pool's answers together, in the run's unit
    chosen_length: int


@dataclass(frozen=True)
class Cost:
    """Stages added up; `peak` is the largest of them."""

    stages: Sequence[Mapping[str, Any]]
    seconds: float
    bytes: int
    peak: int


def count(files: RunFiles) -> Counts:
    """Counts from the table itself; what is rejected from `rejected.jsonl`, or `run.toml` where that is absent."""
    rejected = files.rejected.total or int(files.section("pool").get("rejected", 0))
    excluded = int((files.excluded & ~files.selected).sum())
    return Counts(
        given=len(files) + rejected,
        rejected=rejected,
        rows=len(files),
        excluded=excluded,
        candidates=len(files) - excluded,
        chosen=int(files.selected.sum()),
        duplicates=int(np.isfinite(files.numbers("duplicate_of")).sum()),
        length=int(files.lengths.sum()),
        chosen_length=int(files.lengths[files.selected].sum()),
    )


def cost(files: RunFiles) -> Cost:
    """The stages of a run and their sums."""
    return cost_of(files.stages)


def cost_of(lines: Sequence[Mapping[str, Any]]) -> Cost:
    """Stages and their sums, absent numbers as 0."""
    names = ("seconds", "rows", "stored", "bytes", "peak_memory_bytes")
    stages: list[dict[str, Any]] = [
        {
            "stage": wording.visible(str(stage.get("stage", "")), 80),
            **{name: stage.get(name) or 0 for name in names},
            "counts": [
                f"{wording.count(value)} {wording.visible(key, 60)}"
                for key, value in (stage.get("counts") or {}).items()
                if value
            ],
        }
        for stage in lines
    ]
    sums = {name: sum(stage[name] for stage in stages) for name in names}
    peak = max((stage["peak_memory_bytes"] for stage in stages), default=0)
    return Cost(stages, sums["seconds"], sums["bytes"], peak)


def choice(files: RunFiles, counts: Counts, comparisons: Sequence[Comparison]) -> list[str]:
    """Sentences on what was chosen and how it differs from the pool."""
    said = [_amount(files, counts), *_length(files, counts)]
    return said + [text for each in comparisons if each.kind != "length" for text in _difference(each)]


def price(counts: Counts, costs: Cost) -> list[str]:
    """Sentences on what was lost on the way and what it cost."""
    said = []
    lost = [(counts.rejected, "rejected as unusable"), (counts.excluded, "excluded from the choice")]
    parts = [f"{wording.count(number)} {'was' if number == 1 else 'were'} {what}" for number, what in lost if number]
    if parts:
        said.append(f"Of {wording.plural(counts.given, 'record')} given, {wording.listed(parts)}.")
    if costs.stages:
        longest = max(costs.stages, key=lambda stage: stage["seconds"])
        most = f"{wording.seconds(longest['seconds'])} of it for {longest['stage']}"
        said.append(f"The stages took {wording.seconds(costs.seconds)}, {most}.")
    return said


def _amount(files: RunFiles, counts: Counts) -> str:
    method = wording.visible(str(files.section("run").get("method", "the method")), 80)
    text = f"{method} chose {wording.count(counts.chosen)} of {wording.plural(counts.rows, 'row')}: "
    text += f"{wording.share(counts.chosen, counts.rows)} of the pool"
    if counts.candidates != counts.rows:
        of = f"{wording.share(counts.chosen, counts.candidates)} of the {wording.count(counts.candidates)} rows"
        text += f", {of} that could be chosen"
    return text + "."


def _length(files: RunFiles, counts: Counts) -> list[str]:
    if not counts.length:
        return []
    unit = f"answer {files.unit}"
    said = [
        f"They hold {wording.count(counts.chosen_length)} of {wording.count(counts.length)} {unit} "
        f"({wording.share(counts.chosen_length, counts.length)})"
    ]
    asked = files.section("budget").get("tokens")
    if isinstance(asked, int | float) and asked > 0:
        off = counts.chosen_length - asked
        said[0] += (
            f"; {wording.count(asked)} were asked, so the choice is off by {wording.count(off)} ({off / asked:+.2%})"
        )
    if counts.chosen:
        medians = [float(np.median(part)) for part in (files.lengths[files.selected], files.lengths)]
        word = "longer than" if medians[0] > medians[1] else "shorter than" if medians[0] < medians[1] else "as long as"
        said.append(
            f"A typical chosen answer is {word} the pool’s: {wording.number(medians[0])} {files.unit} "
            f"against {wording.number(medians[1])} (medians)"
        )
    return [text + "." for text in said]


def _difference(comparison: Comparison) -> list[str]:
    """Whether the chosen have the pool's mixture of these groups, and where they differ most."""
    total = len(comparison.groups)
    if total < 2:
        return []
    kind = comparison.kind
    text = f"{wording.count(comparison.represented)} of {wording.plural(total, kind)} are represented among the chosen"
    most, least = comparison.over(1), comparison.under(1)
    found = [f"{_named(kind, group.name)} is {group.ratio:.1f} times as frequent as in the pool" for group in most]
    for group in least:
        times = f"only {group.ratio:.2f} times" + ("" if found else " as frequent as in the pool")
        found.append(f"{_named(kind, group.name)} is {times if group.chosen else 'absent'}")
    if not found:
        return [f"{text}, none more or less often than chance would bring about."]
    return [f"{text}; {', '.join(found)}."]


def _named(kind: str, name: str) -> str:
    return name if kind == "cell" else f"“{wording.visible(name, 60)}”"


def flattened(table: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """A table of `run.toml` as names and values in words; inner tables by dotted names, long lists cut."""
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        name = f"{before}{wording.visible(str(key), 80)}"
        if isinstance(value, Mapping):
            rows += flattened(value, f"{name}.") if value else [(name, "none")]
        else:
            rows.append((name, _in_words(value)))
    return rows


def _in_words(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | list):
        return wording.visible(str(value).lower() if isinstance(value, bool) else str(value), FLAT) or "(empty)"
    if not isinstance(value, list):
        return wording.number(value) if isinstance(value, float) else str(value)
    text = ", ".join(_in_words(item) for item in value) or "none"
    return text if len(text) <= FLAT else f"{text[:FLAT].rsplit(', ', 1)[0]}, … ({len(value)} values)"
