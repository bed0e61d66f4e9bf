"""Methods: one paper a file, found by its file name; each composes parts and yields rounds.

A method's docstring opens with the idea in one sentence, then `Paper:`, `Needs:` and `Costs:` lines, the steps in
prose, `Notation:`, `Relations:` and `Differs:`. `coretune methods` prints the first four.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from coretune.errors import nearest

if TYPE_CHECKING:
    import numpy as np

    from coretune.lab import Lab
    from coretune.pool import Pool
    from coretune.rounds import Round
    from coretune.selection import Budget


class Method(Protocol):
    """A published method as a frozen dataclass: fields are its options, on the command line and in `run.toml`."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """Choose from `pool`, whose rows are all candidates, within `budget`; one-shot methods yield once."""
        ...


@dataclasses.dataclass(frozen=True)
class Card:
    """What a method's header says of it, one line each."""

    name: str
    idea: str
    paper: str
    needs: str
    costs: str


def names() -> tuple[str, ...]:
    """The methods that come with coretune, in alphabetical order."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> type[Method]:
    """The class of a method: a file name in this folder, or `package.module:Class` from anywhere.

    Raises `ValueError`, naming the nearest, where there is none.
    """
    if ":" in name:
        module_name, class_name = name.split(":", 1)
        try:
            found: type[Method] = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"method {name!r} cannot be imported: {error}") from error
        return found
    if name not in names():
        known = ", ".join(names())
        raise ValueError(f"no method {name!r}{nearest(name, names())} Known: {known}; or give package.module:Class")
    module = importlib.import_module(f"{__name__}.{name}")
    classes: list[Any] = [part for part in vars(module).values() if inspect.isclass(part)]
    method: type[Method]
    (method,) = (part for part in classes if part.__module__ == module.__name__)
    return method


def card(name: str) -> Card:
    """The header of a method's file, as data."""
    text = inspect.cleandoc(importlib.import_module(find(name).__module__).__doc__ or "")
    said = {
        key: re.sub(r"\s+", " ", found.group(1)).strip()
        for key in ("Paper", "Needs", "Costs")
        if (found := re.search(rf"^{key}: (.*?)(?=\n\S|\n\n|\Z)", text, re.MULTILINE | re.DOTALL))
    }
    idea = re.sub(r"\s+", " ", text.split("\n\n", 1)[0])
    return Card(name, idea, said.get("Paper", ""), said.get("Needs", ""), said.get("Costs", ""))
