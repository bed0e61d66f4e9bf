"""Pools to files: records as they came in, or converted, and those that were rejected."""

from coretune.writers.writing import write_records, write_rejected

__all__ = ["write_records", "write_rejected"]
