"""DiverseEvol: nested pools of the sizes asked, k-center in each model's own space, and the frozen-encoder identity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coretune.features.mean_states import MeanStates
from coretune.lab import Lab, release
from coretune.methods._loop import adapter_of
from coretune.methods.diverse_evol import DiverseEvol
from coretune.pickers import k_center, uniform
from coretune.rounds import run
from coretune.scores.vendi import vendi
from coretune.scores.whitening import whitened
from coretune.selection import Budget
from tests.made_models import causal_folder
from tests.made_pools import pool_of

SMALL = {"rank": 2, "max_tokens": 48, "epochs": 1.0, "learning_rate": 2e-2}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    yield str(causal_folder(tmp_path_factory.mktemp("model")))
    release()


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return pool_of(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def sizes(method, rows, **budget):
    return [part.rows for part in method._parts(replace(Budget.parse(str(rows)), rows=rows, **budget))]


def test_the_authors_sizes_and_how_small_budgets_scale_them(caplog):
    method = DiverseEvol("any")
    assert sizes(method, 1100) == list(range(100, 1101, 100))
    assert sizes(method, 5100) == [100, *range(600, 5101, 500)]  # P_0 stays at 100
    assert sizes(method, 220) == list(range(20, 221, 20))
    assert not caplog.records
    assert sizes(method, 60) == list(range(10, 61, 10))
    assert "the model chooses in 5 rounds, not 10" in caplog.text
    assert sizes(method, 7) == [4, 7]
    assert sizes(method, 2) == [1, 2]
    assert sizes(replace(method, first=50), 110) == list(range(50, 111, 10))
    assert sizes(replace(method, first=105), 110) == [105, 110]
    assert "at random" not in caplog.text
    assert sizes(method, 1) == [1]
    assert "all 1 rows are drawn at random" in caplog.text


def test_rows_a_round_make_a_larger_budget_begin_with_the_same_rounds():
    method = DiverseEvol("any", rows_a_round=25)
    assert sizes(method, 60) == [25, 50, 60]
    assert sizes(method, 100) == [25, 50, 75, 100]
    assert sizes(replace(method, rows_a_round=400), 1000) == [100, 500, 900, 1000]
    assert sizes(replace(method, first=10), 60) == [10, 35, 60]


def test_batches_of_small_rounds_are_as_large_a_part_as_the_authors_were():
    method = DiverseEvol("any")
    assert [method._tuning(k).batch_rows for k in (1, 10, 50, 100, 1100)] == [1, 6, 32, 64, 64]
    tuning = method._tuning(1100)
    assert (tuning.epochs, tuning.schedule, tuning.warmup, tuning.weight_decay) == (3.0, "cosine", 0.03, 0.0)


def test_rounds_are_k_center_in_the_space_of_the_model_before(pool, model, store):
    lab = Lab(store)
    outcome = run(DiverseEvol(model, iterations=2, **SMALL), pool, Budget.parse("36"), lab)
    first, *others = outcome.rounds
    assert [len(each.selection) for each in outcome.rounds] == [12, 24, 36]
    assert np.isnan(first.selection.gains).all() and not first.columns
    before = first
    for each in others:
        spec = MeanStates(model, adapter_of(before.model), max_tokens=48)
        x = lab.features(spec, pool).array().astype(np.float64)
        earlier, new = each.selection.rows[:-12], each.selection.rows[-12:]
        np.testing.assert_array_equal(earlier, before.selection.rows)  # nested
        have = earlier.tolist()
        for row, gain in zip(new, each.selection.gains[-12:], strict=True):
            away = np.linalg.norm(x[:, None] - x[have], axis=2).min(axis=1)
            assert row == away.argmax() and gain == pytest.approx(away.max(), rel=1e-5)
            have.append(row)
        away = np.linalg.norm(x[:, None] - x[have], axis=2).min(axis=1)
        np.testing.assert_allclose(each.columns["distance"], away, atol=1e-5)
        assert each.notes["radius"] == pytest.approx(away.max(), rel=1e-5)
        before = each
    assert len({each.model.address for each in outcome.rounds}) == 3
    assert [len(each.model.row_losses) for each in outcome.rounds] == [12, 24, 36]  # each anew, on all rows so far


def test_with_a_model_that_learns_nothing_all_rounds_are_one_k_center_run(pool, model, tmp_path):
    lab = Lab(tmp_path)
    frozen = DiverseEvol(model, iterations=3, rank=2, max_tokens=48, epochs=1.0, learning_rate=1e-30)
    outcome = run(frozen, pool, Budget.parse("40"), lab)
    assert [len(each.selection) for each in outcome.rounds] == [10, 20, 30, 40]
    made = [adapter_of(each.model) for each in outcome.rounds]
    assert len({each.digest for each in made}) == 4  # four tunings
    one, *others = (lab.features(MeanStates(model, each, max_tokens=48), pool).array() for each in made)
    for x in others:
        np.testing.assert_array_equal(x, one)
    exact = [MeanStates(model, each, max_tokens=48, precision="float32") for each in (None, made[-1])]
    np.testing.assert_array_equal(*(spec.load()(pool.examples(np.arange(9))).values for spec in exact))
    whole = k_center(one, 30, chosen=outcome.rounds[0].selection.rows)
    np.testing.assert_array_equal(outcome.selection.rows[10:], whole.rows)
    np.testing.assert_array_equal(outcome.selection.gains[10:], whole.gains)


def test_a_model_that_learns_chooses_otherwise(pool, model, store):
    lab = Lab(store)
    outcome = run(DiverseEvol(model, iterations=2, **SMALL), pool, Budget.parse("36"), lab)
    base = lab.features(MeanStates(model, max_tokens=48), pool).array()
    frozen = k_center(base, 24, chosen=outcome.rounds[0].selection.rows)
    assert set(frozen.rows) != set(outcome.selection.rows[12:])


def test_the_notes_hold_the_vendi_score_of_what_was_chosen(pool, model, store):
    lab = Lab(store)
    outcome = run(DiverseEvol(model, iterations=2, **SMALL), pool, Budget.parse("36"), lab)
    base = lab.features(MeanStates(model, max_tokens=48), pool).array()
    for number, each in enumerate(outcome.rounds):
        rows = each.selection.rows
        assert each.notes["vendi"] == pytest.approx(vendi(base[rows]))
        assert each.notes["vendi_of_the_round"] == pytest.approx(vendi(base[rows[12 * number :]]))


def test_farthest_rows_are_more_diverse_than_random_ones_on_average(pool, model, tmp_path):
    x = Lab(tmp_path / "store").features(MeanStates(model, max_tokens=48, normalize=True), pool).array()
    far, drawn = [], []
    for seed in range(20):
        first = uniform(len(pool), 10, rng=np.random.default_rng(seed)).rows
        far.append(vendi(x[k_center(x, 20, chosen=first).rows]))
        drawn.append(vendi(x[uniform(len(pool), 20, rng=np.random.default_rng(100 + seed)).rows]))
    assert np.mean(far) > np.mean(drawn) + 2 * np.std(drawn) / 20**0.5


@pytest.mark.parametrize("options", [{"normalize": True}, {"whiten": 5}])
def test_vectors_may_be_scaled_or_whitened(pool, model, store, options):
    lab = Lab(store)
    method = DiverseEvol(model, iterations=1, **SMALL, **options)
    outcome = run(method, pool, Budget.parse("30"), lab)
    first, last = outcome.rounds
    spec = MeanStates(model, adapter_of(first.model), normalize="normalize" in options, max_tokens=48)
    x = lab.features(spec, pool).array()
    x = whitened(x, 5) if "whiten" in options else x
    want = k_center(x, 15, chosen=first.selection.rows)
    np.testing.assert_array_equal(last.selection.rows[15:], want.rows)
    assert last.selection.gains[15:].max() <= 2.0001  # of unit rows


def test_answer_tokens_are_met_and_pools_stay_nested(pool, model, store):
    budget, lab = Budget.parse("900-tokens"), Lab(store)
    outcome = run(DiverseEvol(model, iterations=3, **SMALL), pool, budget, lab, model=model)
    tokens = outcome.answer_tokens
    spent = [int(tokens[each.selection.rows].sum()) for each in outcome.rounds]
    assert len(spent) > 1
    asked = outcome.budget.tokens
    near = max(asked / 100, float(np.median(tokens)) / 2)
    assert asked - near <= spent[-1] <= asked
    for one, other in zip(outcome.rounds, outcome.rounds[1:], strict=False):
        np.testing.assert_array_equal(other.selection.rows[: len(one.selection)], one.selection.rows)
        assert len(other.selection) > len(one.selection)


def test_doing_it_again_measures_and_tunes_nothing(pool, model, tmp_path):
    method = DiverseEvol(model, iterations=2, **SMALL)
    first = run(method, pool, Budget.parse("30"), Lab(tmp_path))
    lab = Lab(tmp_path)
    again = run(method, pool, Budget.parse("30"), lab)
    assert sum(stage.rows for stage in lab.stages) == 0
    np.testing.assert_array_equal(again.selection.rows, first.selection.rows)
    assert [each.notes for each in again.rounds] == [each.notes for each in first.rounds]


def test_further_rounds_repeat_none_of_those_before(pool, model, tmp_path):
    method = DiverseEvol(model, rows_a_round=10, **SMALL)
    first = run(method, pool, Budget.parse("20"), Lab(tmp_path))
    lab = Lab(tmp_path)
    longer = run(method, pool, Budget.parse("30"), lab)
    for one, other in zip(first.rounds, longer.rounds, strict=False):
        np.testing.assert_array_equal(one.selection.rows, other.selection.rows)
        assert one.model.address == other.model.address
    done = {stage.name: 0 for stage in lab.stages}
    for stage in lab.stages:
        done[stage.name] += stage.rows
    assert sorted(rows for rows in done.values() if rows) == [10, 30, 120]  # new rows by the base model, M_2, E_1


def test_the_last_model_can_be_left_out(pool, model, store):
    options = {"iterations": 2, **SMALL}
    with_it = run(DiverseEvol(model, **options), pool, Budget.parse("36"), Lab(store))
    without = run(DiverseEvol(model, final_model=False, **options), pool, Budget.parse("36"), Lab(store))
    np.testing.assert_array_equal(with_it.selection.rows, without.selection.rows)
    assert without.rounds[-1].model is None and without.rounds[-2].model.address == with_it.rounds[-2].model.address


def test_nonsense_is_refused(pool, model, store):
    with pytest.raises(ValueError, match="iterations 0 and first None asked; give 1 or more"):
        run(DiverseEvol(model, iterations=0), pool, Budget.parse("36"), Lab(store))
    with pytest.raises(ValueError, match="rounds of 0 rows asked"):
        run(DiverseEvol(model, rows_a_round=0), pool, Budget.parse("20"), Lab(store))
