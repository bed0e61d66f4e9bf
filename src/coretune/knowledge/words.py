"""Words of any script: what is searched by, what overlap is measured in, and how long a text is.

Letters, digits and their marks make a word, lower-cased and in compatibility form; everything else separates. Scripts
that put no spaces between words (Han, kana, Thai, Lao, Khmer, Burmese), and Hangul, whose endings grow on to its words,
are read in overlapping pairs of characters for searching, as Lucene does, and character by character for overlap. There
is no stemming and no list of words to leave out: both belong to one language, and rare words outweigh common ones
without them.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Sequence

ASCII_WORD = re.compile("[a-z0-9]+")
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7af"  # Hangul
)
UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
NAMED = 0x20000  # above, letters are Han alone


def words(text: str) -> list[str]:
    """The words of a text in order; a run of an unspaced script is its overlapping pairs, or its one character."""
    if text.isascii():
        return ASCII_WORD.findall(text.lower())
    found: list[str] = []
    for run in _run().finditer(_plain(text)):
        piece = run[0]
        if run.lastgroup == "unspaced" and len(piece) > 1:
            found += [piece[i : i + 2] for i in range(len(piece) - 1)]
        else:
            found.append(piece)
    return found


def units(text: str) -> list[str]:
    """The words of a text in order, every character of an unspaced script a unit of its own."""
    if text.isascii():
        return ASCII_WORD.findall(text.lower())
    found: list[str] = []
    for run in _run().finditer(_plain(text)):
        found += run[0] if run.lastgroup == "unspaced" else [run[0]]
    return found


def unspaced(said: Sequence[str]) -> bool:
    """Whether most of these units are characters of an unspaced script."""
    return 2 * sum(1 for unit in said if UNSPACED_CHARACTER.match(unit)) > len(said)


def word_count(text: str) -> float:
    """How long a text is, in words; a character of an unspaced script is half a word."""
    said = units(text)
    if text.isascii():
        return float(len(said))
    return len(said) - sum(1 for unit in said if UNSPACED_CHARACTER.match(unit)) / 2


def _plain(text: str) -> str:
    """Letters in one form: full-width, ligatures and accents composed, capitals lowered."""
    return unicodedata.normalize("NFKC", text).casefold()


@functools.cache
def _run() -> re.Pattern[str]:
    """Runs of unspaced scripts, and words of all others: a letter or digit, then letters, digits and marks."""
    starts, follows = _ranges("LN"), _ranges("LNM")
    return re.compile(f"(?P<unspaced>[{UNSPACED}]+)|[{starts}][{follows}]*")


def _ranges(kinds: str) -> str:
    """The inside of a character class: all code points of these general categories that are not unspaced scripts."""
    found: list[list[int]] = []
    for point in range(min(NAMED, sys.maxunicode)):
        letter = chr(point)
        if unicodedata.category(letter)[0] in kinds and not UNSPACED_CHARACTER.match(letter):
            if found and found[-1][1] == point - 1:
                found[-1][1] = point
            else:
                found.append([point, point])
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in found)
