"""The command `coretune evaluate`: what a model, or a tuned one, can do, by any tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from coretune import terminal
from coretune.cli_words import Store, Template, Workers
from coretune.command_options import template_text
from coretune.terminal import say

EVALUATE_EXAMPLES = """Tasks, several with commas:

TASK:FILE?OPTION=VALUE&OPTION=VALUE   a task, the file it asks, its options
my_task.toml                          the same in a file: task = "exact_match", file = "items.jsonl", then options
NAME                                  a task of lm-evaluation-harness

A file is json, jsonl, csv or parquet; its kind is known from its columns: MMLU, ARC, PIQA, GSM8K, \
Super-NaturalInstructions, HumanEval, MBPP, IFEval, texts with labels, questions with answers, and any pool. \
limit=200 takes a fixed sample, where=COLUMN=VALUE some records, columns=prompt=Frage,answer=Antwort names columns.

Examples:

coretune evaluate smollm2-135m --tasks 'heldout_loss:held-out.jsonl'

coretune evaluate tuned/ltd --tasks 'multiple_choice:arc.parquet?limit=200,heldout_loss:held-out.jsonl' --out read/ltd

coretune evaluate tuned/ltd --tasks 'multiple_choice:mmlu.parquet?lettered=true&shots=5&dev=mmlu_dev.parquet'

The folder of --out holds the score of every item (readings.parquet), values with standard errors (readings.json), \
and what the model wrote, if anything (texts.parquet). What was measured is kept, so a second look costs nothing."""


def evaluate_command(  # noqa: PLR0913 - the flags of a command
    model: Annotated[str, Parameter(help="A model (a hub id, a folder, smollm2-135m), or a folder made by tune.")],
    /,
    *,
    tasks: Annotated[str, Parameter(help="What it is read by: TASK:FILE, a task file, a harness task; see below.")],
    out: Annotated[Path | None, Parameter(help="A folder to make, with every item's score.")] = None,
    template: Template = None,
    limit: Annotated[int | None, Parameter(help="So many items of every file that says no limit itself.")] = None,
    workers: Workers = None,
    store: Store = None,
    overwrite: Annotated[bool, Parameter(help="Replace another evaluation's folder.", negative="")] = False,
) -> None:
    """Say what a model can do, task by task, with standard errors and every item's score."""
    from coretune.engines import engine_for
    from coretune.evaluation.asking import read_tasks
    from coretune.evaluation_runs import carry_out_evaluation, subject_of
    from coretune.lab import Lab

    asked = read_tasks(tasks, limit=limit)
    with terminal.Watch().shown() as watch, engine_for(workers) as engine:
        lab = Lab(store, map=engine, progress=watch)
        subject = subject_of(model, lab, template_text(template))
        done = carry_out_evaluation(subject, asked, out, overwrite=overwrite)
    if not done.fresh:
        say(f"{out} holds this evaluation already, complete; nothing was done")
    else:
        terminal.show_stages(lab.stages)
        say()
    show_readings(done.said)
    if done.folder is not None:
        say(f"readings: {done.folder}")


def show_readings(said: Mapping[str, Any]) -> None:
    """Values with standard errors, task by task, by source where there are several, and what was cut or left out."""
    say(said["model"] if said["adapter"] is None else f"{said['model']} with {said['adapter']['path']}")
    for task in said["tasks"]:
        say()
        terminal.heading(task["task"], "" if task["higher_is_better"] else "(lower is better)")
        rows: list[tuple[str, ...]] = []
        for metric, found in task["metrics"].items():
            first = metric == task["metric"]
            name = metric.replace("_", " ")
            rows.append((f"{name}, {task['unit']}" if first else name, *_value(found), f"{task['items']:,}"))
            if first:
                rows += [(f"  {group}", *_value(own), f"{own['items']:,}") for group, own in task["groups"].items()]
        for figure, value in task["figures"].items():
            rows.append((figure.replace("_", " "), "none" if value is None else f"{value:.4g}", "", ""))
        terminal.table("", ("metric", "value", "± stderr", "items"), rows, right=(1, 2, 3))
        counts = ", ".join(f"{count:,} {name}" for name, count in task["counts"].items() if count)
        if counts:
            say(f"of its items: {counts}")


def _value(found: Mapping[str, float | None]) -> tuple[str, str]:
    """A mean and its standard error."""
    stderr = found["stderr"]
    return f"{found['value']:.4f}", "" if stderr is None else f"{stderr:.4f}"
