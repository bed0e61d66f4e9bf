"""coretune: which part of an instruction-tuning pool is worth tuning on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coretune.lab import Lab
    from coretune.pool import Example, Message, Pool
    from coretune.readers import read_pool
    from coretune.runs import select
    from coretune.selection import Budget, Selection

_HOMES = {
    "Budget": "selection",
    "Example": "pool",
    "Lab": "lab",
    "Message": "pool",
    "Pool": "pool",
    "Selection": "selection",
    "read_pool": "readers",
    "select": "runs",
}

_ROOMS = ("partitions", "pickers", "scores")  # rooms of plain functions, as in coretune.pickers.k_center(x, k)

__all__ = ["Budget", "Example", "Lab", "Message", "Pool", "Selection", "read_pool", "select"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that `import coretune` stays quick."""
    from importlib import import_module

    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
