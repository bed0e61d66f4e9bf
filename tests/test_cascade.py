"""A cascade against measuring everything: what it keeps, what it loses, and how well it says so."""

from __future__ import annotations

import numpy as np
import pytest

from coretune.cascade import cascade, wilson


def scores(n=2000, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    costly = rng.normal(size=n)
    return costly + noise * rng.normal(size=n), costly


def measured(costly, seen):
    def measure(rows):
        assert (np.diff(rows) > 0).all()
        seen.append(rows)
        return costly[rows]

    return measure


def test_a_perfect_screen_loses_nothing_and_measures_little():
    cheap, costly = scores()
    seen = []
    found = cascade(cheap, 0.2, measured(costly, seen), 100, rng=np.random.default_rng(1))
    assert (found.survivors, found.kept) == (400, 1.0)
    assert sum(map(len, seen)) == found.measured <= 600
    np.testing.assert_array_equal(np.argsort(-found.score)[:400], np.argsort(-costly)[:400])
    assert np.isnan(found.costly).sum() == 2000 - found.measured


def test_survivors_stand_above_all_others_whatever_the_costly_score_says():
    cheap, costly = np.arange(10.0), -np.arange(10.0)
    found = cascade(cheap, 0.3, lambda rows: costly[rows], 2, rng=np.random.default_rng(0), sample=10)
    np.testing.assert_array_equal(np.argsort(-found.score, kind="stable"), [7, 8, 9, 6, 5, 4, 3, 2, 1, 0])
    assert found.kept == 0.0  # the best two rows, 0 and 1, were screened out, and the sample says so
    assert found.interval[0] == 0.0


def test_what_is_lost_is_estimated_from_the_sample():
    cheap, costly = scores(20_000, noise=1.0)
    k = 2000
    truth = np.isin(np.argsort(-costly)[:k], np.argsort(-cheap)[:4000]).mean()
    inside = 0
    for seed in range(40):
        found = cascade(cheap, 0.2, lambda rows: costly[rows], k, rng=np.random.default_rng(seed), sample=1000)
        inside += found.interval[0] <= truth <= found.interval[1]
        assert abs(found.kept - truth) < 0.2
    assert inside >= 34  # of 40, at 95%


def test_no_fewer_survive_than_are_wanted():
    cheap, costly = scores(50)
    found = cascade(cheap, 0.01, lambda rows: costly[rows], 20, rng=np.random.default_rng(0), sample=5)
    assert found.survivors == 20


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1])
def test_a_share_that_is_none_is_refused(keep):
    cheap, costly = scores(50)
    with pytest.raises(ValueError, match="keep"):
        cascade(cheap, keep, lambda rows: costly[rows], 20, rng=np.random.default_rng(0))


def test_wilson_s_interval_by_hand():
    np.testing.assert_allclose(wilson(8, 10), (0.4902, 0.9433), atol=2e-4)
    assert wilson(0, 5)[0] == 0.0 and wilson(5, 5)[1] == 1.0
