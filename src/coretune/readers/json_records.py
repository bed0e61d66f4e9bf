"""JSON in all its layouts into raw records: lines, one array, values one after the other, an object around a list.

Arrays are cut into the exact bytes of their elements by their brackets, outside of strings, so a broken element costs
itself alone and the file is never decoded as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from mmap import mmap
from typing import Any

from coretune.readers.open_inputs import OpenInput, Record

BOM = b"\xef\xbb\xbf"
DEEPEST = 200  # levels of nesting that are read
CLOSING = {ord("{"): ord("}"), ord("["): ord("]")}
STRING = rb'"(?:[^"\\\n]++|\\[^\n])*+"?'  # a string cannot cross a line, so a lost quote costs one line
TO_BRACKET = re.compile(rb"(?:" + STRING + rb'|[^"\[\]{}]++)*+([\[\]{}])')
TO_STRUCTURE = re.compile(rb"(?:" + STRING + rb'|[^"\[\]{},]++)*+')
SPACE = re.compile(rb"[ \t\r\n]*+")
LIST_OF_OBJECTS = re.compile(rb"\[[ \t\r\n]*+\{")
KEY = re.compile(rb'[ \t\r\n,]*+("(?:[^"\\\n]++|\\[^\n])*+")[ \t\r\n]*+:[ \t\r\n]*+')

_decode = json.JSONDecoder().decode
Buffer = bytes | mmap


def read_json(opened: OpenInput, is_record: Callable[[Iterable[str]], bool]) -> Iterator[Record]:
    """The records of a JSON or JSON-lines input. `is_record` tells whether an object's keys make it a record itself."""
    first, _, rest = opened.head.removeprefix(BOM).lstrip().partition(b"\n")
    _, value = _decoded(first)
    in_lines = isinstance(value, dict) and (rest.lstrip()[:1] == b"{" or is_record(value))
    if in_lines or not first.startswith((b"[", b"{")):
        yield from read_lines(opened.stream)
        return
    with opened.whole() as buffer:
        for position, record in _read_document(buffer, is_record):
            opened.seen = position
            yield record


def read_lines(lines: Iterable[bytes]) -> Iterator[Record]:
    """One record a line; blank lines are none."""
    for number, line in enumerate(lines, 1):
        raw = line.rstrip(b"\r\n").removeprefix(BOM)
        if raw and not raw.isspace():
            yield decode(number, raw, torn=None if line.endswith(b"\n") else "torn last line")


def decode(line: int, raw: bytes, *, torn: str | None = None) -> Record:
    """The record in these bytes; one with a `fault` where they are no JSON. `torn` names bytes that may be cut off."""
    fault, value = _decoded(raw)
    if fault is not None and torn is not None:
        fault = f"{torn}: {fault}"
    return Record(line, raw, value, fault)


def _decoded(raw: bytes) -> tuple[str | None, Any]:
    """Why bytes are no JSON (or None), and what they say."""
    try:
        text = raw.decode("utf-8")
        if raw.count(b"{") + raw.count(b"[") > DEEPEST and _depth(raw) > DEEPEST:
            return f"nested too deep: more than {DEEPEST} levels", None
        return None, _decode(text)
    except UnicodeDecodeError as error:
        return f"invalid UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}", None
    except json.JSONDecodeError as error:
        return f"broken JSON: {error.msg} at character {error.pos + 1}", None
    except RecursionError:
        return "nested too deep: more levels than can be read", None
    except ValueError:  # whole numbers of thousands of digits
        return "number too long: a whole number has more digits than can be read", None


def _depth(raw: Buffer) -> int:
    depth = deepest = position = 0
    while found := TO_BRACKET.match(raw, position):
        position = found.end()
        depth = depth + 1 if raw[position - 1] in CLOSING else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest


def _read_document(buffer: mmap, is_record: Callable[[Iterable[str]], bool]) -> Iterator[tuple[int, Record]]:
    """Records, each with the place where it ends, of what begins with a bracket."""
    start = _past(SPACE, buffer, len(BOM) if buffer[: len(BOM)] == BOM else 0)
    if buffer[start] == ord("["):
        yield from _read_elements(buffer, start + 1, closed=True)
        return
    end = _end_of_value(buffer, start)
    line_end = buffer.find(b"\n", start)
    if end is None:
        in_lines = line_end >= 0 and _at(buffer, _past(SPACE, buffer, line_end)) == b"{"  # the first of them torn
    elif _past(SPACE, buffer, end) == len(buffer):
        yield from _read_object(buffer, start, end, is_record)
        return
    else:
        in_lines = end <= line_end
    if not in_lines:
        yield from _read_elements(buffer, start, closed=False)
        return
    buffer.seek(0)
    for record in read_lines(iter(buffer.readline, b"")):
        yield buffer.tell(), record


def _read_elements(buffer: mmap, position: int, *, closed: bool, alone: bool = True) -> Iterator[tuple[int, Record]]:
    """The elements from `position` on: up to the closing bracket of their array, or, not `closed`, to the end.

    `alone` says that nothing but space may follow the array.
    """
    number = 0
    torn: str | None = None
    while True:
        position = _past(SPACE, buffer, position)
        mark = _at(buffer, position)
        if mark == b",":
            position += 1
            continue
        if not mark or (mark == b"]" and closed):
            break
        start, position = position, _end_of_element(buffer, position, closed=closed)
        number += 1
        torn = "torn end" if position == len(buffer) else None
        record = decode(number, buffer[start:position].rstrip(), torn=torn)
        torn = record.fault and torn
        yield position, record
    if closed and not mark and not torn:
        yield position, Record(number + 1, b"", None, "torn end: the array is never closed")
    elif alone and _past(SPACE, buffer, position + 1) < len(buffer):
        fault = "broken JSON: text after the end of the array"
        yield len(buffer), Record(number + 1, buffer[position + 1 :].strip(), None, fault)


def _end_of_element(buffer: mmap, start: int, *, closed: bool) -> int:
    """Where the element ends that starts here, together with whatever stands between it and the next."""
    end = start
    if buffer[start] in CLOSING:
        end = _end_of_value(buffer, start) or _end_of_broken_line(buffer, start)
    while end < len(buffer):
        junk = _past(TO_STRUCTURE, buffer, end)
        mark = _at(buffer, junk)
        if mark in (b"", b",", b"{", b"[") or (mark == b"]" and closed):
            return end if _past(SPACE, buffer, end) == junk and end > start else max(junk, start + 1)
        end = junk + 1  # a bracket that closes nothing: part of the broken element
    return end


def _end_of_broken_line(buffer: mmap, start: int) -> int:
    """Where an element that is never closed ends: with its line, if the next line begins an object; else nowhere."""
    line_end = buffer.find(b"\n", start)
    if line_end > start + 1 and _at(buffer, _past(SPACE, buffer, line_end)) == b"{":
        return line_end
    return len(buffer)


def _end_of_value(buffer: Buffer, start: int) -> int | None:
    """Where the brackets that open here are all closed; None where they never are.

    A bracket that closes an outer one closes those inside it too, and one that closes nothing is passed over.
    """
    waiting: list[int] = []  # the closing brackets still to come, innermost last
    counts = dict.fromkeys(CLOSING.values(), 0)
    position = start
    while found := TO_BRACKET.match(buffer, position):
        position = found.end()
        bracket = buffer[position - 1]
        if bracket in CLOSING:
            waiting.append(CLOSING[bracket])
            counts[waiting[-1]] += 1
        elif counts[bracket]:
            while waiting[-1] != bracket:
                counts[waiting.pop()] -= 1
            counts[waiting.pop()] -= 1
            if not waiting:
                return position
    return None


def _read_object(
    buffer: mmap, start: int, end: int, is_record: Callable[[Iterable[str]], bool]
) -> Iterator[tuple[int, Record]]:
    """One object that is the whole document: a record, or what stands around the one list of objects in it."""
    places = _members(buffer, start + 1, end)
    lists = [place for place in places.values() if LIST_OF_OBJECTS.match(buffer, place)]
    if len(lists) == 1 and not is_record(places):
        yield from _read_elements(buffer, lists[0] + 1, closed=True, alone=False)
    else:
        yield end, decode(1, buffer[start:end])


def _members(buffer: mmap, position: int, end: int) -> dict[str, int]:
    """Where the value of each key starts, in an object whose inside starts at `position`."""
    places: dict[str, int] = {}
    while position < end and (found := KEY.match(buffer, position)):
        fault, key = _decoded(found[1])
        if fault is not None:
            break
        places[key] = position = found.end()
        if buffer[position] in CLOSING:
            position = _end_of_value(buffer, position) or end
        position = _past(TO_STRUCTURE, buffer, position)
    return places


def _past(pattern: re.Pattern[bytes], buffer: Buffer, position: int) -> int:
    """Where a pattern that starts at `position` ends; `position` itself where it does not fit."""
    found = pattern.match(buffer, position)
    return found.end() if found else position


def _at(buffer: Buffer, position: int) -> bytes:
    """The byte at `position`; none at the end."""
    return buffer[position : position + 1]
