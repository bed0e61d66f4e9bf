"""Shapes in types are free in use and real under a checker: a wrong shape raises."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from coretune import shapes

CHECKED = """
import warnings
warnings.simplefilter("ignore")  # beartype's, about how others write their hints
import jaxtyping, beartype
with jaxtyping.install_import_hook("coretune", "beartype.beartype"):
    import numpy as np
    from coretune.partitions import Partition, proportional, within
    from coretune.pickers import closest, drawn, k_center, top
    from coretune.selection import Selection, lift

x, rng = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32), np.random.default_rng(0)
cells = Partition(np.arange(9, dtype=np.int32) % 2)
assert len(k_center(x, 3)) == len(top(x[:, 0], 3)) == len(closest(x, x[0], 3)) == len(drawn(x[:, 0], 3, rng=rng)) == 3
assert len(within(cells, proportional(cells.sizes, 4), lambda rows, quota, rng: top(x[rows, 0], quota), rng)) == 4

wrong = {
    "two dimensions for one": lambda: top(x, 3),
    "one dimension for two": lambda: k_center(x[0], 1),
    "whole numbers for floats": lambda: k_center(np.ones((3, 3), np.int64), 1),
    "a point of two dimensions": lambda: closest(x, x, 3),
    "gains of another length": lambda: Selection(np.arange(2), np.zeros(3, np.float32), np.ones(2, np.float32)),
    "cells of another type": lambda: Partition(np.arange(9)),
    "rows of two dimensions": lambda: lift(Selection.of([0]), np.zeros((2, 2), np.int64)),
}
for what, call in wrong.items():
    try:
        call()
    except (jaxtyping.TypeCheckError, beartype.roar.BeartypeException):
        continue
    raise SystemExit(f"{what} was let through")
print("checked", len(wrong))
"""


def test_a_wrong_shape_raises_under_a_checker() -> None:
    done = subprocess.run([sys.executable, "-c", CHECKED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "checked 7"


def test_without_a_checker_a_shape_is_its_array_type_and_imports_nothing() -> None:
    code = (
        "import sys, numpy as np; from coretune import shapes; "
        "print(shapes.Float[np.ndarray, 'n d'] is np.ndarray, 'jaxtyping' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_every_name_is_there() -> None:
    assert all(shapes.__dict__[name][np.ndarray, " n"] is not None for name in shapes.__all__)
