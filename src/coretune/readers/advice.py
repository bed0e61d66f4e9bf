"""What to say when the columns of a table match no record format: why, and the `--columns` that would fit."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from coretune.errors import PoolError, nearest
from coretune.formats import Recogniser

PROMPT_WORDS = ("prompt", "instruction", "question", "query", "input", "problem", "task", "text", "source")
COMPLETION_WORDS = ("completion", "response", "output", "answer", "target", "solution", "reply", "label", "text")
TURN_WORDS = ("messages", "conversation", "dialog", "turns", "chat")
NOT_MEANT = ("incorrect", "wrong", "rejected", "_id", "_type")  # columns that no suggestion should name
LONGEST_NAME = 48  # characters; longer column names look like data


def check_columns(recogniser: Recogniser, keys: Sequence[str], where: str) -> None:
    """Pass a table whose columns make records of a known format. Raises `PoolError`, with what to do, for others."""
    absent = [name for name in recogniser.columns.values() if name not in keys]
    if not absent and recogniser.fitting(keys):
        return
    shown = ", ".join(repr(readable(key)) for key in keys[:12]) + (", ..." if len(keys) > 12 else "")
    if _looks_like_data(keys):
        raise PoolError(
            f"{where}: no known format has the columns {shown}. They look like a first record rather than names: "
            "put a header line in front that names the columns, such as prompt,completion"
        )
    if absent:
        near = nearest(absent[0], keys)
        raise PoolError(f"{where}: --columns names {readable(absent[0])!r}, but the columns are {shown}{near}")
    raise PoolError(f"{where}: no known format has the columns {shown}; {suggestion(keys)}")


def suggestion(keys: Sequence[str]) -> str:
    """The `--columns` that would read records with these keys, as far as their names tell."""
    turns = _like(keys, TURN_WORDS)
    if turns is not None:
        return f"name the one with the turns: --columns messages={shlex.quote(readable(turns))}"
    prompt = _like(keys, PROMPT_WORDS)
    completion = _like([key for key in keys if key != prompt], COMPLETION_WORDS)
    names = [shlex.quote(readable(key)) if key else "COLUMN" for key in (prompt, completion)]
    return f"name those to use: --columns prompt={names[0]},completion={names[1]}"


def readable(text: str) -> str:
    """A short form of any text that can be printed, whatever bytes it came from."""
    text = text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 3] + "..."
    return text.encode("utf-8", "backslashreplace").decode()


def _like(keys: Sequence[str], words: Sequence[str]) -> str | None:
    """The key that is, or else holds, the first possible word."""
    meant = [key for key in keys if not any(word in key.lower() for word in NOT_MEANT)]
    exact = (key for word in words for key in meant if key.lower() == word)
    near = (key for word in words for key in meant if word in key.lower())
    return next(exact, None) or next(near, None)


def _looks_like_data(keys: Sequence[str]) -> bool:
    names = [key.strip() for key in keys]
    return any(len(name) > LONGEST_NAME or name.endswith(("?", ".", "!")) or name.isdigit() for name in names)
