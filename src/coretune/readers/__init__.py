"""Files to pools: every record given is an example of the pool or a reject with its reason."""

from coretune.readers.reading import read_pool

__all__ = ["read_pool"]
