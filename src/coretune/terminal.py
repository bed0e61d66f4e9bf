"""The terminal: progress while something runs, warnings from the library, and short tables of what came out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from coretune.rounds import reasons

if TYPE_CHECKING:
    from coretune.lab import Stage
    from coretune.runs import Finished
    from coretune.tuning_runs import FinishedTuning

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

READING = "reading"  # the stage that counts bytes
LINE_SECONDS = 10.0  # between plain lines of progress, where there is no terminal
WORTH_SECONDS = 2.0  # stages that end sooner show nothing


class _Rate(ProgressColumn):
    """Rows a second, or seconds a row."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.speed) if task.speed else "")


def _rate(speed: float) -> str:
    """`120/s`, `2.5/s`, or `12 s each` for what goes slowly."""
    if not speed:
        return "begins"
    if speed < 1:
        return f"{1 / speed:,.1f} s each"
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s"


class Watch:
    """Progress: bars with rate and time left on a terminal, plain lines in a log. Quick stages show nothing."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._said: dict[str, float] = {}
        self._done: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """`done` of `total` rows of a stage are there; of files that are read, bytes. `note` is said beside it."""
        if stage == READING:
            stage, done, total = f"{stage}, MiB", done >> 20, None if total is None else total >> 20
        now = time.monotonic()
        if done < self._done.get(stage, done):  # it begins again
            self._began.pop(stage, None)
        self._done[stage] = done
        began = self._began.setdefault(stage, now)
        if now - began < WORTH_SECONDS and stage not in self._tasks:
            return
        if self._bars is not None:
            task = self._tasks.get(stage)
            if task is None:
                task = self._tasks[stage] = self._bars.add_task(stage, total=total)
            words = f"{stage}, {note}" if note else stage
            self._bars.update(task, description=words, completed=done, total=total, visible=done != total)
        elif now - self._said.get(stage, began - LINE_SECONDS) >= LINE_SECONDS:
            self._said[stage] = now
            rate = done / max(now - began, 1e-9)
            left = f", {(total - done) / max(rate, 1e-9):,.0f} s left" if total else ""
            said = f", {note}" if note else ""
            errors.print(f"{stage}: {done:,}{f' of {total:,}' if total else ''}, {_rate(rate)}{left}{said}")

    def forget(self) -> None:
        """Start afresh: stages of the same name that come later are new ones."""
        self._tasks.clear()
        self._began.clear()
        self._said.clear()
        self._done.clear()

    @contextmanager
    def shown(self) -> Iterator[Watch]:
        """Bars for as long as the block runs, where standard error is a terminal."""
        if not errors.is_terminal:
            yield self
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with Progress(*columns, console=errors, transient=True) as bars:
            self._bars = bars
            try:
                yield self
            finally:
                self._bars = None
                self.forget()


class _Messages(logging.Handler):
    """The library's messages as lines on standard error, warnings said to be such."""

    def emit(self, record: logging.LogRecord) -> None:
        label = "warning: " if record.levelno >= logging.WARNING else ""
        errors.print(Text(label, style="yellow").append(Text(record.getMessage(), style="default")), soft_wrap=True)


def listen() -> None:
    """Show the library's messages on standard error."""
    logger = logging.getLogger("coretune")
    logger.handlers = [_Messages()]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def say(text: str = "") -> None:
    """A line on standard output; record text and paths are shown as they are."""
    console.print(text, markup=False, soft_wrap=True)


def heading(name: str, text: str) -> None:
    """A line that starts with a name in bold."""
    console.print(Text(name, style="bold").append(Text(f"  {text}", style="default")), soft_wrap=True)


def complain(text: str) -> None:
    """An error on standard error."""
    errors.print(Text("error: ", style="bold red").append(Text(text, style="default")), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """A plain table; the columns whose places are in `right` are set to the right."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        made.add_column(name, justify="right" if place in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    console.print(made)


def show_stages(stages: Sequence[Stage]) -> None:
    """Cost by stage."""
    table(
        "",
        ("stage", "seconds", "rows", "from store", "peak MiB", ""),
        [
            (
                stage.name,
                f"{stage.seconds:.1f}",
                f"{stage.rows:,}" if stage.rows else "",
                f"{stage.stored:,}" if stage.stored else "",
                f"{stage.peak_memory_bytes / 2**20:,.0f}",
                ", ".join(f"{count:,} {name}" for name, count in stage.counts.items() if count),
            )
            for stage in stages
        ],
        right=(1, 2, 3, 4),
    )


def show_outcome(done: Finished) -> None:
    """What was read, what was chosen, and where it lies."""
    assert done.outcome is not None
    pool, chosen, budget = done.pool, done.outcome.selection, done.outcome.budget
    candidates = int(pool.candidates.sum())
    left_out = f", of which {candidates:,} could be chosen ({reasons(pool)})" if candidates < len(pool) else ""
    say(f"read {len(pool):,} records, {pool.rejected.num_rows:,} rejected{left_out}")
    share = f"{len(chosen) / len(pool):.2%} of the pool"
    if candidates < len(pool):
        share += f", {len(chosen) / candidates:.2%} of those that could be"
    say(f"chose {len(chosen):,} records: {share}")
    tokens = done.outcome.answer_tokens
    if tokens is not None:
        reached = int(tokens[chosen.rows].sum())
        asked = "" if budget.tokens is None else f" of {budget.tokens:,} asked ({reached - budget.tokens:+,})"
        say(f"answer tokens: {reached:,}{asked}, {reached / max(1, int(tokens.sum())):.2%} of the pool's")
    for name, value in done.outcome.rounds[-1].notes.items():
        say(f"{name.replace('_', ' ')}: {f'{value:.4g}' if isinstance(value, float) else value}")
    if (rounds := len(done.outcome.rounds)) > 1:
        say(f"rounds: {rounds}; their course: coretune rounds {done.folder}")
    say(f"chosen records: {done.folder / 'selected.jsonl'}")
    say(f"report: {done.folder / 'report.html'}")


def show_tuning(done: FinishedTuning) -> None:
    """What was tuned on, what became of the loss, and where the weights lie."""
    assert done.tuned is not None
    tuned, counts = done.tuned, done.tuned.counts
    by = "weighted as the selection says" if done.weighted else "all rows alike"
    say(f"tuned {tuned.model} on {counts['learned_rows']:,} of {counts['rows']:,} rows, {by}")
    planned = "" if counts["steps"] == counts["planned_steps"] else f" of {counts['planned_steps']:,} planned"
    say(
        f"{counts['steps']:,} steps{planned}, {counts['tokens']:,} tokens, {counts['answer_tokens']:,} of answers: "
        f"{tuned.seconds:,.1f} s, {counts['tokens'] / max(tuned.seconds, 1e-9):,.0f} tokens/s"
    )
    first, last = tuned.ends
    say(f"loss: {first:.3f} over the first tenth of the steps, {last:.3f} over the last")
    say(f"weights: {done.folder}")
    say(f"report: {done.folder / 'report.html'}")


def show_verdict(verdict: Mapping[str, Any]) -> None:
    """A comparison's verdict: what every arm gains over random on the primary task, and the sentence."""
    primary = verdict["primary"]
    lines = [each for each in verdict["arms"] if each["task"] == primary["task"]]
    several = len({each["budget"] for each in lines if each["budget"]} - {"100%"}) > 1
    table(
        f"{primary['task']}, {primary['metric']}; against random, above 0 is better; margin {primary['margin']:.3g}",
        ("arm", "seeds", "value", "gain", "95% interval", "Holm p", "verdict"),
        [
            (
                f"{each['arm']}, {each['budget']}" if several and each["budget"] else each["arm"],
                f"{each['seeds']}",
                f"{each['value']:.4g}",
                f"{each['difference']:+.3g}",
                " to ".join("?" if end is None else f"{end:+.2g}" for end in each["interval"]),
                "" if each["p_holm"] is None else f"{each['p_holm']:.3f}",
                each["verdict"].replace("_", " ") + ("*" if each["exploratory"] else ""),
            )
            for each in lines
        ],
        right=(1, 2, 3, 5),
    )
    if any(each["exploratory"] for each in lines):
        say("* exploratory: not corrected for their number, and decides nothing")
    say()
    say(verdict["sentence"])
    for each in verdict["arms"]:
        if each.get("unequal") and not each["exploratory"]:
            say(f"{each['arm']}: {each['unequal']}")
