"""The names that the outside relies on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import coretune


def test_everything_announced_is_there():
    assert coretune.__all__ == sorted(coretune.__all__)
    for name in coretune.__all__:
        assert getattr(coretune, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Pol'"):
        coretune.Pol


def test_parts_work_on_plain_arrays_right_after_import():
    code = (
        "import numpy as np, coretune\n"
        "x = np.random.default_rng(0).normal(size=(40, 3))\n"
        "print(len(coretune.pickers.k_center(x, 5)), len(coretune.partitions.kmeans(x, 4, np.random.default_rng(1))))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["5", "4"]


def test_select_takes_a_method_by_name_or_as_an_object(tmp_path):
    from coretune.methods.random import Random
    from tests.made_pools import pool_of

    pool, lab = pool_of(tmp_path), coretune.Lab(tmp_path / "store")
    by_name = coretune.select(pool, "random", budget="10", lab=lab, seed=2)
    as_object = coretune.select(pool, Random(), budget="10", lab=lab, seed=2)
    np.testing.assert_array_equal(by_name.rows, as_object.rows)
    assert len(by_name) == 10
