"""The judge of a method: its answers lie in the store of the lab that asks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from coretune.judge import Judge

if TYPE_CHECKING:
    from coretune.lab import Lab


def in_store(judge: Judge, lab: Lab) -> Judge:
    """The judge with its file of answers in the lab's store, unless it was given one."""
    return judge if judge.store is not None else replace(judge, store=str(lab.store / "answers"))
