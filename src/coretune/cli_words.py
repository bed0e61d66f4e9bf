"""Flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Pools = Annotated[
    list[str],
    Parameter(help="A file, a folder, a glob, several of them, `-` for standard input, or a hub dataset id."),
]
Columns = Annotated[
    list[str] | None,
    Parameter(
        help="Which columns hold what, as FIELD=COLUMN: prompt=Question,completion='Best Answer'.", negative_iterable=""
    ),
]
Template = Annotated[
    str | None,
    Parameter(
        help="A chat template for a model that has none: a Jinja file, or `plain` for prompt, blank line, answer."
    ),
]
Store = Annotated[Path | None, Parameter(help="Where measurements are kept; by default the user's cache.")]
