"""Differences between any two arms of a comparison at its primary budget, as the verdict takes those to random.

    python examples/contrasts.py small-comparison/clean --against full
    python examples/contrasts.py ltd-setting/wordings --against "1 wording"

Each line is an arm less the one named, positive is better, with its 95% interval, and the same in per cent of the
other's mean. Nothing is corrected for how many there are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ltd_curve import scores

from coretune.statistics import difference


def main() -> None:
    """Read the scores of all arms, take differences, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", default="random")
    asked = parser.parse_args()
    primary = json.loads((asked.folder / "verdict.json").read_text())["primary"]
    ours = (pc.field("task") == primary["task"]) & (pc.field("metric") == primary["metric"])
    items = pq.read_table(asked.folder / "items.parquet").filter(ours)
    turn = 1.0 if primary["higher_is_better"] else -1.0
    keys = dict.fromkeys(zip(items["arm"].to_pylist(), items["budget"].to_pylist(), strict=True))
    arms = {arm: turn * scores(items, arm, budget) for arm, budget in keys if budget in (primary["budget"], "100%", "")}
    other = arms[asked.against]
    for name, own in arms.items():
        if name == asked.against:
            continue
        apart = (name, asked.against, "full")  # run variance is pooled over arms of one budget
        pooled = [each for arm, each in arms.items() if arm not in apart and len(each) > 1]
        found = difference(own, other, others=pooled, fixed=(name == "untuned", asked.against == "untuned"))
        low, high = found.interval()
        share = 100 / abs(float(np.mean(other)))
        print(
            f"{name}: {found.value:+.3f} [{low:+.3f}, {high:+.3f}], "
            f"relative {share * found.value:+.1f}% [{share * low:+.1f}, {share * high:+.1f}]"
        )


if __name__ == "__main__":
    main()
