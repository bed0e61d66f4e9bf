"""Chosen against pool as tables: by source, language, length and cell, each with what to read off it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from coretune.pages import charts, wording
from coretune.pages.comparison import Comparison, compare, length_bins, shorten
from coretune.pages.run_files import RunFiles

GROUPS, CELLS, EXTREMES = 14, 12, 6  # rows of a table of groups; cells shown in full; cells at each end otherwise


def comparisons(files: RunFiles) -> list[Comparison]:
    """Chosen against pool: by source, by language, by length, by cell."""
    made = [
        compare(kind, *files.groups(name), files.selected)
        for kind, name in (("source", "source"), ("language", "lang"))
    ]
    codes, names = length_bins(files.lengths)
    made.append(compare("length", codes, names, files.selected, by_size=False))
    numbered = [f"cell {i}" for i in range(int(files.cells.max(initial=-1)) + 1)]
    return [*made, compare("cell", files.cells, numbered, files.selected)]


def table(files: RunFiles, made: Comparison) -> dict[str, Any]:
    """A comparison as the template takes it, with what to read off it."""
    short = shorten(made, GROUPS)
    alone = len(made.groups) == 1
    groups = [] if alone else [replace(group, name=wording.visible(group.name, 60)) for group in short.groups]
    head = {"source": "source", "language": "language or script", "length": f"answer {files.unit}"}[made.kind]
    return {
        "title": {"source": "By source", "language": "By language", "length": "By answer length"}[made.kind],
        "head": head,
        "groups": groups,
        "top": max((max(group.pool_share, group.chosen_share) for group in groups), default=0),
        "caption": _table_caption(files, made),
    }


def _table_caption(files: RunFiles, made: Comparison) -> str:
    if len(made.groups) == 1:
        name = f"“{wording.visible(made.groups[0].name, 60)}”"
        return f"Pool and chosen are alike: every row is {name if made.kind != 'length' else name + ' ' + files.unit}."
    if not made.groups:
        where = {"source": "a source", "language": "a language"}.get(made.kind, "a length")
        return f"No row of this pool has {where}, so there is nothing to compare."
    if made.kind == "length":
        low, middle, high = (_quartiles(files.lengths[mask]) for mask in (slice(None), files.selected, ~files.selected))
        return (
            "Each bin holds about a tenth of the pool (fewer bins where many answers are equally long), so a choice "
            "that ignores length has level bars. Quartiles: "
            f"pool {low}, chosen {middle}, left out {high}."
        )
    text = f"{made.represented} of {wording.plural(len(made.groups), made.kind)} represented among the chosen."
    if made.kind == "language":
        text += " The data’s own label where there is one, otherwise the script that most letters belong to."
    if made.left_out:
        text += f" {wording.plural(made.left_out, 'row has', 'rows have')} none and are left out here."
    return text


def _quartiles(lengths: np.ndarray) -> str:
    if not len(lengths):
        return "–"
    return " / ".join(wording.number(float(value)) for value in np.quantile(lengths, (0.25, 0.5, 0.75)))


def cells(files: RunFiles, made: Comparison) -> dict[str, Any]:
    """Cells: all of them where few, otherwise those that differ most from chance, beside a chart of all."""
    k = sum(group.chosen for group in made.groups)
    few = len(made.groups) <= CELLS
    shown = list(made.groups) if few else [*made.over(EXTREMES), *made.under(EXTREMES)[::-1]]
    empty = len(made.groups) - made.represented
    caption = f"{made.represented} of {wording.plural(len(made.groups), 'cell')} represented"
    caption += f"; {empty} gave no row." if empty else "."
    if not few:
        most = "The cells furthest above and below chance are listed. " if shown else "No cell is beyond chance. "
        caption = most + caption
    if made.left_out:
        caption += f" {wording.plural(made.left_out, 'row is', 'rows are')} in no cell."
    return {
        "groups": shown,
        "top": max((max(group.pool_share, group.chosen_share) for group in shown), default=0),
        "chart": None if few else charts.funnel(made),
        "caption": caption,
        "number": charts.silhouette(files.section("notes").get("partition", {})),
        "number_caption": (
            "How the number of cells was chosen: the silhouette, less its value on data without structure. A clear "
            "peak means that the pool falls into about so many groups; a flat curve, that the number hardly matters."
        ),
        "chart_caption": (
            f"Every dot is a cell. The dashed line is the share chosen overall, {wording.share(k, made.total)}; the "
            "grey band is where 99 of 100 cells would lie if rows were drawn without regard to cells. All on the "
            "line: proportional; far above or below: the method prefers or avoids these cells."
        ),
    }
