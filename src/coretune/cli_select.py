"""The commands that choose: `coretune select`, whose flags depend on the method, and `coretune run`, which repeats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from coretune import terminal
from coretune.cli_words import (
    Columns,
    Decontaminate,
    Embedder,
    Format,
    HeldOut,
    Model,
    Overwrite,
    Pools,
    Scores,
    SelectModel,
    Store,
    Target,
    Template,
    Workers,
)  # fmt: skip
from coretune.command_options import asked_method, flag_of, options_class, options_of, parse_columns, template_text
from coretune.runs import Request, carry_out
from coretune.terminal import say

SELECT_EXAMPLES = """Examples:

coretune select data.jsonl --method random --budget 5% --out runs/random

coretune select data.jsonl --method ltd --ltd.task category=closed_qa --budget 1% --out runs/ltd

coretune select data/*.parquet --method kmq --kmq.quality length --kmq.draw linear --budget 200k-tokens \
--model smollm2-135m --out runs/kmq

The options of one method: coretune select --method NAME --help"""


def select_command(tokens: Sequence[str]) -> Callable[..., None]:
    """`coretune select` with the options of the method that is asked for: read first, then the signature is built."""
    name = asked_method(tokens)

    def select(  # noqa: PLR0913 - the flags of a command
        pool: Pools,
        /,
        *,
        method: Annotated[str, Parameter(help="The method, by name (coretune methods), or package.module:Class.")],
        budget: Annotated[str, Parameter(help="5% or 1000 rows; 5%-tokens or 200k-tokens answer tokens.")],
        out: Annotated[Path, Parameter(help="The run folder to make.")],
        model: Model = None,
        select_model: SelectModel = None,
        template: Template = None,
        embedder: Embedder = None,
        target: Target = None,
        seed: Annotated[int, Parameter(help="Everything random follows from it.")] = 0,
        columns: Columns = None,
        scores: Scores = None,
        dedup: Annotated[bool, Parameter(help="Choose no exact copy of an earlier row.", negative="")] = False,
        decontaminate: Decontaminate = None,
        held_out: HeldOut = None,
        format: Format = None,
        workers: Workers = None,
        store: Store = None,
        overwrite: Overwrite = False,
        options: Any = None,
    ) -> None:
        """Choose the part of a pool that a method finds worth tuning on, within a budget, and say why."""
        template = template_text(template)
        given = {
            "model": model,
            "select-model": select_model,
            "template": template,
            "embedder": embedder,
            "target": target,
        }
        request = Request(
            inputs=tuple(pool),
            method=method,
            budget=budget,
            options=options_of(method, options, given),
            seed=seed,
            model=model,
            template=template,
            columns=parse_columns(columns),
            scores=tuple(scores or ()),
            dedup=dedup,
            decontaminate=tuple(decontaminate or ()),
            format=format,
            held_out=held_out,
        )
        _carry_out(request, out, workers, store, overwrite)

    kind = options_class(name) if name else None
    parameter = Parameter(parse=False)
    if name is not None and kind is not None:
        parameter = Parameter(name=f"--{flag_of(name)}", group=f"Options of {name}")
    select.__annotations__["options"] = Annotated[kind | None if kind else Any, parameter]
    return select


def _carry_out(request: Request, out: Path, workers: int | None, store: Path | None, overwrite: bool) -> None:
    """Carry a request out, with progress, and say what came out."""
    from coretune.engines import engine_for
    from coretune.lab import Lab

    with terminal.Watch().shown() as watch, engine_for(workers) as engine:
        lab = Lab(store, map=engine, progress=watch)
        done = carry_out(request, out, lab, overwrite=overwrite)
    if done.outcome is None:
        say(f"{out} holds this run already, complete; nothing was done. Its report: {out / 'report.html'}")
        return
    terminal.show_stages(lab.stages)
    say()
    terminal.show_outcome(done)


def run(
    file: Annotated[Path, Parameter(help="The run.toml of a run folder.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="The run folder to make.")],
    workers: Workers = None,
    store: Store = None,
    overwrite: Overwrite = False,
) -> None:
    """Repeat a run from its run.toml: the same pool, method, options, budget and seed."""
    _carry_out(Request.read(file), out, workers, store, overwrite)
