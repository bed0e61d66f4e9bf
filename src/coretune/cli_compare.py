"""The command `coretune compare`: methods x budgets x seeds, tuned and read alike, down to a verdict."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from coretune import methods as known_methods
from coretune import terminal
from coretune.cli_words import Columns, Embedder, Overwrite, Store, Target, Template, Workers
from coretune.command_options import parse_columns, template_text
from coretune.errors import CoretuneError
from coretune.terminal import say

COMPARE_EXAMPLES = """Examples:

coretune compare data.jsonl --model smollm2-135m --methods 'kmq?quality=low_loss',tagcos --budgets 5%-tokens \\
--seeds 5 --margin 1% --embedder minilm --out compared

coretune compare data.jsonl --model MODEL --methods less --target dev --tasks heldout_loss:holdout,gsm8k.toml \\
--primary-task gsm8k.toml --margin 0.02 --out compared

coretune compare plan.toml --out compared

The primary task, its budget and the margin are declared before anything runs and cannot be changed afterwards. \
Random, the untuned model and the other controls are always in; random has twice the seeds. Every run chooses from its \
own part of the pool. After a Ctrl-C or a kill the same command goes on; with more methods, budgets, seeds or tasks it \
runs only what is new. The folder holds verdict.json, report.html and every run down to its items."""


def compare(  # noqa: PLR0913 - the flags of a command
    pool: Annotated[list[str], Parameter(help="Files of the pool, or one TOML file that holds the whole plan.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="The folder of the comparison; one that exists goes on.")],
    model: Annotated[str | None, Parameter(help="The model to tune: a hub id, a folder, smollm2-135m.")] = None,
    methods: Annotated[
        list[str] | None,
        Parameter(help="Methods, with commas between: NAME or NAME?option=value&option=value.", negative_iterable=""),
    ] = None,
    budgets: Annotated[
        list[str] | None, Parameter(help="5%-tokens (answer tokens), 5% or 1000 (rows); several.", negative_iterable="")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        Parameter(
            help="NAME:FILE or a task's TOML file; heldout_loss:holdout reads the part held out.", negative_iterable=""
        ),
    ] = None,
    primary_task: Annotated[str | None, Parameter(help="The task that decides; by default the first.")] = None,
    primary_budget: Annotated[str | None, Parameter(help="The budget that decides; by default the first.")] = None,
    margin: Annotated[
        str | None, Parameter(help="What does not matter: in the task's unit, or by default 1% of random's value.")
    ] = None,
    seeds: Annotated[int | None, Parameter(help="Runs of every method at every budget; by default 3.")] = None,
    random_seeds: Annotated[int | None, Parameter(help="Runs of random; by default twice as many.")] = None,
    controls: Annotated[
        list[str] | None, Parameter(help="Controls, in place of all that apply.", negative_iterable="")
    ] = None,
    holdout: Annotated[
        str | None, Parameter(help="The part of the pool to evaluate on, never chosen from; by default 10%.")
    ] = None,
    dev: Annotated[str | None, Parameter(help="The part for learning rates and targets; by default 5%.")] = None,
    sub_pool: Annotated[
        float | None, Parameter(help="The share of the pool that each run draws and chooses from; by default 0.9.")
    ] = None,
    learning_rates: Annotated[
        list[float] | None,
        Parameter(help="Rates tried on random at every budget; the best on dev is taken.", negative_iterable=""),
    ] = None,
    epochs: Annotated[float | None, Parameter(help="How often every chosen row is seen; by default 3.")] = None,
    target: Target = None,
    embedder: Embedder = None,
    template: Template = None,
    columns: Columns = None,
    decontaminate: Annotated[
        bool | None, Parameter(help="Leave rows out that overlap with an evaluation set; by default yes.")
    ] = None,
    seed: Annotated[int | None, Parameter(help="Everything random follows from it; by default 0.")] = None,
    workers: Workers = None,
    store: Store = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare methods under equal budgets with error bars, and say whether any beats random on this pool."""
    from coretune.compare import Plan, read_plan

    asked: dict[str, Any] = {
        "model": model,
        "methods": method_words(methods),
        "budgets": words_of(budgets),
        "tasks": words_of(tasks),
        "controls": words_of(controls),
        "learning_rates": None if learning_rates is None else tuple(learning_rates),
        "tuning": None if epochs is None else {"epochs": epochs},
        "columns": parse_columns(columns) or None,
        "template": template_text(template),
        **{"primary_task": primary_task, "primary_budget": primary_budget, "margin": margin},
        **{"seeds": seeds, "random_seeds": random_seeds, "seed": seed, "sub_pool": sub_pool},
        **{"holdout": holdout, "dev": dev, "target": target, "embedder": embedder, "decontaminate": decontaminate},
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if len(pool) == 1 and pool[0].endswith(".toml"):
        plan = read_plan(Path(pool[0]))
        if "tuning" in given:
            given["tuning"] = {**plan.tuning, **given["tuning"]}
        plan = dataclasses.replace(plan, **given)
    elif model is None:
        raise ValueError("give --model, the model to tune; smollm2-135m comes with coretune's packages")
    else:
        plan = Plan(tuple(pool), **given)
    _carry_out(plan, out, workers, store, overwrite)


def words_of(given: list[str] | None) -> tuple[str, ...] | None:
    """Values given one by one, or with commas between."""
    return None if given is None else tuple(each for text in given for each in text.split(",") if each)


def method_words(given: list[str] | None) -> tuple[str, ...] | None:
    """Methods, with commas between; a comma inside an option's value does not part them."""
    words: list[str] = []
    for each in words_of(given) or ():
        name = each.partition("?")[0]
        if words and "?" in words[-1] and name not in known_methods.names() and ":" not in name:
            words[-1] = f"{words[-1]},{each}"
        else:
            words.append(each)
    return None if given is None else tuple(words)


def _carry_out(plan: Any, out: Path, workers: int | None, store: Path | None, overwrite: bool) -> None:
    """Compare, with progress, and say what came out."""
    from contextlib import ExitStack

    from coretune.compare import compare as carry_out
    from coretune.engines import engine_for
    from coretune.engines.processes import gpus, processes
    from coretune.lab import Lab

    count = workers or len(gpus()) or 1
    with ExitStack() as stack:
        watch = stack.enter_context(terminal.Watch().shown())
        lab = Lab(store, map=stack.enter_context(engine_for(workers)), progress=watch)
        engine = stack.enter_context(processes(count)) if count > 1 else None
        done = carry_out(plan, out, lab, engine=engine, overwrite=overwrite)
    terminal.show_verdict(done.verdict)
    say(f"\nreport: {done.folder / 'report.html'}")
    if done.verdict["failed"]:
        said = "; ".join(f"{arm}: {why}" for arm, why in done.verdict["failed"].items())
        count = len(done.verdict["failed"])
        raise CoretuneError(f"{count} {'arm' if count == 1 else 'arms'} could not be run ({said}); all others were")
