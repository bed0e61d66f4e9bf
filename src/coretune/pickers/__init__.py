"""Pickers: arrays and a number in, a Selection out. One idea a file."""

from __future__ import annotations

from coretune.pickers.closest import closest
from coretune.pickers.conditional_facility_location import conditional_facility_location
from coretune.pickers.distance_filter import distance_filter
from coretune.pickers.drawn import drawn
from coretune.pickers.facility_location import facility_location
from coretune.pickers.k_center import k_center
from coretune.pickers.label_graph import LabelGraph, propagation, propagation_by_receiver, similar_labels
from coretune.pickers.middle import middle
from coretune.pickers.mig import mig
from coretune.pickers.nonnegative_omp import nonnegative_omp
from coretune.pickers.omp import omp
from coretune.pickers.omp_restarts import omp_restarts
from coretune.pickers.quality_and_coverage import in_gains_of, quality_and_coverage
from coretune.pickers.query_facility_location import query_facility_location
from coretune.pickers.repeated_facility_location import repeated_facility_location
from coretune.pickers.round_robin import round_robin
from coretune.pickers.saturating_facility_location import saturating_facility_location
from coretune.pickers.sliding_window import sliding_window
from coretune.pickers.stochastic_facility_location import stochastic_facility_location
from coretune.pickers.tag_coverage import tag_coverage
from coretune.pickers.top import top
from coretune.pickers.uniform import uniform

__all__ = [
    "LabelGraph",
    "closest",
    "conditional_facility_location",
    "distance_filter",
    "drawn",
    "facility_location",
    "in_gains_of",
    "k_center",
    "middle",
    "mig",
    "nonnegative_omp",
    "omp",
    "omp_restarts",
    "propagation",
    "propagation_by_receiver",
    "quality_and_coverage",
    "query_facility_location",
    "repeated_facility_location",
    "round_robin",
    "saturating_facility_location",
    "similar_labels",
    "sliding_window",
    "stochastic_facility_location",
    "tag_coverage",
    "top",
    "uniform",
]
