"""The examples' own parts: spoilt answers, and the figures made of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("corruption_study")
    for name in ("corruption_study", "corruptions"):
        sys.modules.pop(name, None)


def test_a_fifth_is_spoilt_in_five_ways_and_the_rest_is_left(study):
    answers = [f"In {1900 + i} the mayor of Old Town met Anna Berg {i} times, and then went home." for i in range(100)]
    made, how = study.spoil(answers, 0.2, np.random.default_rng(0))
    assert [how.count(way) for way in study.SPOILT] == [4] * 5
    assert all((a == b) == (not way) for a, b, way in zip(answers, made, how, strict=True))
    changed = {way: made[how.index(way)] for way in study.SPOILT}
    assert changed["truncated"] in answers[how.index("truncated")]
    assert changed["shuffled"] in answers
    assert "Anna" not in changed["invented names"]
    assert "Anna Berg" in changed["wrong numbers"]
    assert "mayor" not in changed["another language"]


def test_area_and_shares_by_hand(study):
    score, dirty = np.array([3.0, 2.0, 2.0, 1.0]), np.array([False, True, False, True])
    assert study.area(score, dirty) == (1 + 1 + 0.5 + 1) / 4
    assert study.dirty_share(score, dirty, 0.5) == 0.5
    rng = np.random.default_rng(0)
    score, dirty = rng.normal(size=200), rng.random(200) < 0.3
    above = (score[~dirty][:, None] > score[dirty]).mean()
    assert study.area(score, dirty) == pytest.approx(above)


def test_too_few_answers_of_a_kind_are_refused(study):
    with pytest.raises(ValueError, match="wrong numbers"):
        study.spoil(["no number here"] * 10, 1.0, np.random.default_rng(0))
