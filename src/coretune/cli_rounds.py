"""The command `coretune rounds`: the course of a run that selects, tunes, looks and selects again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from coretune import terminal
from coretune.round_folder_reading import Course, RoundFiles, read_course
from coretune.terminal import say

ROUNDS_EXAMPLES = """A row a round:

rows            chosen so far, and how many of them are new
answer tokens   of the rows chosen so far, where --model was given
training loss   mean loss over the last tenth of the round's optimizer steps
held-out loss   nats a token on the file of `coretune select --held-out FILE`; round 0 is the model before any tuning
more, less      cells whose share of the weight rose or fell most since the round before, in points of percent

What a round knew of every row and cell is in RUN/rounds/NNN/: round.parquet, cells.parquet, round.toml.

Examples:

coretune select data.jsonl --method kmq_iterative --budget 5% --model smollm2-135m \\
--held-out held-out.jsonl --out runs/it

coretune rounds runs/it

coretune rounds runs/it --json

A run that is still going on, or was stopped, is shown as far as it came. The model of a round is an adapter that PEFT \
loads, in the store: read it with any other task before it is pruned there."""


def rounds_command(
    folder: Annotated[Path, Parameter(help="The folder of a run, finished or not.")],
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", help="The same as JSON, with everything known.", negative="")] = (
        False
    ),
) -> None:
    """Show the course of a run in rounds: what each added, what its model learned, which cells gained weight."""
    course = read_course(folder)
    if as_json:
        say(json.dumps(_sayable(course_words(course)), indent=1, ensure_ascii=False))
        return
    say(_title(course))
    lines = [*([course.untuned] if course.untuned else []), *course.rounds]
    columns = [(name, [say_of(course, each) for each in lines]) for name, say_of in COLUMNS.items()]
    shown = [(name, cells) for name, cells in columns if any(cells)]
    right = [place for place, (name, _) in enumerate(shown) if name not in ("more", "less")]
    terminal.table("", [name for name, _ in shown], list(zip(*(cells for _, cells in shown), strict=True)), right=right)
    for each in course.rounds:
        if each.model:
            say(f"model of round {each.number}: {each.model['path']}{'' if _is_there(each) else ' (no longer there)'}")


def course_words(course: Course) -> dict[str, Any]:
    """The course as JSON has it."""
    said: list[dict[str, Any]] = []
    for place, each in enumerate(course.rounds):
        rose, fell = course.moved(place)
        moved = {"cells_more": dict(rose), "cells_less": dict(fell)} if rose or fell else {}
        said.append({**each.said, **moved, "folder": str(each.folder)})
    untuned = {} if course.untuned is None else {"untuned": course.untuned.said["readings"]}
    return {"folder": str(course.folder), "finished": course.finished, **course.head, **untuned, "rounds": said}


def _sayable(value: Any) -> Any:
    """The value as JSON can say it: null for a number that is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _sayable(each) for name, each in value.items()}
    return [_sayable(each) for each in value] if isinstance(value, list) else value


def _title(course: Course) -> str:
    """What run it is, and how far it came."""
    done = len(course.rounds)
    text = f"{course.head.get('method')} at {course.head.get('budget')}, seed {course.head.get('seed')}: "
    text += f"{done} {'round' if done == 1 else 'rounds'}"
    if course.finished:
        return text
    return f"{text} done so far; not finished: it is still going on, or its command, given again, goes on from here"


def _is_there(each: RoundFiles) -> bool:
    return Path(each.model["path"]).exists()


def _count(name: str, each: RoundFiles) -> str:
    return f"{each.said[name]:,}" if name in each.said else ""


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _moved(course: Course, each: RoundFiles, which: int) -> str:
    """`cell 3 +4.1`, in points of percent, a line a cell."""
    if not each.number:
        return ""
    found: Sequence[tuple[str, float]] = course.moved(course.rounds.index(each), 2)[which]
    return "\n".join(f"{name} {100 * change:+.1f}" for name, change in found)


COLUMNS: dict[str, Callable[[Course, RoundFiles], str]] = {
    "round": lambda course, each: f"{each.number}",
    "rows": lambda course, each: _count("rows", each),
    "new": lambda course, each: _count("new_rows", each),
    "dropped": lambda course, each: _count("gone_rows", each) if each.said.get("gone_rows") else "",
    "answer tokens": lambda course, each: _count("answer_tokens", each),
    "training loss": lambda course, each: _loss(each.training_loss),
    "held-out loss": lambda course, each: _loss(each.heldout_loss),
    "more": lambda course, each: _moved(course, each, 0),
    "less": lambda course, each: _moved(course, each, 1),
    "seconds": lambda course, each: f"{each.said['seconds']:,.1f}" if "seconds" in each.said else "",
}
