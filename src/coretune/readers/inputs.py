"""What a user names as a pool, as a list of things to read: files, folders, globs, standard input, hub data sets."""

from __future__ import annotations

import difflib
import glob
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coretune.errors import PoolError
from coretune.readers.record_files import COMPRESSED, KINDS, kind_of_name, stem_of_name

HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(/[\w.-]+)?(:[\w.\[\]%+-]+)?$")
ABOUT_DATA = frozenset(("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"))

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to read: a file, or standard input or a hub data set, which have no `path`.

    `stem` is the source of records that name none, `short` stands for `name` in ids: it does not say in which folder
    the data are kept.
    """

    name: str
    stem: str
    short: str
    path: Path | None = None
    dataset: str | None = None


def find_sources(inputs: Sequence[str | Path]) -> list[Source]:
    """Everything that the inputs name, in their order, folders and globs sorted by path.

    Raises `PoolError` where an input names nothing, or a folder holds no file that can be read.
    """
    if not inputs:
        raise PoolError("no pool was named; give a file, a folder, a glob, '-' or a hub data set")
    found = [place for given in inputs for place in _named(str(given))]
    twice = sorted({str(each) for each in found if found.count(each) > 1})
    if "-" in twice:
        raise PoolError("standard input, '-', can be read once only")
    if twice:
        log.warning("read more than once, as asked: %s", ", ".join(twice))
    return _sources(found)


def _named(given: str) -> Sequence[Path | str]:
    """The files that one input names; itself where it is standard input or may be a data set of the hub."""
    path = Path(given)
    try:
        if given == "-":
            return [given]
        if given and path.is_dir():
            return _in_folder(path)
        if given and path.exists():
            return [path]
    except OSError as error:
        raise PoolError(f"{given[:80]!r} is no name of a file: {error.strerror}") from error
    if glob.has_magic(given):
        return _in_glob(given)
    if _may_be_on_hub(given):
        return [given]
    raise PoolError(_nothing_there(path) if given else "an empty name was given for a pool")


def _sources(found: Sequence[Path | str]) -> list[Source]:
    real = [os.path.abspath(each) for each in found if isinstance(each, Path)]  # noqa: PTH100
    folder = os.path.commonpath([os.path.dirname(each) for each in real]) if real else ""  # noqa: PTH120
    sources = []
    for each in found:
        if isinstance(each, Path):
            short = Path(os.path.relpath(os.path.abspath(each), folder)).as_posix()  # noqa: PTH100
            sources.append(Source(_printable(str(each)), _printable(stem_of_name(each.name)), _printable(short), each))
        elif each == "-":
            sources.append(Source("-", "stdin", "stdin"))
        else:
            sources.append(Source(each, each.partition(":")[0], each, dataset=each))
    return sources


def _in_folder(folder: Path) -> list[Path]:
    """The files below a folder whose names say that they can be read, sorted by path; hidden ones are passed over."""
    found: list[Path] = []
    others = 0

    def refuse(error: OSError) -> None:
        raise PoolError(f"{error.filename} cannot be read: {error.strerror}") from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            known = kind_of_name(name) is not None and not name.startswith(".") and name not in ABOUT_DATA
            others += not known
            found += [Path(place, name)] if known else []
    if not found:
        suffixes = f"{', '.join(KINDS)} (with {' or '.join(COMPRESSED)} too)"
        raise PoolError(f"{folder} holds no file that can be read: of {others} files, none ends in {suffixes}")
    if others:
        log.info("%s: %d files of other kinds were passed over", folder, others)
    return sorted(found)


def _in_glob(pattern: str) -> list[Path]:
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    if not matches:
        raise PoolError(f"{pattern!r} matches no file; the folder it was looked for in is {Path.cwd()}")
    if any(match.is_file() for match in matches):
        return [match for match in matches if match.is_file()]
    return [path for match in matches for path in _in_folder(match)]


def _may_be_on_hub(name: str) -> bool:
    """Whether a name that is no file has the form of a data set's: `owner/name`, then `/config` and `:split` if any."""
    return bool(HUB_ID.match(name)) and kind_of_name(name) is None and not name.startswith(".")


def _nothing_there(path: Path) -> str:
    parent = path.parent
    while not parent.is_dir():
        parent = parent.parent
    near = difflib.get_close_matches(path.name, os.listdir(parent), n=3, cutoff=0.6)  # noqa: PTH208
    hint = f"; near it there: {', '.join(str(parent / name) for name in near)}" if near else ""
    where = "" if parent == path.parent else f", nor the folder {path.parent}"
    return (
        f"there is no file {str(path)!r}{where}{hint}. A pool is a file, a folder, a glob, '-' or owner/name on the hub"
    )


def _printable(text: str) -> str:
    """A file name as text, whatever bytes it is made of."""
    return text.encode("utf-8", "backslashreplace").decode()
