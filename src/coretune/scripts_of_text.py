"""The script a text is mostly written in: what stands for a language where the data name none."""

from __future__ import annotations

import functools
import re
import unicodedata

import numpy as np

SCRIPTS = (
    "Latin", "Han", "Cyrillic", "Arabic", "Devanagari", "Hangul", "Hiragana", "Katakana", "Greek", "Hebrew", "Thai",
    "Armenian", "Bengali", "Bopomofo", "Cherokee", "Ethiopic", "Georgian", "Gujarati", "Gurmukhi", "Kannada", "Khmer",
    "Lao", "Malayalam", "Mongolian", "Myanmar", "Oriya", "Sinhala", "Syriac", "Tamil", "Telugu", "Thaana", "Tibetan",
    "Yi",
)  # fmt: skip
JAPANESE = "Japanese"  # Han mixed with kana, which ISO 15924 counts as one script (Jpan)
KANA_SHARE = 0.1  # of Han and kana together; more makes the text Japanese
NAMED = 0x20000  # code points below are classed by their Unicode names; the two planes above hold Han alone
CLASSED = 0x40000

LATIN_LETTER = re.compile("[A-Za-z]")


def dominant_script(text: str) -> str | None:
    """The script of most letters of `text`, as Unicode names it ("Latin", "Han", "Cyrillic"); None without letters.

    Han with at least a tenth of kana is "Japanese". Ties go to the script that stands first in `SCRIPTS`.
    """
    if text.isascii():
        return "Latin" if LATIN_LETTER.search(text) else None
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    counts = np.bincount(_script_of()[np.minimum(points, CLASSED)], minlength=len(SCRIPTS) + 1)[1:]
    if not counts.any():
        return None
    winner = SCRIPTS[int(counts.argmax())]
    kana = int(counts[SCRIPTS.index("Hiragana")] + counts[SCRIPTS.index("Katakana")])
    if winner not in ("Han", "Hiragana", "Katakana"):
        return winner
    return JAPANESE if kana >= KANA_SHARE * (kana + counts[SCRIPTS.index("Han")]) else winner


@functools.cache
def _script_of() -> np.ndarray:
    """For every code point 1 + its place in `SCRIPTS`, 0 for all that is no letter of them; `(CLASSED + 1,)` uint8."""
    place = {name.upper(): i + 1 for i, name in enumerate(SCRIPTS)} | {"CJK": SCRIPTS.index("Han") + 1}
    table = np.zeros(CLASSED + 1, dtype=np.uint8)
    for point in range(NAMED):
        letter = chr(point)
        if letter.isalpha():
            words = unicodedata.name(letter, "").split(maxsplit=2)
            first = words[1] if words and words[0] in ("FULLWIDTH", "HALFWIDTH") else words[0] if words else ""
            table[point] = place.get(first, 0)
    table[NAMED:CLASSED] = place["CJK"]
    return table
