"""Stages: what a piece of a run cost, in seconds, rows, bytes and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from coretune.store.costs import Cost

if TYPE_CHECKING:
    from coretune.judge import Spent

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Prices(Protocol):
    """Prices of tokens, as a judge's budget has them."""

    def price(self, requests: int, input_tokens: int, output_tokens: int) -> Spent:
        """What these tokens cost."""
        ...


@dataclass
class Stage:
    """What one piece of a run cost; whoever runs it fills the fields that it knows.

    `seconds` is wall time without that of stages inside it, so that the stages of a run add up. `rows` were measured
    or worked on now, `stored` were found in the store, `bytes` were written. `peak_memory_bytes` is the largest
    resident memory of this process while the stage ran, plus that of each worker process (see `peak_is_exact`).
    `tokens` went forward through models and `tokens_back` of them back. `spared_*` is what the stored rows took when
    they were measured: with it, a stage costs what it would without a store. `judge_tokens` and `money` are those of
    a judge's answers to all these rows, also where they had been paid for before.
    """

    name: str
    seconds: float = 0.0
    rows: int = 0
    stored: int = 0
    bytes: int = 0
    peak_memory_bytes: int = 0
    tokens: int = 0
    tokens_back: int = 0
    spared_seconds: float = 0.0
    spared_tokens: int = 0
    spared_tokens_back: int = 0
    judge_tokens: int = 0
    money: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)

    def spare(self, cost: Cost) -> None:
        """Note what was found in the store in place of being measured."""
        self.spared_seconds += cost.seconds
        self.spared_tokens += cost.forward
        self.spared_tokens_back += cost.backward

    def pay(self, budget: Prices, input_tokens: int, output_tokens: int) -> None:
        """Note what a judge's answers cost, by the prices of its budget."""
        self.judge_tokens += input_tokens + output_tokens
        self.money += budget.price(1, input_tokens, output_tokens).money


class Clock:
    """Times stages, also one inside another, and lists those that are over, in the order in which they ended."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._inside: list[float] = []  # for each stage that runs: seconds spent in stages inside it
        self._peaks: list[int] = []  # and the largest memory seen before the last reset

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Time what happens in the block; what it puts into `peak_memory_bytes` (its workers' peaks) is added."""
        stage, began = Stage(name), time.perf_counter()
        if self._peaks:
            self._peaks[-1] = max(self._peaks[-1], peak_memory_bytes())
        reset_peak_memory()
        self._inside.append(0.0)
        self._peaks.append(0)
        try:
            yield stage
        finally:
            whole = time.perf_counter() - began
            peak = max(self._peaks.pop(), peak_memory_bytes())
            stage.seconds = whole - self._inside.pop()
            stage.peak_memory_bytes += peak
            if self._peaks:
                self._inside[-1] += whole
                self._peaks[-1] = max(self._peaks[-1], stage.peak_memory_bytes)
            self.stages.append(stage)


def reset_peak_memory() -> bool:
    """Let the peak count from now on; False where the system cannot (it then counts from the start of the process)."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_is_exact() -> bool:
    """Whether peaks are those of a stage alone (Linux, VmHWM), not of the process since its start (ru_maxrss)."""
    return STATUS.exists() and os.access(CLEAR, os.W_OK)


def peak_memory_bytes() -> int:
    """The largest resident memory of this process since the last reset."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(STATUS.read_text().split("VmHWM:")[1].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
