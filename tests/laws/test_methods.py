"""Laws over every method: exact budget, no repeats, same seed same rows, replay from the store, honest headers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from coretune import methods
from coretune.features.embedding import Embedding
from coretune.judge import Judge
from coretune.knowledge import Knowledge
from coretune.lab import Lab, release
from coretune.rounds import run
from coretune.runs import make_method
from coretune.selection import Budget
from tests.faulty_server import FaultyServer
from tests.made_models import causal_folder
from tests.made_pools import TOPICS, HashedWords, pool_of

NAMES = methods.names()
REQUIRED = {"kmq": {"quality": "stars"}}  # options without a default
OF_SOME = ("gap",)  # columns of rows that were looked at alone
PAIRS = ("delift", "delift_continual", "delift_targeted", "nuggets")  # read every row before several others
LOOPS = ("diverse_evol", "kmq_iterative")  # a larger budget takes more tunings, a smaller one the first of its rounds


@pytest.fixture(autouse=True, scope="module")
def _small_models(tmp_path_factory):
    """No real models: a stand-in for encoders, a tiny language model, and a judge that answers by the hash."""
    folder = tmp_path_factory.mktemp("methods")
    gradients = {"model": str(causal_folder(folder / "model")), "rank": 2, "width": 64, "max_tokens": 32}
    gradients |= {"warmup_share": 0.05}
    reads = {"model": str(causal_folder(folder / "reader", window=4096))}
    target = {"target": pool_of(folder, 8, seed=1)}
    labels = {"tags": "topic"}
    needed = {
        "delift": {"anchors": 2, "max_tokens": 256},
        "delift_continual": {"anchors": 1, "representatives": 2, "existing": target["target"], "max_tokens": 256},
        "delift_targeted": {"anchors": 1, "max_tokens": 256, **target},
        "ask_llm": {"yes": ("y",), "no": ("n",)},
        "bm25": target,
        "diverse_evol": {"rows_a_round": 30, "rank": 2, "epochs": 1.0, "max_tokens": 64},
        "instag": labels,
        "lead": {"rank": 2, "max_tokens": 64, "batch_rows": 4},
        "kmq_iterative": {"quality": "stars", "rows_a_round": 30, "final_model": False, "max_new_tokens": 4, "rank": 2},
        "mig": {"quality": "stars", **labels},
        "nuggets": {"anchors": 2, "max_tokens": 256},
        "qdit": {"quality": "stars"},
        "rds": target,
        "recost": {"knowledge": Knowledge.of([f"{topic}1 {topic}2" for topic in TOPICS]), "step": 5, "search": "bm25"},
        "t_shirt": {"copies": 2},
        "s2l": {"checkpoints": 2, "epochs": 1.0, "rank": 2},
    }
    with FaultyServer(folder / "judge.log") as server, pytest.MonkeyPatch.context() as patch:
        needed["alpagasus"] = {"judge": Judge(server.url, "judge", store=str(folder / "answers"))}
        needed["iter_select_tune"] = needed["alpagasus"] | {"max_new_tokens": 4}
        for name in NAMES:
            known = {each.name for each in dataclasses.fields(methods.find(name))}
            if known >= set(gradients):
                REQUIRED[name] = gradients | (target if "target" in known else {})
            elif "model" in known and name != "longest":
                REQUIRED[name] = REQUIRED.get(name, {}) | reads | needed.get(name, {})
            else:
                REQUIRED[name] = REQUIRED.get(name, {}) | needed.get(name, {})
        patch.setattr(Embedding, "resolved", lambda self: HashedWords())
        yield
    release()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store that budgets share, so that warm-ups are tuned once."""
    return tmp_path_factory.mktemp("store")


def chosen(name, pool, budget, lab, seed=0, **options):
    return run(make_method(name, {**REQUIRED.get(name, {}), **options}), pool, Budget.parse(budget), lab, seed=seed)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", ["1", "7", "10%", "119", "100%"])
def test_budget_is_met_exactly_without_repeats(name, budget, tmp_path, store):
    pool = pool_of(tmp_path)
    selection = chosen(name, pool, budget, Lab(store)).selection
    asked = {"1": 1, "7": 7, "10%": 12, "119": 119, "100%": 120}[budget]
    assert len(selection) == asked
    assert len(np.unique(selection.rows)) == asked
    assert selection.rows.min() >= 0
    assert selection.rows.max() < len(pool)
    assert selection.weights.min() >= 0
    np.testing.assert_allclose(selection.weights.mean(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_rows_in_a_new_store_and_from_the_old(name, tmp_path):
    pool = pool_of(tmp_path)
    if name in PAIRS:
        pool = pool.subset(np.arange(0, 120, 3))
    first = chosen(name, pool, "20%", Lab(tmp_path / "a"), seed=3).selection
    again = chosen(name, pool, "20%", Lab(tmp_path / "a"), seed=3).selection
    fresh = chosen(name, pool, "20%", Lab(tmp_path / "b"), seed=3).selection
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_array_equal(first.rows, fresh.rows)
    np.testing.assert_array_equal(first.gains, fresh.gains)


@pytest.mark.parametrize("name", NAMES)
def test_another_budget_measures_nothing_new(name, tmp_path, store):
    pool = pool_of(tmp_path)
    first, other = ("30%", "10%") if name in LOOPS else ("10%", "30%")
    chosen(name, pool, first, Lab(store))
    lab = Lab(store)
    chosen(name, pool, other, lab)
    arithmetic = ("choose", "kmeans")  # TAGCOS has more clusters in a larger budget
    if name == "lead":  # its loop is one training, which ends at the budget; what comes before is as it was
        arithmetic += ("tune reader",)
    assert sum(stage.rows for stage in lab.stages if stage.name not in arithmetic) == 0


@pytest.mark.parametrize("name", NAMES)
def test_excluded_rows_are_never_chosen_and_columns_come_back_to_the_pool(name, tmp_path):
    pool = pool_of(tmp_path).exclude(np.arange(0, 120, 3), "barred by the test")
    outcome = chosen(name, pool, "30%", Lab(tmp_path / "store"))
    assert len(outcome.selection) == 36
    assert not np.any(outcome.selection.rows % 3 == 0)
    for column, values in outcome.rounds[-1].columns.items():
        assert values.shape == (120,)
        assert np.isnan(values[::3]).all()
        assert np.isfinite(values[pool.candidates if column not in OF_SOME else outcome.rounds[0].selection.rows]).all()
    partition = outcome.rounds[-1].partition
    if partition is not None:
        assert (partition.cell[::3] == -1).all()
        assert (partition.cell[pool.candidates] >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_options_are_a_frozen_dataclass_with_a_doc_each(name):
    from coretune.command_options import field_docs

    kind = methods.find(name)
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    fields = {each.name for each in dataclasses.fields(kind)}
    assert fields == set(field_docs(kind))


@pytest.mark.parametrize("name", NAMES)
def test_header_says_what_it_is_needs_and_costs(name):
    card = methods.card(name)
    assert card.idea.endswith(".")
    assert card.paper
    assert card.needs
    assert card.costs
    text = __import__(f"coretune.methods.{name}", fromlist=["x"]).__doc__
    for section in ("Notation:", "Relations:", "Differs:"):
        assert section in text


def test_unknown_names_say_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'kmq'"):
        methods.find("kmqq")
    with pytest.raises(ValueError, match="did you mean 'clusters'"):
        make_method("ltd", {"cluster": 3})
    with pytest.raises(ValueError, match=r"needs --kmq\.quality"):
        make_method("kmq", {})


def test_a_method_from_outside_is_found_by_its_class():
    assert methods.find("coretune.methods.random:Random") is methods.find("random")
    with pytest.raises(ValueError, match="cannot be imported"):
        methods.find("coretune.methods.random:Nobody")
