"""Pickers: arrays and a number in, a Selection out. One idea a file."""

from __future__ import annotations

from coretune.pickers.closest import closest
from coretune.pickers.drawn import drawn
from coretune.pickers.facility_location import facility_location
from coretune.pickers.k_center import k_center
from coretune.pickers.nonnegative_omp import nonnegative_omp
from coretune.pickers.omp import omp
from coretune.pickers.omp_restarts import omp_restarts
from coretune.pickers.round_robin import round_robin
from coretune.pickers.stochastic_facility_location import stochastic_facility_location
from coretune.pickers.top import top
from coretune.pickers.uniform import uniform

__all__ = [
    "closest",
    "drawn",
    "facility_location",
    "k_center",
    "nonnegative_omp",
    "omp",
    "omp_restarts",
    "round_robin",
    "stochastic_facility_location",
    "top",
    "uniform",
]
