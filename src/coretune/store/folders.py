"""Folders that are complete or absent: how anything gets a name in the store, and how it loses it.

A folder is written under a temporary name that starts with a dot, every file and the folder synced, and renamed.
`done.json`, written last, holds the length of every file; a folder whose files disagree with it is damaged and never
read. Removing goes the other way: first the name, then the files. So a process may be killed at any moment, and any
number of them may share a store. A living process holds a lock on its temporary folder; those without are swept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from coretune.errors import FolderError

DONE, LOCK = "done.json", "lock"
YOUNG_SECONDS = 60.0  # a temporary folder this young may not have its lock yet
OLD_SECONDS = 86400.0  # where the disk knows no locks, a temporary folder is left behind when it is this old
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
BARRED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@contextlib.contextmanager
def new_folder(place: Path, label: str, about: dict[str, Any]) -> Iterator[Path]:
    """A temporary folder to write files into; under `place` it gets a name of its own when the body is done.

    The name starts with `label`, by which folders at an address are in order; `about` goes into `done.json`. Raises
    `FolderError` where the disk is full or not writable; whatever is raised, only a finished folder has a name.
    """
    name = f"{label}-{uuid4().hex[:12]}"
    draft = place / f".{name}"
    with failing_clearly(place):
        draft.mkdir(parents=True)
        handle = os.open(draft, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a disk without locks: its leftovers go by age
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield draft
            _seal(draft, about)
            draft.rename(place / name)
            sync(place)
        finally:
            os.close(handle)
            shutil.rmtree(draft, ignore_errors=True)


def finished(place: Path) -> list[Path]:
    """The finished folders at an address, in order of name; an empty list where nothing was stored yet."""
    try:
        with failing_clearly(place), os.scandir(place) as found:
            return sorted(Path(each.path) for each in found if not each.name.startswith(".") and each.is_dir())
    except FileNotFoundError:
        return []


def read_done(folder: Path) -> dict[str, Any]:
    """What `done.json` says, once every file is found to have the length it was written with.

    Raises `FileNotFoundError` where the folder or a file of it is gone, `ValueError` where anything disagrees.
    """
    done = json.loads((folder / DONE).read_text(encoding="utf-8"))
    if not isinstance(done, dict) or not isinstance(done.get("files"), dict):
        raise ValueError(f"{DONE} names no files")
    for name, length in done["files"].items():
        found = (folder / name).stat().st_size
        if found != length:
            raise ValueError(f"{name} has {found} bytes, {length} were written")
    return done


def remove(folder: Path) -> None:
    """Take a folder away: its name first, so that nobody finds it half gone. One that is gone already is no error."""
    gone = folder.with_name(f".{uuid4().hex}")
    with contextlib.suppress(FileNotFoundError), failing_clearly(folder):
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Hold the lock of an address while joining its arrays; another process waits.

    Where a disk knows no locks, both join, which does no harm.
    """
    with failing_clearly(place), (place / LOCK).open("a") as handle:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sweep(place: Path) -> int:
    """Remove what processes that are gone left half written at an address; returns the bytes freed."""
    freed = 0
    for path in place.glob(".*"):
        with contextlib.suppress(OSError):
            if _abandoned(path):
                freed += size_of(path)
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    return freed


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files under a folder."""
    total = 0
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        with contextlib.suppress(FileNotFoundError):
            total += each.stat().st_size if each.is_file() and not each.is_symlink() else 0
    return total


@contextlib.contextmanager
def failing_clearly(place: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into a `FolderError` that says what to do; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise FolderError(
                f"the store has no room left ({error.strerror}) at {place}; free some space, prune it with "
                "`coretune cache`, or take another disk with --store DIR. What is finished stays: run again to go on"
            ) from error
        if error.errno in BARRED:
            raise FolderError(
                f"the store cannot be used ({error.strerror}) at {place}; "
                "take a folder that can be written, with --store DIR"
            ) from error
        raise


def sync(path: Path) -> None:
    """Bring a file or folder to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _seal(draft: Path, about: dict[str, Any]) -> None:
    """Write `done.json`, with the length of every other file, and bring everything to the disk."""
    inside = sorted(draft.rglob("*"))
    sizes = {path.relative_to(draft).as_posix(): path.stat().st_size for path in inside if path.is_file()}
    for path in inside:
        sync(path)
    (draft / DONE).write_text(json.dumps({**about, "files": sizes}), encoding="utf-8")
    sync(draft / DONE)
    sync(draft)


def _abandoned(path: Path) -> bool:
    """Whether a temporary file or folder belongs to nobody any more."""
    age = time.time() - path.stat().st_mtime
    if age < YOUNG_SECONDS or not path.is_dir():
        return age >= YOUNG_SECONDS
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return age > OLD_SECONDS
    finally:
        os.close(handle)
