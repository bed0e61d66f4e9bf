"""Pickers: arrays and a number in, a Selection out. One idea a file."""

from __future__ import annotations

from coretune.pickers.closest import closest
from coretune.pickers.drawn import drawn
from coretune.pickers.k_center import k_center
from coretune.pickers.round_robin import round_robin
from coretune.pickers.top import top
from coretune.pickers.uniform import uniform

__all__ = ["closest", "drawn", "k_center", "round_robin", "top", "uniform"]
