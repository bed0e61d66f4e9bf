"""What became of the records: every one that was given, in exactly one part."""

from __future__ import annotations

from typing import Any

import numpy as np

from coretune.pages import wording
from coretune.pages.run_files import Rejected, RunFiles
from coretune.pages.summary import Counts

MOST = 12  # reasons of one part; the others are joined


def fates(files: RunFiles, counts: Counts) -> list[dict[str, Any]]:
    """Every record given, in exactly one part."""
    codes, names = files.groups("excluded_by")
    numbers = np.bincount(codes[codes >= 0], minlength=len(names))
    excluded = sorted(zip(names, numbers.tolist(), strict=True), key=lambda each: -each[1])
    parts = [
        ("chosen", "chosen-fill", counts.chosen, []),
        ("left out", "out-fill", counts.candidates - counts.chosen, []),
        ("excluded from the choice", "excluded-fill", counts.excluded, excluded),
        ("rejected as unusable", "rejected-fill", counts.rejected, list(files.rejected.counts.items())),
    ]
    parted, start = [], 0.0
    for name, kind, number, reasons in parts:
        width = 100 * number / max(1, counts.given)
        label = f"{name}: {wording.count(number)} ({wording.share(number, counts.given)})"
        said = [(wording.visible(reason, 120), many) for reason, many in reasons[:MOST]]
        if len(reasons) > MOST:
            said.append((f"{len(reasons) - MOST} other reasons", sum(many for _, many in reasons[MOST:])))
        fate = {"name": name, "kind": kind, "number": number, "start": start, "width": width}
        parted.append({**fate, "label": label, "reasons": said})
        start += width
    return parted


def duplicates(files: RunFiles, counts: Counts) -> str:
    """What became of rows that repeat another."""
    if not counts.duplicates:
        return "No row repeats another."
    copies = np.isfinite(files.numbers("duplicate_of"))
    barred, chosen = int((copies & files.excluded).sum()), int((copies & files.selected).sum())
    text = f"{wording.plural(counts.duplicates, 'row repeats', 'rows repeat')} the content of an earlier one"
    if barred:
        return f"{text}; {'all' if barred == counts.duplicates else wording.count(barred)} of them are excluded."
    taken = wording.count(chosen) if chosen else "none"
    return f"{text} and could be chosen all the same ({taken} chosen); --dedup excludes them."


def rejected_records(rejected: Rejected) -> list[dict[str, str]]:
    """The rejected records on the page, cut to a line."""
    return [
        {
            "reason": wording.visible(str(each["reason"]), 200),
            "where": wording.visible(f"{each.get('file', '')}:{each.get('line', '')}", 120),
            "raw": wording.visible(str(each["raw"]), 240),
        }
        for each in rejected.shown
    ]
