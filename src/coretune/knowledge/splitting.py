"""Long texts into passages: cut at paragraph ends, within a long paragraph at sentence ends, at last between words.

Passages do not overlap. An overlap would help a question whose answer lies across a cut, but it also puts the same
sentences twice among the few passages that a context has room for, and nothing measured here speaks for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from coretune.knowledge.words import word_count

MOST_WORDS = 200  # of a passage: three fit into a context of 1,024 tokens

BLANK_LINE = re.compile(r"\n[ \t\r\f\v]*\n")
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？｡])\s*|\n+")
SPACE = re.compile(r"\s+")


def split_text(text: str, most_words: int = MOST_WORDS) -> Iterator[str]:
    """The passages of a text, at most `most_words` words each."""
    if word_count(text) <= most_words:
        if text.strip():
            yield text.strip()
        return
    paragraphs = ((0, paragraph) for paragraph in BLANK_LINE.split(text))
    yield from (passage for _, passage in join_paragraphs(paragraphs, most_words))


def join_paragraphs(paragraphs: Iterable[tuple[int, str]], most_words: int = MOST_WORDS) -> Iterator[tuple[int, str]]:
    """Paragraphs with the line where each starts, as passages with theirs: as many paragraphs to one as fit.

    A markdown heading stays with what follows it.
    """
    held: list[tuple[int, str]] = []
    count = 0.0
    for line, paragraph in paragraphs:
        for piece in _pieces(paragraph, most_words):
            length = word_count(piece)
            if held and count + length > most_words:
                kept = held[-1:] if _is_heading(held[-1][1]) and len(held) > 1 else []
                yield _joined(held[: len(held) - len(kept)])
                held, count = kept, sum(word_count(text) for _, text in kept)
            held.append((line, piece))
            count += length
    if held:
        yield _joined(held)


def _joined(held: list[tuple[int, str]]) -> tuple[int, str]:
    return held[0][0], "\n\n".join(text for _, text in held)


def _is_heading(text: str) -> bool:
    return text.startswith("#") and "\n" not in text


def _pieces(paragraph: str, most_words: int) -> Iterator[str]:
    """A paragraph, or, where it is too long, as many of its sentences together as fit."""
    if word_count(paragraph) <= most_words:
        if paragraph.strip():
            yield paragraph.strip()
        return
    start, end = 0, 0
    for stop in _stops(paragraph, most_words):
        if end > start and word_count(paragraph[start:stop]) > most_words:
            yield paragraph[start:end].strip()
            start = end
        end = stop
    if paragraph[start:].strip():
        yield paragraph[start:].strip()


def _stops(paragraph: str, most_words: int) -> Iterator[int]:
    """Where a paragraph may be cut: sentence ends; in a sentence that is too long, spaces; else anywhere."""
    start = 0
    for end in [*(found.end() for found in SENTENCE_END.finditer(paragraph)), len(paragraph)]:
        if word_count(paragraph[start:end]) > most_words:
            spaces = [start + found.end() for found in SPACE.finditer(paragraph[start:end])]
            for low, high in zip([start, *spaces], [*spaces, end], strict=True):
                if word_count(paragraph[low:high]) > most_words:
                    yield from range(low + most_words, high, most_words)
                yield high
        yield end
        start = end
