"""Flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
Model = Annotated[str | None, Parameter(help="The model to be tuned: its template counts answer tokens.")]
SelectModel = Annotated[
    str | None, Parameter(help="Another, smaller model to choose by, for methods that run the model to be tuned.")
]
Embedder = Annotated[str | None, Parameter(help="The encoder, for methods that embed.")]
Target = Annotated[str | None, Parameter(help="A file of examples of the task, for targeted methods.")]
Format = Annotated[
    Literal["messages", "alpaca", "sharegpt", "parquet"] | None,
    Parameter(help="Convert the chosen records; by default they come out as they came in."),
]
Overwrite = Annotated[bool, Parameter(help="Replace another run's folder.", negative="")]
Template = Annotated[
    str | None,
    Parameter(
        help="A chat template for a model that has none: a Jinja file, or `plain` for prompt, blank line, answer."
    ),
]
Store = Annotated[Path | None, Parameter(help="Where measurements are kept; by default the user's cache.")]

Scores = Annotated[
    list[str] | None,
    Parameter(help="A file of scores joined by id, FILE or FILE:COLUMN: a column to choose by.", negative_iterable=""),
]
Decontaminate = Annotated[
    list[str] | None,
    Parameter(help="Evaluation files: choose no row that overlaps with their items.", negative_iterable=""),
]
HeldOut = Annotated[
    str | None,
    Parameter(
        help="A file of examples: the loss on them is read of every round's model. Give it to --decontaminate too, so "
        "that none of it is chosen."
    ),
]
Workers = Annotated[
    int | None, Parameter(help="How many workers measure at once; by default one a GPU, else one a core.")
]
