"""The examples' own parts: spoilt answers, and the figures made of them."""

from __future__ import annotations

import importlib
import sys
import warnings
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


def test_an_order_chooses_inside_a_trainer(monkeypatch, tmp_path, capsys):
    pytest.importorskip("trl", reason="TRL is not installed: pip install 'trl>=1.16'")
    import datasets

    from tests.made_models import causal_folder, no_bars

    monkeypatch.syspath_prepend(str(EXAMPLES))
    model = causal_folder(tmp_path / "tiny", window=1024)
    with warnings.catch_warnings(), no_bars():
        warnings.simplefilter("ignore")
        datasets.disable_progress_bars()
        example = importlib.import_module("trl_online_selection")
        following = example.main(
            ["--model", str(model), "--rows", "24", "--budget", "10", "--out", str(tmp_path / "out")]
        )
        datasets.enable_progress_bars()
    sys.modules.pop("trl_online_selection", None)
    rows = following.visits["row"]
    assert len(np.unique(rows)) == 10
    assert following.chooser.over
    rounds = [line for line in capsys.readouterr().out.splitlines() if line.startswith("round ")]
    assert len(rounds) == len(following.chooser.rounds["cell"]) >= 2
    assert f"{len(following.chooser.visited['row'][0])} rows" in rounds[0]
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
