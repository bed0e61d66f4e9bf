"""`coretune compare` as a user meets it: what it declares, what it runs, what it finds again, what it says."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from coretune.chat import PLAIN
from coretune.cli import main
from coretune.compare import Plan, compare, read_plan
from coretune.compare.arms import arm_of, controls_for
from coretune.compare.bill import bill
from coretune.compare.choosing import seed_of
from coretune.compare.equal_compute import times_longer
from coretune.compare.forecast import Line, announce_bill, forecast
from coretune.compare.ground import lay
from coretune.compare.results import Scores
from coretune.compare.running import Course
from coretune.compare.sizes import _at_equal_compute, full_estimate
from coretune.compare.wording import sentence_of, unequal_of
from coretune.compare.working import ChoiceJob
from coretune.errors import CoretuneError, FolderError, UnmetBudget
from coretune.lab import Lab
from tests.made_pools import records, write_jsonl

TUNING = {"epochs": 1.0, "precision": "float32", "max_tokens": 64, "rank": 4}
TIMES = ("seconds", "bill", "equal_compute_tokens", "at_equal_compute")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.made_models import causal_folder

    return str(causal_folder(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def pool_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = records(120)
    for each in made:
        each["source"] = each["topic"]
    return str(write_jsonl(tmp_path_factory.mktemp("pools") / "pool.jsonl", made))


def plan_of(pool_file: str, model: str, **changed: Any) -> Plan:
    asked: dict[str, Any] = {
        "methods": ("perplexity",),
        "budgets": ("20%-tokens",),
        "controls": ("untuned", "random", "full"),
        "seeds": 2,
        "learning_rates": (5e-3,),
        "tuning": TUNING,
        "precision": "float32",
    }
    return Plan((pool_file,), model, **{**asked, **changed})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, pool_file: str, model: str) -> Path:
    """A comparison of one method, kept for all tests that only look."""
    root = tmp_path_factory.mktemp("compared")
    compare(plan_of(pool_file, model), root / "out", Lab(root / "store"))
    return root


def verdict_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "verdict.json").read_text())
    return found


def without_times(said: Any) -> Any:
    """A verdict without what was measured in seconds."""
    if isinstance(said, dict):
        return {name: without_times(each) for name, each in said.items() if name not in TIMES}
    return [without_times(each) for each in said] if isinstance(said, list) else said


def test_every_run_has_its_own_seed_and_the_same_tokens(finished: Path) -> None:
    runs = pq.read_table(finished / "out" / "runs.parquet").to_pylist()
    count = {(each["arm"], each["budget"]): 0 for each in runs}
    for each in runs:
        count[each["arm"], each["budget"]] += 1
    assert count == {
        ("untuned", ""): 1, ("random", "20%-tokens"): 4, ("full", "100%"): 2, ("perplexity", "20%-tokens"): 2,
    }  # fmt: skip
    trained = [each for each in runs if each["arm"] != "untuned"]
    assert len({each["address"] for each in trained}) == len(trained)
    table = pq.read_table(finished / "out" / "pool.parquet").to_pydict()
    train = [t for t, part in zip(table["answer_tokens"], table["part"], strict=True) if part == "train"]
    asked = 0.2 * sum(train)
    for each in trained:
        if each["arm"] != "full":
            assert 0 <= asked - each["answer_tokens"] <= max(asked / 100, np.median(train) / 2) + 1
        else:
            assert each["answer_tokens"] == sum(train) and each["rows"] == len(train)


def test_nothing_that_is_evaluated_on_is_chosen_from_and_runs_choose_from_their_own_part(finished: Path) -> None:
    table = pq.read_table(finished / "out" / "pool.parquet").to_pydict()
    part = dict(zip(table["row"], table["part"], strict=True))
    chosen = pq.read_table(finished / "out" / "selections.parquet").to_pylist()
    assert {part[each["row"]] for each in chosen} == {"train"}
    held = {table["id"][row] for row, side in part.items() if side == "holdout"}
    items = pq.read_table(finished / "out" / "items.parquet").to_pydict()
    assert set(items["item"]) == held and len(held) == 12
    asked = pq.read_table(finished / "out" / "asked.parquet").to_pydict()
    assert set(asked["item"]) == held and all(asked["asked"]) and all(asked["answer"])
    first = [{each["row"] for each in chosen if (each["arm"], each["seed"]) == ("perplexity", seed)} for seed in (0, 1)]
    assert first[0] != first[1]  # a deterministic method, too, is drawn over


def test_the_verdict_says_who_beats_random_and_what_it_cost(finished: Path) -> None:
    said = verdict_of(finished / "out")
    (line,) = [each for each in said["arms"] if each["arm"] == "perplexity"]
    items = pq.read_table(finished / "out" / "items.parquet").to_pylist()

    def mean(arm: str) -> float:
        return float(np.mean([each["score"] for each in items if each["arm"] == arm and each["metric"] == "loss"]))

    assert line["difference"] == pytest.approx(mean("random") - mean("perplexity"))  # a loss: lower is better
    assert line["interval"][0] < line["difference"] < line["interval"][1]
    assert line["p_holm"] == pytest.approx(line["p"]) and not line["exploratory"]
    assert [each["exploratory"] for each in said["arms"] if each["arm"] in ("full", "untuned")] == [True, True]
    assert said["primary"]["margin"] == pytest.approx(0.01 * mean("random"))
    assert said["primary"]["equal"] == "answer tokens, 1 epoch" and "perplexity" in said["sentence"]
    assert {each["arm"] for each in said["bill"]["break_even"]} >= {"perplexity"}
    assert said["bill"]["predicted"]["seconds"] > 0 and said["bill"]["full_tuning"]["measured"]
    assert (finished / "out" / "report.html").is_file()


def test_the_plan_is_declared_and_can_be_repeated(finished: Path, tmp_path: Path, pool_file: str, model: str) -> None:
    said = tomllib.loads((finished / "out" / "compare.toml").read_text())
    assert said["primary"] == {"task": "heldout_loss:holdout", "budget": "20%-tokens", "margin": "1%"}
    assert said["run"]["complete"] and said["pool"]["parts"] == {"train": 102, "dev": 6, "holdout": 12}
    again = read_plan(finished / "out" / "compare.toml")
    assert dataclasses.replace(again, arms={}) == dataclasses.replace(
        plan_of(pool_file, model), primary_task="heldout_loss:holdout", primary_budget="20%-tokens"
    )


def test_more_seeds_train_only_what_is_new(finished: Path, pool_file: str, model: str) -> None:
    tunings = finished / "store" / "tunings"
    out, before = finished / "grown", {each.name for each in tunings.iterdir()}
    compare(plan_of(pool_file, model), out, Lab(finished / "store"))
    assert {each.name for each in tunings.iterdir()} == before  # another folder, the same store
    times = {each: each.stat().st_mtime_ns for each in out.glob("runs/*/*/tuned.json")}
    compare(plan_of(pool_file, model, seeds=3, methods=("perplexity", "longest")), out, Lab(finished / "store"))
    new = {each.name for each in tunings.iterdir()} - before
    assert len(new) == 2 + 1 + 1 + 3  # two of random, one of perplexity and of full, three of longest
    assert {each: each.stat().st_mtime_ns for each in times} == times
    history = tomllib.loads((out / "compare.toml").read_text())["history"]
    assert [sorted(each["asked"]) for each in history] == [["methods", "seeds"]]


@pytest.mark.slow
def test_a_comparison_that_breaks_off_goes_on_to_the_same_verdict(
    finished: Path, tmp_path: Path, pool_file: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, left = plan_of(pool_file, model), 4
    tune = Lab.tune

    def breaking(self: Lab, *given: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return tune(self, *given, **options)

    monkeypatch.setattr(Lab, "tune", breaking)
    with pytest.raises(KeyboardInterrupt):
        compare(plan, tmp_path / "out", Lab(tmp_path / "store"))
    assert not tomllib.loads((tmp_path / "out" / "compare.toml").read_text())["run"]["complete"]
    compare(plan, tmp_path / "out", Lab(tmp_path / "store"))
    assert without_times(verdict_of(tmp_path / "out")) == without_times(verdict_of(finished / "out"))


def test_what_was_declared_is_not_changed_afterwards(finished: Path, pool_file: str, model: str) -> None:
    lab, out = Lab(finished / "store"), finished / "out"
    for change, said in (
        ({"margin": "2%"}, r"declared with margin '1%', and '2%' is asked now"),
        ({"holdout": "20%"}, r"another comparison \(it differs in holdout\)"),
        ({"budgets": ("10%", "20%-tokens")}, r"declared with primary budget '20%-tokens'"),
    ):
        with pytest.raises(FolderError, match=said):
            compare(plan_of(pool_file, model, **change), out, lab)
    (finished / "other").mkdir()
    (finished / "other" / "file").touch()
    with pytest.raises(FolderError, match="is no comparison"):
        compare(plan_of(pool_file, model), finished / "other", lab)


def test_an_arm_that_cannot_be_run_does_not_stop_the_others(finished: Path, pool_file: str, model: str) -> None:
    out = finished / "broken"
    plan = plan_of(pool_file, model, methods=("perplexity", "kmq?quality=no_such_column"))
    compare(dataclasses.replace(plan, embedder="minilm"), out, Lab(finished / "store"))
    said = verdict_of(out)
    assert list(said["failed"]) == ["kmq?quality=no_such_column"]
    assert "no_such_column" in said["failed"]["kmq?quality=no_such_column"]
    assert not tomllib.loads((out / "compare.toml").read_text())["run"]["complete"]
    assert "perplexity" in {each["arm"] for each in said["arms"]}


def test_a_budget_that_an_arm_cannot_meet_is_found_before_anything_is_tuned(
    finished: Path, pool_file: str, model: str
) -> None:
    arms = {"one_topic": {"method": "random", "task": "topic=comets"}}
    plan = plan_of(pool_file, model, budgets=("4%-tokens", "60%-tokens", "80%-tokens"), arms=arms, methods=())
    plan = dataclasses.replace(plan, controls=("untuned", "random"), primary_budget="4%-tokens")
    out = finished / "unmet"
    with pytest.raises(UnmetBudget) as refused:
        compare(plan, out, Lab(finished / "store"))
    first, *lines = str(refused.value).split("\n")
    assert first.startswith("nothing was tuned")
    assert [line.split(",")[:2] for line in lines] == [["  one_topic", " 60%-tokens"], ["  one_topic", " 80%-tokens"]]
    assert "rows to choose among hold" in lines[0]
    assert not list(out.glob("runs/*/*/tuned.json")) and not (out / "verdict.json").exists()
    met = compare(dataclasses.replace(plan, budgets=("4%-tokens",)), out, Lab(finished / "store"))
    assert met.verdict["failed"] == {} and {each["arm"] for each in met.verdict["arms"]} == {"untuned", "one_topic"}
    left = compare(plan, finished / "left", Lab(finished / "store"), leave_out_unmet=True)
    assert list(left.verdict["failed"]) == ["one_topic"]


def test_an_arm_that_cannot_be_tuned_is_left_out_whole_and_tried_again(
    finished: Path, pool_file: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, tune = finished / "untunable", Lab.tune
    plan = plan_of(pool_file, model, methods=("perplexity", "longest"), controls=("untuned", "random"))

    def failing(self: Lab, spec: Any, pool: Any, *given: Any, **options: Any) -> Any:
        if spec.seed == wrong:
            raise CoretuneError("the loss of step 1 is not finite")
        return tune(self, spec, pool, *given, **options)

    ground = lay(plan, Lab(finished / "store"))
    wrong = seed_of(ground, next(run for run in ground.runs if run.arm.name == "longest" and run.seed == 1))
    monkeypatch.setattr(Lab, "tune", failing)
    compare(plan, out, Lab(finished / "store"))
    said = verdict_of(out)
    assert said["failed"] == {"longest": "the loss of step 1 is not finite"}
    assert {each["arm"] for each in said["arms"]} == {"untuned", "perplexity"}
    monkeypatch.setattr(Lab, "tune", tune)
    compare(plan, out, Lab(finished / "store"))
    assert verdict_of(out)["failed"] == {} and len(verdict_of(out)["arms"]) == 3


def test_worker_processes_give_the_same_verdict(finished: Path, tmp_path: Path, pool_file: str, model: str) -> None:
    from coretune.engines.processes import processes

    with processes(1) as engine:
        compare(plan_of(pool_file, model), tmp_path / "out", Lab(finished / "store"), engine=engine)
    assert without_times(verdict_of(tmp_path / "out")) == without_times(verdict_of(finished / "out"))


def test_rates_are_tried_on_random_at_each_budget(finished: Path, pool_file: str, model: str) -> None:
    controls = ("untuned", "random")
    plan = plan_of(pool_file, model, learning_rates=(5e-3, 1e-6), lengths=(1.0, 2.0), sensitivity=True)
    compare(dataclasses.replace(plan, controls=controls), finished / "rates", Lab(finished / "store"))
    said = verdict_of(finished / "rates")
    tried = {(each["learning_rate"], each["epochs"]): each for each in said["learning_rates"]}
    assert list(tried) == [(5e-3, 1.0), (1e-6, 1.0), (5e-3, 2.0), (1e-6, 2.0)]
    best = min(tried, key=lambda each: tried[each]["dev_loss"])
    assert [each for each in tried if tried[each]["taken"]] == [best] and best[0] == 5e-3
    runs = pq.read_table(finished / "rates" / "runs.parquet").to_pylist()
    assert {(each["learning_rate"], each["epochs"]) for each in runs if each["arm"] != "untuned"} == {best}
    assert [(each["arm"], each["learning_rate"]) for each in said["sensitivity"]] == [
        (arm, rate) for arm in ("random", "perplexity") for rate in (2.5e-3, 5e-3, 1e-2)
    ]


def test_equal_steps_in_place_of_equal_epochs(finished: Path, pool_file: str, model: str) -> None:
    plan = plan_of(pool_file, model, steps=3, controls=("random", "full"), methods=("longest",))
    compare(plan, finished / "steps", Lab(finished / "store"))
    runs = pq.read_table(finished / "steps" / "runs.parquet").to_pylist()
    assert {each["steps"] for each in runs} == {3} and len({each["rows"] for each in runs}) > 2
    assert verdict_of(finished / "steps")["primary"]["equal"] == "answer tokens, 3 optimizer steps"


def test_controls(tmp_path: Path, pool_file: str, model: str) -> None:
    every = ("random", "random_by_source", "random_every_epoch", "random_length_matched", "longest")
    plan = plan_of(pool_file, model, controls=every, methods=("longest?model=" + model,))
    plan = dataclasses.replace(plan, tuning={**TUNING, "epochs": 2.0}, budgets=("20%",))
    compare(plan, tmp_path / "out", Lab(tmp_path / "store"))
    chosen = pq.read_table(tmp_path / "out" / "selections.parquet").to_pylist()
    lengths = pq.read_table(tmp_path / "out" / "pool.parquet")["answer_tokens"].to_pylist()
    mean = {
        arm: np.mean([lengths[each["row"]] for each in chosen if each["arm"] == arm])
        for arm in {each["arm"] for each in chosen}
    }
    longest = mean["longest?model=tiny"]
    assert mean["random_length_matched"] == pytest.approx(longest, rel=0.1) and mean["random"] < 0.8 * longest
    runs = {each["arm"]: each for each in pq.read_table(tmp_path / "out" / "runs.parquet").to_pylist()}
    assert runs["random_every_epoch"]["epochs"] == pytest.approx(1.0, abs=0.05)
    assert runs["random_every_epoch"]["rows"] == 2 * runs["random"]["rows"] == 40
    assert runs["random_every_epoch"]["steps"] == 3 and runs["random"]["steps"] == 4  # batches of 16


def test_a_plan_names_its_template(tmp_path: Path) -> None:
    (tmp_path / "turns.jinja").write_text("{{ messages }}")

    def template(said: str) -> str | None:
        (tmp_path / "plan.toml").write_text(f"[plan]\npool = ['p.jsonl']\nmodel = 'm'\ntemplate = {said!r}\n")
        return read_plan(tmp_path / "plan.toml").template

    assert template("plain") == PLAIN and template("turns.jinja") == template("{{ messages }}") == "{{ messages }}"
    with pytest.raises(ValueError, match="template 'plane' is neither `plain` nor a file"):
        template("plane")


def test_plans_that_mean_nothing_are_refused(pool_file: str, model: str) -> None:
    for change, said in (
        ({"seeds": 1}, "give 2 or more"),
        ({"random_seeds": 3}, "give 4 or more, twice the others"),
        ({"margin": "-1"}, "give more than 0"),
        ({"margin": "x"}, "is not understood"),
        ({"budgets": ("5 percent",)}, "is not understood"),
        ({"primary_budget": "7%"}, "none of 20%-tokens"),
        ({"controls": ("ramdom",)}, "did you mean 'random'"),
        ({"sub_pool": 0.0}, "above 0"),
        ({"learning_rates": ()}, "needs a budget, a task and a learning rate"),
        ({"steps": 0}, "give 1 or more"),
        ({"steps": 10, "lengths": (1.0, 2.0)}, "steps are the length"),
        ({"steps": 10, "equal_compute": True}, "give epochs"),
    ):
        with pytest.raises(ValueError, match=said):
            plan_of(pool_file, model, **change)


def test_grounds_that_cannot_be_met_are_refused(tmp_path: Path, pool_file: str, model: str) -> None:
    lab = Lab(tmp_path)
    for change, said in (
        ({"budgets": ("95%",)}, "chooses from 90%"),
        ({"holdout": "0%"}, "holdout part of the pool is empty"),
        ({"methods": ("kmqq",)}, "did you mean 'kmq'"),
        ({"methods": ("kmq?qualty=length",)}, "did you mean 'quality'"),
        ({"methods": ("bm25",)}, "cannot be compared without a target"),
        ({"dev": "0%", "target": "dev", "methods": ("bm25",)}, "dev part of the pool, which is empty"),
        ({"arms": {"perplexity": {"method": "longest"}}}, "two arms are called 'perplexity'"),
        ({"dev": "0%", "lengths": (1.0, 2.0)}, "rates or lengths are to be tried on the dev part"),
    ):
        with pytest.raises(ValueError, match=said):
            lay(plan_of(pool_file, model, **change), lab)


def test_targeted_methods_are_apart(tmp_path: Path, pool_file: str, model: str) -> None:
    ground = lay(plan_of(pool_file, model, target="dev", controls=None, methods=("perplexity",)), Lab(tmp_path))
    kinds = {arm.name: arm.kind for arm in ground.arms}
    assert kinds["bm25"] == kinds["rds"] == "targeted" and kinds["perplexity"] == "method"
    assert kinds["random"] == kinds["full"] == kinds["longest"] == "control"
    assert ground.target is not None and len(ground.target) == 6
    assert "random_every_epoch" not in kinds  # with one epoch it is random
    assert "random_by_source" in kinds


def test_rows_that_overlap_with_a_task_are_left_out(tmp_path: Path, pool_file: str, model: str) -> None:
    asked = [json.loads(line) for line in Path(pool_file).read_text().splitlines()[:5]]
    (tmp_path / "eval.jsonl").write_text(
        "".join(json.dumps({"prompt": each["instruction"], "answer": each["output"]}) + "\n" for each in asked)
    )
    plan = plan_of(pool_file, model, tasks=("heldout_loss:holdout", f"heldout_loss:{tmp_path / 'eval.jsonl'}"))
    ground = lay(plan, Lab(tmp_path / "store"))
    (reason,) = ground.pool.excluded
    train = {row for row in range(5) if ground.part[row] == "train"}
    assert train and train == set(ground.pool.excluded[reason].tolist()) and reason == "overlaps with heldout_loss:eval"
    assert not train & set(ground.train.tolist())
    kept = lay(dataclasses.replace(plan, decontaminate=False), Lab(tmp_path / "store"))
    assert train <= set(kept.train.tolist())


def test_controls_that_apply() -> None:
    assert "random_every_epoch" not in controls_for(False, 1.0, 3) and "random_every_epoch" in controls_for(False, 2, 3)
    assert "random_by_source" not in controls_for(False, 1.0, 1)
    assert controls_for(True, 1.0, 1)[-2:] == ("bm25", "rds")


def test_lengths_are_matched_only_where_there_is_a_method() -> None:
    plan = Plan(inputs=("pool.jsonl",), model="some-model")
    assert "random_length_matched" not in [arm.name for arm in plan.arms_for(1.0, 1)]
    with_one = dataclasses.replace(plan, methods=("perplexity",))
    assert "random_length_matched" in [arm.name for arm in with_one.arms_for(1.0, 1)]
    with pytest.raises(ValueError, match="random_length_matched asked, but there is no method to match"):
        dataclasses.replace(plan, controls=("random", "random_length_matched")).arms_for(1.0, 1)


def test_options_in_a_line_of_text() -> None:
    arm = arm_of("kmq?quality=length&clusters=none&draw=linear", {"embedder": "minilm"})
    assert (arm.method, dict(arm.options)) == ("kmq", {"quality": "length", "clusters": None, "draw": "linear"})
    with pytest.raises(ValueError, match="is not understood"):
        arm_of("kmq?quality", {"embedder": "minilm"})
    with pytest.raises(ValueError, match="clusters of kmq is 'many'"):
        arm_of("kmq?clusters=many&quality=length", {"embedder": "minilm"})


def test_a_line_through_probes() -> None:
    assert Line.through((10, 30), (3.0, 7.0)) == Line(1.0, 0.2)
    assert Line.through((10, 30), (2.0, 2.0)) == Line(0.0, 0.1)  # no slope was seen: all is in proportion
    assert Line.through((10, 30), (1.0, 9.0)) == Line(0.0, 0.25)  # nothing costs less than nothing
    assert Line.through((8, 8), (2.0, 4.0)).at(16) == 6.0


def test_the_bill_beforehand_says_how_much_runs_side_by_side() -> None:
    steps = {"select_seconds": 100.0, "tune_seconds": 60.0, "read_seconds": 20.0, "apart_seconds": 80.0}
    words = {"seconds": 180.0, **steps}
    assert announce_bill(words, 9).startswith("9 runs will take about 3 min on this machine, if")
    said = announce_bill(words, 9, at_once=4)  # 20 s of choosing are shared
    assert said.startswith("9 runs will take about 60 s on this machine, 4 at once, if") and "100 s choosing" in said


def test_break_even(finished: Path, pool_file: str, model: str) -> None:
    ground = lay(plan_of(pool_file, model), Lab(finished / "store"))
    row = {"seed": 0, "select_tokens": 0, "tune_tokens": 0, "read_tokens": 0, "read_seconds": 1.0, "money": 0.0}
    row |= {"judge_tokens": 0}
    row |= {"epochs": 1.0, "answer_tokens": 100}
    rows = [
        {**row, "arm": "full", "budget": "100%", "select_seconds": 0.0, "tune_seconds": 100.0},
        {**row, "arm": "a", "budget": "5%", "select_seconds": 150.0, "tune_seconds": 40.0},
        {**row, "arm": "b", "budget": "5%", "select_seconds": 5.0, "tune_seconds": 100.0},
    ]
    said = {each["arm"]: each for each in bill(ground, rows, {})["break_even"]}
    assert (said["a"]["share_of_full"], said["a"]["pays_from"]) == (1.5, 3)  # 150 + 3 x 40 < 300
    assert said["b"]["pays_from"] is None


@pytest.mark.parametrize(
    ("low", "high", "said"), [(210, 400, "better"), (20, 150, "worse"), (None, 400, "cannot_tell")]
)
def test_at_equal_compute_random_trains_on_more(low: float | None, high: float, said: str) -> None:
    rows = [{"select_seconds": 30.0, "tune_seconds": 30.0}]
    found = _at_equal_compute({"size": 100.0, "low": low, "high": high}, rows)
    assert found == {"equal_compute_tokens": 200.0, "at_equal_compute": said}


@pytest.mark.parametrize(
    ("mine", "random", "in_tokens", "said"),
    [
        ([28, 30], [16, 15, 14], True, "at equal answer tokens it had 29 optimizer steps and random 15"),
        ([15], [14, 16], True, ""),
        ([900], [2000, 2000], False, "at equal rows it had 900 answer tokens and random 2,000"),
        ([], [16], True, ""),
        ([0], [16], True, ""),
    ],
)
def test_what_arms_do_not_have_equally_much_of_is_told(
    mine: list[int], random: list[int], in_tokens: bool, said: str
) -> None:
    name = "steps" if in_tokens else "answer_tokens"
    found = unequal_of([{name: each} for each in mine], [{name: each} for each in random], in_tokens)
    assert found.startswith(said) and bool(found) == bool(said)


def test_the_sentence_says_when_random_is_as_good() -> None:
    primary = {"budget": "5%", "task": "t"}
    line = {"exploratory": False, "arm": "a", "difference": 0.1, "unit": "u", "interval": [-0.1, 0.2], "next": "more."}
    line["stderr"] = 0.1
    said = sentence_of(primary, [{**line, "verdict": "no_difference"}])
    assert said == "At 5%, on t: a is no different from random. Random is as good here."
    both = [{**line, "verdict": "better", "arm": "b"}, {**line, "verdict": "cannot_tell"}]
    said = sentence_of(primary, both)
    assert said.startswith("At 5%, on t: b (+0.1 u [-0.1, +0.2]) is better than random.") and said.endswith("more.")
    assert "Random is as good" not in said
    vaguer = {**line, "arm": "c", "stderr": 0.2, "next": "most of all."}
    said = sentence_of(primary, [{**each, "verdict": "cannot_tell"} for each in (line, vaguer)])
    assert said.endswith("cannot be told from random yet; most of all.")
    assert "No method" in sentence_of(primary, [{**line, "exploratory": True, "verdict": "better"}])


def test_the_command(capsys: pytest.CaptureFixture[str], finished: Path, pool_file: str, model: str) -> None:
    words = ["compare", str(finished / "out" / "compare.toml"), "--out", str(finished / "out")]
    words += ["--store", str(finished / "store"), "--workers", "1"]
    code = 0
    try:
        main(words)
    except SystemExit as ended:
        code = int(ended.code or 0)
    out, _ = capsys.readouterr()
    assert code == 0 and "perplexity" in out and "report.html" in out and "against random" in out
    assert verdict_of(finished / "out")["sentence"].split()[0] in out


def test_the_model_from_inside_a_loop_is_an_arm_of_its_own(tmp_path: Path, pool_file: str, model: str) -> None:
    import shutil

    plan = plan_of(pool_file, model, methods=("tests.made_loop:Worst",), controls=("untuned", "random"))
    verdict = compare(plan, tmp_path / "out", Lab(tmp_path / "store")).verdict
    arms = {line["arm"]: line for line in verdict["arms"]}
    fresh, own = arms["tests.made_loop:Worst"], arms["tests.made_loop:Worst/own-loop"]
    assert (fresh["kind"], own["kind"]) == ("method", "own model") and own["exploratory"] and not fresh["exploratory"]
    assert own["p_holm"] is None and own["value"] != fresh["value"] and own["seeds"] == 2
    rows = {(row["arm"], row["seed"]): row for row in pq.read_table(tmp_path / "out" / "runs.parquet").to_pylist()}
    for seed in (0, 1):
        one, other = rows[fresh["arm"], seed], rows[own["arm"], seed]
        assert one["rows"] == other["rows"] > 0 and other["tune_seconds"] == other["epochs"] == 0
        assert one["address"] != other["address"] and one["tune_seconds"] > 0
        assert one["select_tokens_back"] == other["select_tokens_back"] > 0  # all that the loop has trained on
    folder = next(each for each in (tmp_path / "out" / "runs").glob("*Worst*") if any(each.glob("own-*")))
    address = json.loads((folder / "chosen" / "chosen.json").read_text())["own"]["address"]
    assert (tmp_path / "store" / "tunings" / address).is_dir()
    shutil.rmtree(tmp_path / "store" / "tunings" / address)  # what was read need not be there any more
    again = compare(plan, tmp_path / "out", Lab(tmp_path / "store")).verdict
    assert without_times(again) == without_times(verdict) and not (tmp_path / "store" / "tunings" / address).exists()


def test_workers_choose_for_arms_that_tune_meanwhile(
    tmp_path: Path, pool_file: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coretune.compare import running
    from coretune.engines.processes import processes

    methods = ("tests.made_loop:Worst", "perplexity")
    plan = plan_of(pool_file, model, methods=methods, controls=("untuned", "random", "random_length_matched"))
    alone = compare(plan, tmp_path / "alone", Lab(tmp_path / "store-alone")).verdict
    chose: list[str] = []

    def noted(ground: Any, run: Any, *given: Any) -> Any:
        chose.append(run.arm.name)
        return choose(ground, run, *given)

    choose = running.choose
    monkeypatch.setattr(running, "choose", noted)
    with processes(2) as engine:
        verdict = compare(plan, tmp_path / "out", Lab(tmp_path / "store"), engine=engine).verdict
        assert set(chose) == {"random", "perplexity", "random_length_matched"}
        assert without_times(verdict) == without_times(alone)
        monkeypatch.setattr(running, "SENT", 0)  # pools that are too large are not sent
        compare(plan, tmp_path / "here", Lab(tmp_path / "store"), engine=engine)
    assert "tests.made_loop:Worst" in chose


def test_what_is_tuned_first_is_shared_by_the_budgets_of_a_seed(tmp_path: Path, pool_file: str, model: str) -> None:
    plan = plan_of(pool_file, model, methods=("tests.made_loop:First",), budgets=("10%", "20%"), controls=("random",))
    ground, lab = lay(plan, Lab(tmp_path / "store")), Lab(tmp_path / "store")
    lines = forecast(ground, lab)
    assert lines.warmed == {"tests.made_loop:First"} and not lines.loops
    sizes: list[int] = []

    def engine(fn: Any, jobs: Any) -> Any:
        asked = list(jobs)
        sizes.extend(len(job.runs) for job in asked if isinstance(job, ChoiceJob))
        return map(fn, asked)

    course = Course(ground, tmp_path / "out", lab, engine, lines.paid_as)
    done = course.carried_out([run for run in ground.runs if run.arm.name in lines.warmed])
    assert sizes == [2] * plan.seeds and len(done) == 2 * plan.seeds and not course.failed
    tuned = [stage for stage in course.lab.stages if stage.name.startswith("tune ")]
    assert not tuned  # by none but the workers


def test_a_worker_that_cannot_choose_leaves_the_arm_out(tmp_path: Path, pool_file: str, model: str) -> None:
    plan = plan_of(pool_file, model, methods=("tests.made_loop:Worst",), controls=("untuned", "random"))
    course = Course(lay(plan, Lab(tmp_path / "store")), tmp_path / "out", Lab(tmp_path / "store"), map)
    course.paid_as = lambda run: run
    wrong = dataclasses.replace(course.ground, train=course.ground.train[:3])
    course.ground = wrong
    assert course.carried_out([run for run in wrong.runs if run.arm.name in plan.methods]) == []
    assert list(course.failed) == ["tests.made_loop:Worst"] and course.failed["tests.made_loop:Worst"]


def test_the_full_pool_is_estimated_where_it_was_not_tuned_on(finished: Path, pool_file: str, model: str) -> None:
    ground = lay(plan_of(pool_file, model), Lab(finished / "store"))
    rng, hard = np.random.default_rng(0), np.random.default_rng(1).normal(0, 0.1, 40)
    full = int(ground.tokens[ground.train].sum())
    arms, rows = {}, []
    for share in (5, 10, 20):
        size = share * full / 100
        arms["random", f"{share}%"] = 1 + 8 * size**-0.5 + hard + rng.normal(0, 0.01, (4, 40))
        rows += [{"arm": "random", "budget": f"{share}%", "rows": size, "answer_tokens": size}] * 4
    made = Scores("t", "loss", "nats", False, True, ("",) * 40, ("",) * 40, arms, 0)
    said = full_estimate(ground, made, rows)
    assert said is not None and said["estimated"] and said["of"] == "answer tokens"
    assert said["low"] < said["value"] < said["high"] and said["value"] == pytest.approx(1 + 8 * full**-0.5, abs=0.1)
    assert said["times_beyond"] == pytest.approx(5) and "followed 5.0 times" in said["reasons"][0]
    two = dataclasses.replace(made, arms={key: each for key, each in arms.items() if key[1] != "5%"})
    assert full_estimate(ground, two, rows) is None


def test_nothing_is_estimated_that_was_measured(finished: Path) -> None:
    assert verdict_of(finished / "out")["full_estimate"] is None


def test_random_may_train_for_as_long_as_a_method_chooses_and_trains(
    tmp_path: Path, pool_file: str, model: str
) -> None:
    plan = plan_of(pool_file, model, controls=("untuned", "random"), equal_compute=True)
    verdict = compare(plan, tmp_path / "out", Lab(tmp_path / "store")).verdict
    (line,) = verdict["at_equal_compute"]
    assert (line["arm"], line["against"]) == ("perplexity", "random as long as perplexity")
    rows = {(row["arm"], row["seed"]): row for row in pq.read_table(tmp_path / "out" / "runs.parquet").to_pylist()}
    train = sum(
        pq.read_table(tmp_path / "out" / "pool.parquet")
        .filter(pc.field("part") == "train")["answer_tokens"]
        .to_pylist()
    )
    for seed in (0, 1):
        mine, random = rows["perplexity", seed], rows[line["against"], seed]
        times = times_longer(mine["select_seconds"], mine["tune_seconds"])
        assert times > 1 and random["answer_tokens"] == pytest.approx(min(times * 0.2, 0.9) * train, rel=0.1)
    assert line["random_answer_tokens"] > rows["perplexity", 0]["answer_tokens"] and len(line["interval"]) == 2
    assert "At equal compute" in (tmp_path / "out" / "report.html").read_text()
    exploratory = {each["arm"]: each["exploratory"] for each in verdict["arms"]}
    assert exploratory[line["against"]] and not exploratory["perplexity"]
    again = compare(plan, tmp_path / "out", Lab(tmp_path / "store")).verdict
    assert again["at_equal_compute"] == verdict["at_equal_compute"]
