"""Data that comes with coretune: a real pool of 3,000 records, small enough to try everything on."""

from __future__ import annotations

from pathlib import Path

DEMO_POOL = Path(__file__).with_name("dolly_3k.jsonl.gz")
"""3,000 records of databricks-dolly-15k, CC BY-SA 3.0; `README.md` beside it says where they come from."""
