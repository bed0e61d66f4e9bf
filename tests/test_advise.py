"""Advice: what can be afforded, which method is chosen on which seeds, and what is said of a pool far larger."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from coretune import advise as room
from coretune.advise import advise, affordable, best_of, recommend
from coretune.compare import Plan
from coretune.compare.arms import Arm
from coretune.compare.forecast import Forecast, Line
from coretune.compare.ground import Ground
from coretune.lab import Lab
from tests.made_pools import records, write_jsonl


def made_ground(rows: int = 1000) -> Any:
    """What `affordable` looks at of a ground of so many rows, all of them to train on."""
    controls = ("untuned", "random", "longest", "full")
    arms = [Arm(name, name, (), "control") for name in controls] + [Arm(name, name) for name in "ab"]
    plan = Plan(("pool.jsonl",), "model", budgets=("10%",))
    task = SimpleNamespace(text="heldout_loss:holdout", name="t")
    settled: Any = (plan, range(rows), np.full(rows, "train"), np.arange(rows), np.ones(rows), (task,), None, None)
    return Ground(*settled, tuple(arms), cast("Any", SimpleNamespace(epochs=1.0)), {}, {})


def made_lines(select: float, **tuned: Any) -> Forecast:
    """A second a row tuned on, a tenth to read one of 10 items; choosing by b takes `select` seconds a row."""
    lines = {"a": Line(0.0, 0.001), "b": Line(0.0, select)}
    return Forecast(Line(0.0, 1.0), {"t": Line(0.0, 0.1)}, lines, 1.0, 900, {"t": 10}, {}, 0, **tuned)


def test_what_can_be_afforded() -> None:
    found = affordable(made_ground(), made_lines(0.001), 1000, 20_000)
    assert (found.rows, found.seeds, found.methods, found.too_dear) == (1000, 5, ("a", "b"), {})
    # 25 runs of 33 and of 100 rows (10 of random, 5 each of longest, a and b), 5 of all 333 and 1,000; 31 readings of
    # 3 and of 10 items; choosing. Then on 1,000 rows without one of the methods
    pilots = 25 * 133 + 5 * 1333 + 31 * 1.3 + 1.8 * 0.333 + 1.8
    assert found.seconds == pytest.approx(pilots + 20 * 100 + 5 * 1000 + 26 + 0.9)
    fewer = affordable(made_ground(), made_lines(0.001), 1000, 9_000)
    assert (fewer.rows, fewer.seeds) < (1000, 5) and fewer.seconds <= 0.9 * 9_000
    several = affordable(made_ground(), made_lines(0.001), 1000, 20_000, at_once=4)
    assert several.seconds == pytest.approx((found.seconds - 3.3) / 4 + 3.3, rel=1e-3)  # choosing is not shared out


def test_what_is_tuned_before_choosing_is_paid_for_each_seed_and_what_is_tuned_meanwhile_for_each_run() -> None:
    ground = made_ground()
    ground = replace(ground, plan=replace(ground.plan, budgets=("5%", "10%"), seeds=3))

    def choosing(**tuned: frozenset[str]) -> float:
        return float(made_lines(1.0, **tuned).words(ground)["select_seconds"])

    assert choosing() == pytest.approx(0.9 + 900)
    assert choosing(warmed=frozenset("b")) == pytest.approx(0.9 + 3 * 900)
    assert choosing(loops=frozenset("b")) == pytest.approx(0.9 + 6 * 900)


def test_a_budget_that_a_small_pool_does_not_hold_ends_the_search() -> None:
    ground = made_ground()
    ground = replace(ground, plan=replace(ground.plan, budgets=("950",)))
    with pytest.raises(ValueError, match="budget '950' is 950 of"):
        affordable(ground, made_lines(0.001), 1000, 20_000)


def test_a_method_that_is_too_dear_is_named_and_left_out() -> None:
    found = affordable(made_ground(), made_lines(60.0), 1000, 20_000)
    assert found.methods == ("a",) and found.too_dear == {"b": 60_000.0}


def test_hours_that_are_too_few_are_refused_with_what_is_needed() -> None:
    with pytest.raises(ValueError, match=r"hours are too few: .* take about \d+ min, and 90%.*Give --hours"):
        affordable(made_ground(), made_lines(0.001), 1000, 60)


def line(arm: str, difference: float, verdict: str, **more: Any) -> dict[str, Any]:
    found = {"arm": arm, "task": "t", "difference": difference, "verdict": verdict, "exploratory": False}
    return {**found, "words": f"{verdict} words", "next": "more seeds", "interval": [difference - 0.1, 1.0], **more}


PRIMARY = {"task": "t", "budget": "5%", "margin": 0.05}


def test_the_method_is_chosen_by_its_gain_and_only_above_0() -> None:
    arms = [line("a", 0.1, "cannot_tell"), line("b", 0.2, "cannot_tell"), line("full", 0.9, "better", exploratory=True)]
    assert best_of({"arms": arms}) == "b"
    assert best_of({"arms": [line("a", -0.1, "worse")]}) is None
    assert best_of({"arms": []}) is None


@pytest.mark.parametrize(
    ("arms", "chosen", "use", "words"),
    [
        ([line("a", 0.2, "better")], "a", "a", "use a at 5% (better words)"),
        ([line("a", 0.0, "no_difference")], "a", "random", "use random at 5% (no_difference words)"),
        ([line("a", 0.1, "cannot_tell")], "a", "random", "cannot be told from random"),
        ([], None, "random", "no method gained anything over random"),
        ([line("a", 0.2, "better"), line("full", 0.9, "better")], "a", "a", "use everything if you can; else a"),
    ],
)
def test_recommendations(arms: list[dict[str, Any]], chosen: str | None, use: str, words: str) -> None:
    said = recommend({"primary": PRIMARY, "arms": arms}, chosen, 1000, 500)
    assert said["use"] == use and words in said["words"] and not said["beyond_the_pilot"]


def test_a_pool_far_larger_than_the_pilot_is_said_to_be_so() -> None:
    said = recommend({"primary": PRIMARY, "arms": [line("a", 0.2, "better")]}, "a", 100_000, 2_000)
    assert said["beyond_the_pilot"] and "50 times the pilot's 2,000" in said["words"]


@pytest.mark.slow
def test_advice_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.made_models import causal_folder

    monkeypatch.setattr(room, "SIZES", (150,))
    monkeypatch.setattr(room, "SEEDS", (2,))
    pool = write_jsonl(tmp_path / "pool.jsonl", records(160))
    plan = Plan(
        (str(pool),),
        str(causal_folder(tmp_path / "model")),
        methods=("perplexity",),
        budgets=("20%",),
        controls=("random", "full"),
        learning_rates=(5e-3,),
        tuning={"epochs": 1.0, "precision": "float32", "max_tokens": 64, "rank": 4},
        precision="float32",
    )
    with pytest.raises(ValueError, match="more than 0"):
        advise(plan, 0, tmp_path / "out", Lab(tmp_path / "store"))
    said = advise(plan, 10, tmp_path / "out", Lab(tmp_path / "store"))
    assert said == json.loads((tmp_path / "out" / "advice.json").read_text())
    assert said["pilot_rows"] == 150 and said["pool_rows"] == 160
    assert said["recommendation"]["use"] in ("random", "perplexity")
    assert {each["arm"] for each in said["pilots"][1]} == {"perplexity", "full"}
    assert {each["arm"] for each in said["estimate"]} <= {"perplexity", "full"}
    assert said["plan"]["tune_everything_seconds"] > said["plan"]["tune_seconds"] > 0
    assert (tmp_path / "out" / "fresh" / "verdict.json").is_file()
