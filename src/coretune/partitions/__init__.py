"""Partitions: which cell each row is in, how many rows each cell gives, and picking within cells."""

from __future__ import annotations

from coretune.partitions.choosing import choose_k, powers_of_two
from coretune.partitions.growing import grown
from coretune.partitions.kmeans import kmeans
from coretune.partitions.partition import Partition, by_column, by_quantile, split
from coretune.partitions.picking import within
from coretune.partitions.quotas import equal, proportional, smallest_first
from coretune.partitions.silhouettes import (
    full_silhouette,
    nearest_center,
    silhouette_curve,
    simplified_silhouette,
    squared_silhouette,
)

__all__ = [
    "Partition",
    "by_column",
    "by_quantile",
    "choose_k",
    "equal",
    "full_silhouette",
    "grown",
    "kmeans",
    "nearest_center",
    "powers_of_two",
    "proportional",
    "silhouette_curve",
    "simplified_silhouette",
    "smallest_first",
    "split",
    "squared_silhouette",
    "within",
]
