"""The store: what was measured or computed, by what it is; what it holds, how old that is, and pruning.

    STORE/features/ADDRESS/spec.json      what was measured, in words; its time is that of the last use
                           NAME/          an array of some rows (see `arrays`): done.json says it is complete
    STORE/kept/ADDRESS/    the same for results of arithmetic (see `kept`)
    STORE/tunings/ADDRESS/ the same for tuned models, made by `tuning`; `work` there is one that is not finished
    STORE/indexes/ADDRESS/ the same for indexes of a corpus, made by `knowledge`
    STORE/models/*/NAME/   models prepared for use, made by `models`; in the default store only
    STORE/pools/NAME/      large pools as they were read, made by `readers`; in the default store only

A change of this layout changes the names `features`, `kept`, `tunings` and `indexes`, so that no version misreads
another's.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from coretune.errors import nearest
from coretune.store import folders
from coretune.store.digests import digest

FEATURES, KEPT, TUNINGS, INDEXES = "features", "kept", "tunings", "indexes"
COPIES = {"models": "*/*", "pools": "*"}  # rooms of others, whose folders are listed and pruned with these
SPEC = "spec.json"
DAY_SECONDS = 86400.0


def default_store() -> Path:
    """`$XDG_CACHE_HOME/coretune`, or `~/.cache/coretune`."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "coretune"


def place_of(root: Path, room: str, said: dict[str, Any]) -> Path:
    """The folder, in room `features`, `kept`, `tunings` or `indexes`, for what these words say; nothing is made."""
    return root / room / digest(said)


def describe(place: Path, said: dict[str, Any]) -> None:
    """Make the folder of an address, with its words in `spec.json`. Raises `FolderError` where it cannot."""
    with folders.failing_clearly(place):
        place.mkdir(parents=True, exist_ok=True)
        if not (place / SPEC).exists():
            draft = place / f".{uuid4().hex}"
            draft.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            draft.replace(place / SPEC)
            folders.sync(place.parent)


def touch(place: Path) -> None:
    """Note that what lies at an address was used now; where the store cannot be written, its time stays."""
    with contextlib.suppress(OSError):
        os.utime(place / SPEC)


@dataclass(frozen=True)
class Entry:
    """What lies at one address.

    `room` is `features`, `kept`, `tunings`, `indexes`, `models` or `pools`; `rows` is the rows measured, tuned on or
    indexed, 0 where there are none; `made_from` is the spec in words.
    """

    path: Path
    room: str
    address: str
    made_from: str
    rows: int
    bytes: int
    used: float  # seconds since 1970

    @property
    def idle_days(self) -> float:
        """Days since it was last used."""
        return max(0.0, time.time() - self.used) / DAY_SECONDS


def listing(root: Path) -> list[Entry]:
    """Everything stored, last used first."""
    return sorted(_entries(root), key=lambda entry: (-entry.used, entry.address))


def prune(
    root: Path, *, addresses: Sequence[str] = (), idle_days: float | None = None, everything: bool = False
) -> list[Entry]:
    """Remove what has one of these addresses (or starts so), or was not used for `idle_days`, or all; returns it.

    What processes that are gone left half written goes too. Raises `ValueError` for an address that fits nothing or
    more than one entry.
    """
    entries = listing(root)
    named = {_find(entries, address).path for address in addresses}
    chosen = [
        entry
        for entry in entries
        if everything or entry.path in named or (idle_days is not None and entry.idle_days >= idle_days)
    ]
    for entry in chosen:
        folders.remove(entry.path)
    for room in (FEATURES, KEPT, TUNINGS, INDEXES):
        for place in (root / room, *folders.finished(root / room)):
            folders.sweep(place)
    return chosen


def _entries(root: Path) -> Iterator[Entry]:
    for room in (FEATURES, KEPT, TUNINGS, INDEXES):
        for place in folders.finished(root / room):
            try:
                said = json.loads((place / SPEC).read_text(encoding="utf-8"))
                used = (place / SPEC).stat().st_mtime
            except (OSError, ValueError):
                said, used = None, 0.0
            rows = 0
            for each in folders.finished(place):
                with contextlib.suppress(OSError, ValueError):
                    rows += int(folders.read_done(each).get("rows", 0))
            made_from = "unknown: its spec.json is missing" if said is None else in_words(said)
            yield Entry(place, room, place.name, made_from, rows, folders.size_of(place), used)
    for room, pattern in COPIES.items():
        for place in (root / room).glob(pattern):
            if place.is_dir() and not place.name.startswith("."):
                made_from = f"prepared copy, {place.relative_to(root)}"
                yield Entry(place, room, place.name, made_from, 0, folders.size_of(place), place.stat().st_mtime)


def _find(entries: Sequence[Entry], address: str) -> Entry:
    found = [entry for entry in entries if entry.address.startswith(address)]
    if len(found) == 1 and address:
        return found[0]
    known = [entry.address for entry in entries]
    held = f"{len(found)} addresses start so" if found else f"nothing stored starts so{nearest(address, known)}"
    raise ValueError(f"address {address!r} asked to be pruned, but {held}; `coretune cache` lists them")


def in_words(said: Any) -> str:
    """The words of an address as one line: `Embedding 1 (model: 3f2a..., pooling: mean)`."""
    if isinstance(said, dict) and "fields" in said:
        fields = ", ".join(f"{name}: {in_words(value)}" for name, value in said["fields"].items())
        name = said["class"].rsplit(".", 1)[-1] + ("" if said.get("version") is None else f" {said['version']}")
        return f"{name} ({fields})" if fields else name
    if isinstance(said, dict) and "function" in said:
        inputs = [in_words(each) for each in said.get("inputs", [])]
        options = [f"{name}={in_words(value)}" for name, value in said.get("options", {}).items()]
        return f"{said['function'].rsplit('.', 1)[-1]}({', '.join(inputs + options)})"
    if isinstance(said, dict) and len(said) == 1:
        ((kind, value),) = said.items()
        return f"[{', '.join(map(in_words, value))}]" if kind in ("tuple", "list") else f"{kind} {_short(value)}"
    if isinstance(said, dict) and "fingerprint" in said:
        return f"{said['class'].rsplit('.', 1)[-1]} {_short(said['fingerprint'])}"
    return "none" if said is None else _short(said)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 48 else text[:12] + "…"
