"""The models' part of the cache: files and folders that are complete or absent, whoever writes at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from coretune.errors import ModelError
from coretune.store import default_store
from coretune.store.folders import sync

_making = threading.RLock()


def models_cache() -> Path:
    """`$XDG_CACHE_HOME/coretune/models`, by default under `~/.cache`."""
    return default_store() / "models"


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name when the body is done. Raises `ModelError` where it cannot be written."""
    with _writing(path), tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as draft:
        try:
            yield draft.file
            draft.flush()
            sync(Path(draft.name))
            Path(draft.name).replace(path)
        finally:
            Path(draft.name).unlink(missing_ok=True)


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, which `make` fills where it is not there yet; others who want it meanwhile wait for it.

    Raises `ModelError` where it cannot be written.
    """
    if folder.exists():
        return folder
    with _writing(folder), _making, folder.with_name(f".{folder.name}.lock").open("a") as lock:
        with contextlib.suppress(OSError):  # a disk without locks: two may make it, the first to finish stays
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
        try:
            make(draft)
            for path in (*draft.rglob("*"), draft):
                sync(path)
            with contextlib.suppress(FileExistsError):
                draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make the parent folder, and say what to do where it or what goes into it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ModelError(
            f"{path} cannot be written ({error.strerror or error}); models are prepared in the cache, so free some "
            "space there or set XDG_CACHE_HOME to a folder that can be written"
        ) from error
