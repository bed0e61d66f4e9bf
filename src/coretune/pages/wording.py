"""Numbers and foreign text as a reader should see them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

STEPS_BYTES = (("GiB", 2**30), ("MiB", 2**20), ("kiB", 2**10))
# What would hide or reorder the text around it: controls, bidirectional overrides, invisible marks (joiners stay).
UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")


def count(value: float) -> str:
    """`12,345`."""
    return f"{value:,.0f}"


def share(part: float, whole: float) -> str:
    """A share in percent with about three digits, `0.42%`; a dash where the whole is nothing."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    digits = 0 if percent in (0, 100) else 1 if percent >= 9.995 else 2 if percent >= 0.0995 else 3
    return f"{percent:.{digits}f}%"


def number(value: float) -> str:
    """A number of unknown size with four digits; `–` where it is none."""
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"


def seconds(value: float) -> str:
    """A duration: `0.42 s`, `43 s`, `2 min 5 s`, `3 h 12 min`."""
    if value < 10:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(value: float) -> str:
    """A number of bytes: `1.2 MiB`."""
    for unit, step in STEPS_BYTES:
        if value >= step:
            return f"{value / step:.1f} {unit}"
    return f"{value:.0f} B"


def place(rank: int) -> str:
    """`1st`, `2nd`, `11th`, `1,003rd`."""
    ending = "th" if rank % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank:,}{ending}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def plural(value: int, one: str, many: str | None = None) -> str:
    """`1 row`, `2 rows`."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def visible(text: str, most: int | None = None) -> str:
    """Foreign text on one line: white space joined, characters that nobody sees shown as `⟨U+202E⟩`, cut at `most`.

    This is about what a reader is led to believe; that no markup comes through is the template's part.
    """
    line = " ".join((text if most is None else text[: 4 * most + 4]).split())
    if not line.isprintable():
        line = UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", line)
    return line if most is None or len(line) <= most else line[: most - 1] + "…"
