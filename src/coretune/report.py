"""The report: one self-contained page that says what a run chose, how that differs from the pool, and what it cost.

It reads the files of a run folder and nothing else, and writes `report.html` there. The page loads nothing: styles,
script and data stand inside it, a content policy names the two by hash and forbids everything else. Record text is
escaped by the template; the map's data pass through `script_json`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coretune.atomic import replacing
from coretune.errors import FolderError
from coretune.pages import charts, examples, fates, points, spreads, summary, tables, wording
from coretune.pages.rounds import rounds_facts
from coretune.pages.run_files import RunFiles, read_run
from coretune.pages.tuning import read_tuning, tuning_facts
from coretune.pages.verdict import verdict_facts
from coretune.pages.verdict_files import COMPARE, read_comparison
from coretune.run_folder import TUNING

if TYPE_CHECKING:
    from jinja2 import Template

REPORT = "report.html"
SECTIONS = (
    *(("records", "Records"), ("cost", "Cost"), ("rounds", "Rounds"), ("against", "Chosen against pool")),
    *(("scores", "Scores"), ("map", "Map"), ("examples", "Examples"), ("repeat", "How to repeat")),
)


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a finished run, tuning or comparison, in one step, and return its path.

    The same folder gives the same page, byte for byte. Raises `FolderError` where the folder is no finished one or
    cannot be written to.
    """
    if (folder / COMPARE).is_file():
        made = verdict_facts(read_comparison(folder))
        page = render(made, "verdict.html.jinja", "curves.css", "verdict.css", script="verdict.js")
    elif (folder / TUNING).is_file():
        page = render(tuning_facts(read_tuning(folder)), "tuning.html.jinja")
    else:
        made = facts(read_run(folder))
        page = render(made, "report.html.jinja", *(("curves.css", "rounds.css") if made["rounds"] else ()))
    path = folder / REPORT
    try:
        with replacing(path) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise FolderError(f"{path} cannot be written: {error}; make room or give access, and ask again") from error
    return path


def render(
    page: Mapping[str, Any], template: str = "report.html.jinja", *styles: str, script: str = "report.js"
) -> str:
    """A page as HTML, with the policy that allows its own style and script and nothing else.

    `styles` are files of a page's own, after the one that all pages share; `script` is its one script.
    """
    style, script = "".join(map(_own, ("report.css", *styles))), _own(script)
    policy = (
        f"default-src 'none'; style-src {_named_by_hash(style)}; script-src {_named_by_hash(script)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return _template(template).render(page, style=style, script=script, policy=policy)


def script_json(value: Any) -> str:
    """JSON that may stand inside a `<script>`: nothing in it can end the element, open a comment or end a line."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def facts(files: RunFiles) -> dict[str, Any]:
    """Everything that the page says of a run, as the template takes it."""
    rng = np.random.default_rng(0)
    counts, costs = summary.count(files), summary.cost(files)
    groups = tables.comparisons(files)
    drawn = points.pack_map(files, rng)
    rounds = rounds_facts(files)
    return {
        "run": _run(files),
        "sections": [each for each in SECTIONS if each[0] != "rounds" or rounds],
        "rounds": rounds,
        "counts": counts,
        "tiles": _tiles(files, counts, costs),
        "paragraphs": [
            " ".join(said) for said in (summary.choice(files, counts, groups), summary.price(counts, costs))
        ],
        "fates": fates.fates(files, counts),
        "duplicates": fates.duplicates(files, counts),
        "rejected": fates.rejected_records(files.rejected),
        "cost": costs,
        "comparisons": [tables.table(files, each) for each in groups if each.kind != "cell"],
        "cells": next((tables.cells(files, each) for each in groups if each.kind == "cell" and each.groups), None),
        **spreads.spreads(files),
        "map": drawn and {"drawn": drawn.drawn, "caption": _map_caption(drawn)},
        "map_data": script_json(drawn.data) if drawn else "",
        "examples": [
            (name, list(rows)) for name, rows in groupby(examples.pick_examples(files, rng), lambda each: each.group)
        ],
        "records": files.records,
        "tables": _tables(files),
        **{name: getattr(charts, name.upper()) for name in ("width", "height", "left", "right", "bottom")},
    }


def _run(files: RunFiles) -> dict[str, Any]:
    """The title's facts."""
    run, asked = files.section("run"), files.section("budget").get("asked", "")
    said = {name: wording.visible(str(run.get(name) or ""), 1000) for name in ("title", "paper", "command", "coretune")}
    meta = [
        ("seed", run.get("seed")),
        ("started", str(run.get("started") or "").replace("T", " ").replace("+00:00", " UTC") or None),
        ("took", wording.seconds(run["seconds"]) if isinstance(run.get("seconds"), int | float) else None),
        ("folder", files.name),
    ]
    return {
        **said,
        "method": wording.visible(str(run.get("method", "a run")), 80),
        "asked": wording.visible(str(asked), 40),
        "quality": wording.visible(str(files.section("options").get("quality", "")), 60),
        "folder": wording.visible(files.name, 120),
        "meta": [f"{name} {wording.visible(str(value), 200)}" for name, value in meta if value is not None],
    }


def _tiles(files: RunFiles, counts: summary.Counts, costs: summary.Cost) -> list[dict[str, Any]]:
    """The large numbers at the top."""
    asked = files.section("budget").get("asked")
    tokens = files.section("budget").get("tokens")
    candidates = wording.plural(counts.candidates, "candidate")
    lines = [f"of {wording.count(counts.length)} ({wording.share(counts.chosen_length, counts.length)})"]
    if isinstance(tokens, int | float):
        lines.append(f"{wording.count(tokens)} asked")
    tiles: list[dict[str, Any]] = [
        {
            "name": "rows chosen",
            "value": wording.count(counts.chosen),
            "lines": [f"asked: {wording.visible(str(asked), 40)}"] if asked else [],
        },
        {
            "name": "share of the pool",
            "value": wording.share(counts.chosen, counts.rows),
            "lines": [
                f"of {wording.plural(counts.rows, 'row')}",
                f"{wording.share(counts.chosen, counts.candidates)} of {candidates}",
            ],
        },
        {"name": f"answer {files.unit}", "value": wording.count(counts.chosen_length), "lines": lines},
    ]
    if costs.stages:
        longest = max(costs.stages, key=lambda stage: stage["seconds"])
        lines = [f"{wording.seconds(longest['seconds'])} {longest['stage']}", "the longest stage"]
        tiles.append({"name": "time, all stages", "value": wording.seconds(costs.seconds), "lines": lines})
    return tiles


def _map_caption(drawn: points.Map) -> str:
    text = (
        "Each point is a row; rows that lie together have similar features (t-SNE). Distances between far groups, and "
        "directions, mean nothing. Chosen rows spread like the pool where the method covers it, and crowd where it "
        "prefers something. Point at a row to read it; arrow keys go through the picks, + and − zoom, drag to move."
    )
    if drawn.drawn < drawn.placed:
        text += (
            f" Drawn are {wording.count(drawn.drawn)} of {wording.count(drawn.placed)} rows: "
            f"{'a sample of the chosen' if drawn.left_out else 'all the chosen'}, and a uniform sample of the others, "
            "which are therefore denser in truth."
        )
    if drawn.missing:
        rows = wording.plural(drawn.missing, "row has", "rows have")
        text += f" {rows} no place: excluded before the feature was measured."
    return text + f" Texts of rows left out are cut to {drawn.excerpt} characters to keep this page small."


def _tables(files: RunFiles) -> list[tuple[str, Sequence[tuple[str, str]]]]:
    """What `run.toml` says, table by table."""
    titles = {
        "options": "Options",
        "budget": "Budget",
        "pool": "Pool",
        "notes": "Notes of the method",
        "models": "Models",
    }
    titles |= {"features": "Features", "versions": "Versions"}
    made = [(title, summary.flattened(files.section(name))) for name, title in titles.items()]
    return [(title, rows) for title, rows in made if rows]


def _own(name: str) -> str:
    """A file of the page's own."""
    return resources.files("coretune.pages").joinpath(name).read_text(encoding="utf-8")


def _named_by_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _template(name: str) -> Template:
    """A page's template: everything is escaped, an unknown name is an error."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_own),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for each in ("count", "share", "seconds", "size"):
        environment.filters[each] = getattr(wording, each)
    return environment.get_template(name)
