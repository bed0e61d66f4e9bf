"""The full pool's estimate, against curves whose end is known."""

from __future__ import annotations

import numpy as np
import pytest

from coretune.statistics.extrapolated import extrapolated

SIZES = (100.0, 300.0, 900.0, 2700.0)


def curve(size: float) -> float:
    return 1.0 + 8.0 * size**-0.4


def scores(rng: np.random.Generator, runs: float, noise: float, seeds: int = 4) -> list[np.ndarray]:
    hard = rng.normal(0, noise, 60)
    return [curve(size) + hard + rng.normal(0, runs, (seeds, 1)) + rng.normal(0, noise, (seeds, 60)) for size in SIZES]


@pytest.mark.parametrize("higher", [False, True])
def test_without_noise_it_is_the_curve_itself(higher: bool) -> None:
    turn = -1.0 if higher else 1.0
    exact = [np.full((2, 5), turn * curve(size)) for size in SIZES]
    found = extrapolated(SIZES, exact, size=5000, higher_is_better=higher, rng=np.random.default_rng(0))
    assert found.value == pytest.approx(turn * curve(5000), abs=1e-4)
    assert found.reasons == () and found.times_beyond == pytest.approx(5000 / 2700)


def test_the_interval_holds_the_truth_nearly_as_often_as_it_says() -> None:
    held = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        found = extrapolated(SIZES, scores(rng, 0.02, 0.1), size=5000, higher_is_better=False, rng=rng)
        assert found.low is not None and found.high is not None and found.low < found.high
        held += found.low <= curve(5000) <= found.high
    assert 50 <= held <= 60, held


def test_what_it_cannot_tell_is_said() -> None:
    rng = np.random.default_rng(1)
    far = extrapolated(SIZES, scores(rng, 0.02, 0.1), size=27000, higher_is_better=False, rng=rng)
    assert far.reasons == ("the curve is followed 10.0 times beyond the largest size that was measured",)
    single = [each[:1] for each in scores(rng, 0.0, 0.1)]
    alone = extrapolated(SIZES, single, size=3000, higher_is_better=False, rng=rng)
    assert alone.low is None and alone.reasons == ("no size has two runs, so there is no interval",)
    worse = extrapolated(SIZES, scores(rng, 0.02, 0.1)[::-1], size=3000, higher_is_better=False, rng=rng)
    assert "more data has made nothing better" in worse.reasons[0]
    with pytest.raises(ValueError, match="needs 3 or more"):
        extrapolated(SIZES[:2], scores(rng, 0.02, 0.1)[:2], size=3000, higher_is_better=False, rng=rng)
