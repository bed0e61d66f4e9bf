"""IterSelectTune: labels that do not depend on an order, scores by hand, and whole runs against a judge with a rule."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coretune.errors import ModelError
from coretune.features import Measured
from coretune.features.embedding import Embedding
from coretune.features.generation import Generation
from coretune.features.preference import Preference, beside, holds
from coretune.judge import Budget as Limits
from coretune.judge import BudgetSpent, Judge, Verdict
from coretune.judge.pairs import Choice
from coretune.lab import Lab, release
from coretune.methods._hard_labels import Labelled, hard_labels
from coretune.methods.iter_select_tune import IterSelectTune
from coretune.pickers import top
from coretune.pool import Example, Message, Pool, content_key
from coretune.rounds import Outcome, run
from coretune.scores.hardness import hardness, nearness, probability_of_hard
from coretune.selection import Budget
from tests.faulty_server import FaultyServer
from tests.made_models import causal_folder
from tests.made_pools import HashedWords, pool_of

HARD = ("rivers", "chess")  # topics on which the judge finds every answer of the model worse


def by_topic(payload: dict[str, Any]) -> str:
    """A judge who prefers the reference on hard topics, and else the other answer, wherever they stand."""
    asked = payload["messages"][-1]["content"]
    question, a, _ = (re.split(r" begins>>>\n", asked)[part].split("\n<<<")[0] for part in (1, 2, 3))
    reference = "a" if a.startswith("On ") else "b"
    hard = any(topic in question for topic in HARD)
    return f"Better: {reference if hard else 'ab'.replace(reference, '')}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    with FaultyServer(tmp_path / "log", says=by_topic) as server:
        yield server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield str(causal_folder(tmp_path_factory.mktemp("model"), window=256))
    release()


@pytest.fixture(autouse=True)
def _made_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Embedding, "resolved", lambda self: HashedWords())


def judge_of(server: FaultyServer, folder: Path, **options: Any) -> Judge:
    return Judge(server.url, "made", store=str(folder / "answers"), backoff_seconds=0.01, **options)


def method_of(model: str, judge: Judge, **options: Any) -> IterSelectTune:
    return IterSelectTune(judge, model, **{"max_new_tokens": 6, "stop_accuracy": None, "iterations": 3, **options})


def example(question: str, answer: str, other: str | None = None) -> Example:
    messages = (Message("user", question), Message("assistant", answer))
    made = Example("id", messages, content_key(messages))
    return made if other is None else beside(made, other)


def values_of(measured: Measured) -> np.ndarray:
    assert isinstance(measured.values, np.ndarray)
    return measured.values


# Scores


def test_the_numbers_of_the_specification() -> None:
    p, r = np.array([0.9, 0.6, 0.55, 0.2]), np.array([0.2, 0.9, 0.5, 0.95])
    for alpha, wanted, order in (
        (1.0, p, [0, 1, 2, 3]),
        (0.7, np.array([0.69, 0.69, 0.535, 0.425]), [0, 1, 2, 3]),
        (0.5, np.array([0.55, 0.75, 0.525, 0.575]), [1, 3, 0, 2]),
    ):
        q = hardness(p, r, alpha=alpha)
        np.testing.assert_allclose(q, wanted, atol=1e-7)
        assert top(q, 4).rows.tolist() == order
    tied = hardness(p, r, alpha=0.7)
    assert tied[0] == tied[1]


def test_q_rises_with_both_parts() -> None:
    rng = np.random.default_rng(0)
    p, r, more = rng.random(50), rng.random(50), rng.random(50) + 0.01
    for alpha in (0.1, 0.5, 0.9):
        q = hardness(p, r, alpha=alpha)
        assert (hardness(p + more, r, alpha=alpha) > q).all() and (hardness(p, r + more, alpha=alpha) > q).all()
    with pytest.raises(ValueError, match=r"alpha 1\.5"):
        hardness(p, r, alpha=1.5)
    with pytest.raises(ValueError, match="50 probabilities and 49"):
        hardness(p, r[1:])


def test_nearness_is_the_largest_cosine_and_a_copy_has_one() -> None:
    rng = np.random.default_rng(1)
    x, hard = rng.normal(size=(40, 7)).astype(np.float32), rng.normal(size=(9, 7)).astype(np.float32)
    found = nearness(x, hard, block=6)
    for row in range(40):
        each = [x[row] @ h / np.linalg.norm(x[row]) / np.linalg.norm(h) for h in hard.astype(np.float64)]
        assert found[row] == pytest.approx(max(each), abs=1e-6)
    np.testing.assert_array_equal(found, nearness(x, hard))
    grown = nearness(x, np.vstack([hard, 3 * x[5:6]]))
    assert grown[5] == 1 and found[5] < 1 and (grown >= found).all()
    assert (nearness(x, hard[:0]) == 0).all() and nearness(np.zeros((1, 7)), hard)[0] == 0


def test_without_both_labels_all_rows_are_alike() -> None:
    x = np.random.default_rng(0).normal(size=(6, 2))
    for hard, p in (([True, True], 1.0), ([False, False], 0.0), ([], 0.0)):
        rows = np.arange(len(hard))
        assert (probability_of_hard(x, rows, np.array(hard, dtype=bool)) == p).all()
    told = probability_of_hard(x, np.array([0, 1, 2]), np.array([True, False, True]))
    assert told[0] > told[1] and len(np.unique(told)) == 6


# Labels


def test_a_reference_holds_where_it_is_better_or_neither_is_in_both_orders() -> None:
    """The own answer is the first: by hand, and the same with both orders exchanged."""
    table: list[tuple[Choice, Choice, float]] = [
        ("first", "first", 1),
        ("first", "tie", 1),
        ("tie", "tie", 1),
        ("second", "second", 0),
        ("first", "second", 0.5),
        ("tie", "second", 0.5),
    ]
    for one, other, value in table:
        assert holds(Verdict(one, other)) == holds(Verdict(other, one)) == value
    known: list[Choice] = ["first", "second", "tie", "miss"]
    for each in known:
        assert np.isnan(holds(Verdict(each, "miss"))) and np.isnan(holds(Verdict("miss", each)))


def test_pairs_are_judged_in_both_orders_and_stored(server: FaultyServer, tmp_path: Path) -> None:
    rows = [
        example("About rivers?", "On rivers: wet.", "They are dry."),
        example("About bread?", "On bread: hard.", "It is soft."),
        example("About comets?", "On comets: ice.", "On comets: ice."),
        example("About bread, again?", "On bread: hard.", "  "),
        example("About violins?", "On violins: wood."),
        example(" ", "On what?", "That."),
    ]
    spec = Preference(judge_of(server, tmp_path))
    measured = spec.load()(rows)
    np.testing.assert_array_equal(values_of(measured), [1, 0, 1, 1, np.nan, np.nan])
    assert measured.numbers["requests"].tolist() == [2, 2, 0, 0, 0, 0] and len(server.payloads) == 4
    found = {name: np.flatnonzero(flags).tolist() for name, flags in measured.marks.items() if flags.any()}
    assert found == {"same_answer": [2], "blank_answer": [3], "no_other_answer": [4], "no_question": [5]}
    assert (measured.numbers["input_tokens"][:2] > 100).all() and (measured.numbers["output_tokens"][:2] == 4).all()
    lab, pool = Lab(tmp_path / "store"), Pool.of(rows[:4], "made")
    assert lab.features(spec, pool).array().tolist() == [1, 0, 1, 1] and len(server.payloads) == 4
    with pytest.raises(ValueError, match="longest_characters 0"):
        dataclasses.replace(spec, longest_characters=0)
    with pytest.raises(ValueError, match="no answer"):
        beside(Example("alone", (Message("user", "Q"),), b"0" * 16), "other")


def test_a_judge_who_goes_by_the_place_makes_nothing_hard(server: FaultyServer, tmp_path: Path) -> None:
    rows = [example("About rivers?", "On rivers: wet.", "They are dry.")]
    for place in ("a", "b"):
        server.says = lambda payload, place=place: f"Better: {place}"
        measured = Preference(dataclasses.replace(judge_of(server, tmp_path), model=place)).load()(rows)
        assert values_of(measured).tolist() == [0.5] and measured.marks["inconsistent"][0]
    counts = Labelled(np.arange(4), np.array([1, 0.5, 0, np.nan], np.float32), 8).counts()
    assert counts == {"asked": 4, "hard": 1, "easy": 1, "inconsistent": 1, "misses": 1}


def test_ties_hold_and_a_miss_is_no_label(server: FaultyServer, tmp_path: Path) -> None:
    rows = [example("About rivers?", "On rivers: wet.", "They are dry.")]
    server.says = lambda payload: "Better: tie"
    measured = Preference(judge_of(server, tmp_path)).load()(rows)
    assert values_of(measured).tolist() == [1] and measured.marks["tie"][0]
    server.says = lambda payload: "Better: b" if payload["messages"][-1]["content"].find("wet") < 0 else "Neither."
    measured = Preference(dataclasses.replace(judge_of(server, tmp_path), model="mute")).load()(rows)
    assert np.isnan(values_of(measured)[0]) and measured.marks["miss"][0]


def test_the_model_answers_what_the_reference_answers(server: FaultyServer, tmp_path: Path, model: str) -> None:
    """Turns behind the last answer are not asked; a row without an answer has no label."""
    talk = (Message("user", "About rivers?"), Message("assistant", "On rivers: wet."))
    longer = (*talk, Message("user", "And about bread?"))
    rows = [Example(str(at), each, content_key(each)) for at, each in enumerate((talk, longer, longer[2:]))]
    pool, lab = Pool.of(rows, "made"), Lab(tmp_path / "store")
    labels = hard_labels(
        Generation(model, max_new_tokens=6), Preference(judge_of(server, tmp_path)), pool, np.array([2, 1, 0]), lab
    )
    np.testing.assert_array_equal(labels.values, [np.nan, 1, 1])
    assert len(server.payloads) == 2 and labels.requests == 2  # both rows are the same pair
    assert not any("bread" in str(payload) for payload in server.payloads)


# Whole runs


def go(
    method: IterSelectTune, folder: Path, *, budget: str = "20%", pool: Pool | None = None, store: str = "store"
) -> tuple[Outcome, Lab]:
    lab = Lab(folder / store)
    return run(method, pool_of(folder, 240) if pool is None else pool, Budget.parse(budget), lab, seed=3), lab


def test_a_planted_rule_is_learned(server: FaultyServer, tmp_path: Path, model: str) -> None:
    pool = pool_of(tmp_path, 240)
    outcome, _ = go(method_of(model, judge_of(server, tmp_path)), tmp_path, pool=pool)
    planted = np.isin(pool.column("topic"), HARD)
    last = outcome.rounds[-1]
    assert len(outcome.rounds) == 3 and planted[outcome.selection.rows].all()
    assert last.notes["auc"] > 0.95 and last.notes["auc"] > last.notes["auc_by_length"] + 0.2
    assert last.notes["labels"]["asked"] == 3 * 12 and last.notes["validation"]["asked"] == 24
    assert len(server.payloads) <= 2 * (3 * 12 + 24) and len(server.payloads) == last.notes["judge_requests"]
    assert last.columns["p_hard"][planted].mean() > last.columns["p_hard"][~planted].mean() + 0.3
    q = hardness(last.columns["p_hard"], last.columns["similarity"], alpha=0.7)
    np.testing.assert_allclose(last.columns["q"], q, atol=1e-6)
    assert (last.columns["similarity"] == 1).sum() >= last.notes["labels"]["hard"]
    np.testing.assert_array_equal(np.sort(last.columns["q"])[::-1][:48], last.selection.gains)
    assert last.cells["rows"].sum() == 48 and last.notes["ended_by"] == "none"


def test_batches_are_the_hardest_of_v_and_never_of_the_validation_set(
    server: FaultyServer, tmp_path: Path, model: str
) -> None:
    pool = pool_of(tmp_path, 240)
    _, lab = go(method_of(model, judge_of(server, tmp_path), iterations=4), tmp_path, pool=pool)
    asked = [int(re.findall(r"Question (\d+) ", str(payload))[0]) for payload in server.payloads]
    order = list(dict.fromkeys(asked))
    held, batches = set(order[:24]), [order[24 + 12 * at : 36 + 12 * at] for at in range(4)]
    assert len(order) == 24 + 48 and not held & {row for batch in batches for row in batch}
    planted = np.isin(pool.column("topic"), HARD)
    assert planted[batches[0]].mean() < 0.8 and planted[batches[1] + batches[2]].mean() > 0.9
    assert abs(planted[order[:24]].mean() - planted.mean()) < 0.3
    assert [stage.name for stage in lab.stages].count("fit classifier") == 4


def test_nothing_is_asked_again_whatever_the_budget_and_more_rounds_go_on(
    server: FaultyServer, tmp_path: Path, model: str
) -> None:
    judge = judge_of(server, tmp_path)
    first, _ = go(method_of(model, judge), tmp_path)
    sent = len(server.payloads)
    again, lab = go(method_of(model, judge), tmp_path, budget="70")
    assert len(server.payloads) == sent and sum(stage.rows for stage in lab.stages) == 0
    np.testing.assert_array_equal(again.selection.rows[:48], first.selection.rows)
    fresh, _ = go(method_of(model, dataclasses.replace(judge, store=str(tmp_path / "b"))), tmp_path, store="fresh")
    np.testing.assert_array_equal(fresh.selection.rows, first.selection.rows)
    np.testing.assert_array_equal(fresh.selection.gains, first.selection.gains)
    assert len(server.payloads) == 2 * sent
    longer, _ = go(method_of(model, judge, iterations=4), tmp_path)
    for short, long in zip(first.rounds, longer.rounds, strict=False):
        np.testing.assert_array_equal(short.columns["q"], long.columns["q"])
    assert len(longer.rounds) == 4 and len(server.payloads) == 2 * sent + 2 * 12


def test_a_run_that_ran_out_of_money_goes_on_where_it_stopped(server: FaultyServer, tmp_path: Path, model: str) -> None:
    poor = judge_of(server, tmp_path, budget=Limits(requests=70), concurrency=1)
    with pytest.raises(BudgetSpent):
        go(method_of(model, poor), tmp_path)
    assert len(server.payloads) == 70
    rich = dataclasses.replace(poor, budget=Limits(requests=500))
    outcome, _ = go(method_of(model, rich), tmp_path)
    assert len(server.payloads) == outcome.rounds[-1].notes["judge_requests"] == 120


def test_labelling_stops_at_the_accuracy_or_where_v_is_used_up(
    server: FaultyServer, tmp_path: Path, model: str
) -> None:
    judge = judge_of(server, tmp_path)
    outcome, _ = go(method_of(model, judge, stop_accuracy=0.7), tmp_path)
    reached = [each.notes["balanced_accuracy"] >= 0.7 for each in outcome.rounds]
    assert reached[-1] and not any(reached[:-1]) and outcome.rounds[-1].notes["ended_by"] == "accuracy"
    outcome, _ = go(method_of(model, judge, diverse_rows=30, iterations=9), tmp_path)
    assert [each.notes["labels"]["asked"] for each in outcome.rounds] == [12, 24, 30]
    assert outcome.rounds[-1].notes["ended_by"] == "V is used up"


def test_labels_that_are_all_alike_are_said_and_do_not_favour_the_first_rows(
    server: FaultyServer, tmp_path: Path, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.says = lambda payload: "Better: a"
    outcome, _ = go(method_of(model, judge_of(server, tmp_path)), tmp_path)
    last = outcome.rounds[-1]
    assert "no classifier yet" in caplog.text and last.notes["auc"] is None
    assert last.notes["labels"]["inconsistent"] + last.notes["labels"]["hard"] == 36
    assert outcome.selection.rows.max() > 120 and np.unique(last.columns["p_hard"]).size == 1


def test_a_miss_leaves_its_row_in_the_pool(server: FaultyServer, tmp_path: Path, model: str) -> None:
    server.says = lambda payload: "I cannot say." if "bread" in str(payload) else by_topic(payload)
    outcome, _ = go(method_of(model, judge_of(server, tmp_path)), tmp_path, budget="100%")
    assert outcome.rounds[-1].notes["labels"]["misses"] and outcome.pool.candidates.all()
    assert outcome.rounds[-1].notes["auc"] > 0.8


def test_a_judge_without_any_verdict_is_given_up_after_the_validation_set(
    server: FaultyServer, tmp_path: Path, model: str
) -> None:
    server.says = lambda payload: "I cannot say."
    with pytest.raises(ModelError, match=r"no verdict of .* on any of 24 rows \(48 requests\)"):
        go(method_of(model, judge_of(server, tmp_path)), tmp_path)
    assert len(server.payloads) == 48


def test_odd_numbers_are_refused_before_anything_is_spent(server: FaultyServer, tmp_path: Path, model: str) -> None:
    for options, words in (({"clusters": 0}, "clusters 0"), ({"alpha": 2.0}, "alpha 2.0"), ({"ridge": 0.0}, "ridge 0")):
        with pytest.raises(ValueError, match=words):
            go(method_of(model, judge_of(server, tmp_path), **options), tmp_path)
    assert not server.payloads
