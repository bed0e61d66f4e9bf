"""What can go wrong, as types.

    CoretuneError            the world is not as asked: a file, a model, a folder, a budget
    ├── PoolError            an input cannot be read as a pool, or holds nothing usable
    ├── ModelError           a model or tokenizer cannot be loaded, or cannot do what is asked
    ├── MissingExtra         an optional package is needed; the message holds its install command
    ├── FolderError          a run folder or store is in the way, incomplete, or not writable
    └── Unmeasurable         a feature has no value for some rows; `rows` and `reason` say which and why

Wrong arguments are `ValueError`s, `UnmetBudget` among them. Every message says what was asked, what was found, and
what to do.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from coretune.pool import Pool


class CoretuneError(Exception):
    """Anything coretune reports to a user; the text is the whole message."""


class PoolError(CoretuneError):
    """An input cannot be read as a pool."""


class ModelError(CoretuneError):
    """A model or tokenizer cannot be loaded or used."""


class MissingExtra(CoretuneError):
    """An optional package is not installed."""


class FolderError(CoretuneError):
    """A folder cannot be used as asked."""


class Unmeasurable(CoretuneError):
    """A feature has no finite value for some `rows` of `pool`, the very object it was asked for."""

    def __init__(self, rows: np.ndarray, reason: str, pool: Pool | None = None) -> None:
        super().__init__(f"{len(rows)} rows cannot be measured ({reason}); the first are {rows[:5].tolist()}")
        self.rows = rows
        self.reason = reason
        self.pool = pool


class UnmetBudget(ValueError):
    """A budget asks for more than there is to choose among, or for less than the shortest answer."""


def nearest(asked: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, naming the known word nearest to `asked`, or an empty string."""
    close = difflib.get_close_matches(asked, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def need(module: str, extra: str) -> ModuleType:
    """Import an optional module. Raises `MissingExtra`, naming the install command, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"this needs {module.split('.')[0]}, which could not be imported ({error}); "
            f"install it with: pip install 'coretune[{extra}]'"
        ) from error
