"""The verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

APART = 1.25
"""Runs that differ by more in what is not held equal are told of."""
SAID = {"better": "better than", "worse": "worse than", "no_difference": "no different from"}


def sentence_of(primary: Mapping[str, Any], arms: Sequence[Mapping[str, Any]]) -> str:
    """What a reader should take away, in a few sentences: which methods beat random at the primary budget."""
    decisive = [line for line in arms if not line["exploratory"]]
    if not decisive:
        return "No method was compared: only controls were run."
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for line in decisive:
        groups.setdefault(str(line["verdict"]), []).append(line)
    parts = []
    for kind in ("better", "worse", "no_difference"):
        if kind in groups:
            parts.append(f"{_listed(groups[kind], kind != 'no_difference')} {_is(groups[kind])} {SAID[kind]} random")
    where = f"At {primary['budget']}, on {primary['task']}"
    said = [f"{where}: {'; '.join(parts)}." if parts else f"{where}, no method can be told from random yet."]
    if "cannot_tell" in groups:
        unsettled = groups["cannot_tell"]
        vaguest = max(unsettled, key=lambda line: line["stderr"])  # what settles it settles the others
        said.append(f"{_listed(unsettled, True)} cannot be told from random yet; {vaguest['next'].rstrip('.')}.")
    if not {"better", "cannot_tell"} & set(groups):
        said.append("Random is as good here.")
    return " ".join(said)


def unequal_of(mine: Sequence[Mapping[str, Any]], random: Sequence[Mapping[str, Any]], in_tokens: bool) -> str:
    """What an arm and random did not have equally much of, in words; empty where it is nearly the same.

    At equal answer tokens short answers are more rows, and so more optimizer steps; at equal rows long ones are more
    tokens.
    """
    held, free = ("answer tokens", "steps") if in_tokens else ("rows", "answer_tokens")
    ours, theirs = (sum(row[free] for row in rows) / max(1, len(rows)) for rows in (mine, random))
    if not (ours and theirs) or max(ours / theirs, theirs / ours) < APART:
        return ""
    what = "optimizer steps" if in_tokens else "answer tokens"
    return f"at equal {held} it had {ours:,.0f} {what} and random {theirs:,.0f}, which may be part of the difference"


def _listed(lines: Sequence[Mapping[str, Any]], numbers: bool) -> str:
    """Arms with their differences, as `a (+0.01 [0.00, 0.02]), b and c`."""
    names = [
        f"{line['arm']} ({line['difference']:+.3g} {line['unit']} [{_end(line, 0)}, {_end(line, 1)}])"
        if numbers
        else str(line["arm"])
        for line in lines
    ]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _is(lines: Sequence[Mapping[str, Any]]) -> str:
    return "is" if len(lines) == 1 else "are"


def _end(line: Mapping[str, Any], place: int) -> str:
    end = line["interval"][place]
    return "?" if end is None else f"{end:+.3g}"
