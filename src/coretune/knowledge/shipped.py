"""The knowledge that comes with coretune: 3,000 instructions and answers that people wrote."""

from __future__ import annotations

from coretune.data import DEMO_POOL
from coretune.knowledge.corpus import Knowledge
from coretune.readers import read_pool


def shipped() -> Knowledge:
    """The shipped part of databricks-dolly-15k, CC BY-SA 3.0, a passage a record."""
    return Knowledge.from_pool(read_pool(DEMO_POOL))
