"""Fuzz the readers with the cases of tests/test_fuzz_readers.py, by the thousand.

    python benchmarks/fuzz_readers.py 5000 [SEED]

Prints the number of cases, tracebacks (with the smallest case behind each kind), and what became of the records: of
the cases whose number of records is known, rows and rejects together must make that number.
"""

from __future__ import annotations

import collections
import sys
import tempfile
import time
import traceback
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from test_fuzz_readers import Account, Case, account, cases


def main(count: int, start: int) -> int:
    """Run `count` cases; 1 where one of them failed."""
    done: collections.Counter[str] = collections.Counter()
    failures: dict[str, tuple[Case, str]] = {}
    known = 0

    @seed(start)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def run(case: Case) -> None:
        nonlocal known
        done["cases"] += 1
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = account(case, Path(folder))
            except Exception as error:
                where = f"{type(error).__name__} in {traceback.extract_tb(error.__traceback__)[-1]}"
                if where not in failures or len(case.data) < len(failures[where][0].data):
                    failures[where] = (case, traceback.format_exc())
                done["tracebacks"] += 1
                return
        known += 0 if case.records is None else case.records
        _count(done, found)

    before = time.perf_counter()
    run()
    for case, text in failures.values():
        print(f"{case!r}\n{text}")
    print(
        f"cases={done['cases']} seconds={time.perf_counter() - before:.0f} tracebacks={done['tracebacks']} "
        f"pools={done['pools']} refused={done['refused']} rows={done['rows']} rejected={done['rejected']}"
    )
    print(f"records whose number was known beforehand, all accounted for: {known}")
    return 1 if failures else 0


def _count(done: collections.Counter[str], found: Account) -> None:
    done["refused" if found.refused else "pools"] += 1
    done["rows"] += found.rows
    done["rejected"] += found.rejected


if __name__ == "__main__":
    numbers = [int(each) for each in sys.argv[1:]]
    sys.exit(main(numbers[0] if numbers else 5000, numbers[1] if len(numbers) > 1 else 0))
