"""Methods on gradients: what they tune, what they take from it, and what their papers' numbers say."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from coretune import select
from coretune.cli import main
from coretune.errors import ModelError
from coretune.features.lora_gradient import AdapterAt, LoraGradient
from coretune.lab import Lab, release
from coretune.methods._warm_up import plan_of
from coretune.methods.gradnorm import Gradnorm
from coretune.methods.less import Less
from coretune.methods.tagcos import Tagcos
from coretune.partitions import proportional
from coretune.readers import read_pool
from coretune.rounds import run
from coretune.runs import make_method
from coretune.selection import Budget
from coretune.tuning import find_tuned
from tests.made_models import causal_folder
from tests.made_pools import pool_of, records, write_jsonl

SMALL = {"rank": 2, "width": 64, "max_tokens": 32}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    yield str(causal_folder(tmp_path_factory.mktemp("model")))
    release()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def test_tagcos_plans_the_paper_s_warm_up_on_the_paper_s_pool():
    method = Tagcos("any")
    plan = plan_of(method._tuning(1_090_298), method.warmup_share, 1_090_298)
    assert (plan.rows, plan.spec.batch_rows, plan.run, plan.checkpoints) == (54_515, 128, 30, (10, 20, 30))
    assert 1666 < plan.planned <= 1704
    means = plan.rates.reshape(3, 10).mean(axis=1)
    # published to five digits for a plan of up to 1,700 steps, whose rate rises over 51; 1,704 steps rise over 52
    np.testing.assert_allclose(means * np.ceil(0.03 * plan.planned) / 51, [2.1569e-06, 6.0784e-06, 1e-05], rtol=5e-5)


def test_tagcos_scales_its_warm_up_to_a_small_pool():
    method = Tagcos("any")
    plan = plan_of(method._tuning(300), method.warmup_share, 300)
    assert (plan.rows, plan.spec.batch_rows, plan.run, plan.checkpoints) == (15, 1, 60, (20, 40, 60))


def test_less_keeps_a_checkpoint_an_epoch(tmp_path):
    method = Less("any", pool_of(tmp_path, 8))
    plan = plan_of(method._tuning(), method.warmup_share, 270_679)
    epoch = -(-13_534 // 128)
    assert plan.checkpoints == (epoch, 2 * epoch, 3 * epoch, 4 * epoch)
    rates = plan.rates.reshape(4, -1).mean(axis=1)
    np.testing.assert_allclose(
        rates, [1.6877e-05, 1.2859e-05, 7.7030e-06, 2.5616e-06], rtol=0.02
    )  # published; their steps were 420


@pytest.mark.parametrize("matching", ["restarts", "exact"])
def test_tagcos_gives_every_cluster_its_share_and_weights_what_it_stands_for(tmp_path, model, store, matching):
    pool = pool_of(tmp_path)
    method = Tagcos(model, matching=matching, **SMALL)
    outcome = run(method, pool, Budget.parse("40"), Lab(store))
    (made,) = outcome.rounds
    cells = made.partition
    assert len(cells) == 4  # min(100, 40 // 10)
    cell = cells.cell[made.selection.rows]
    np.testing.assert_array_equal(np.bincount(cell), proportional(cells.sizes, 40))
    mass = np.bincount(cell, weights=made.selection.weights)
    np.testing.assert_allclose(mass / mass.sum(), cells.sizes / cells.sizes.sum(), rtol=1e-5)
    agreement = made.columns["checkpoint_agreement"]
    assert agreement.min() > 0 and agreement.max() <= 1.001


def test_less_scores_by_the_best_mean_cosine_over_checkpoints(tmp_path, model, store):
    pool, target = pool_of(tmp_path), pool_of(tmp_path, 10, seed=1)
    method = Less(model, target, subtask="topic", direction="adam", **SMALL)
    lab = Lab(store)
    outcome = run(method, pool, Budget.parse("12"), lab)
    measured = [(spec, feature) for spec, feature in lab.measured if isinstance(spec, LoraGradient)]
    topics = target.column("topic").astype(str)
    want = np.zeros((len(pool), len(set(topics))))
    tuned = find_tuned(store / "tunings" / outcome.rounds[-1].notes["warm_up"])
    rates = np.array([each.learning_rate for each in tuned.checkpoints])
    for i, weight in enumerate(rates / rates.sum()):
        (wanted_spec, wanted), (spec, gradients) = measured[2 * i], measured[2 * i + 1]
        assert (wanted_spec.direction, spec.direction) == ("none", "adam")
        cosines = gradients.array().astype(np.float64) @ wanted.array().astype(np.float64).T
        for j, topic in enumerate(sorted(set(topics))):
            want[:, j] += weight * cosines[:, topics == topic].mean(axis=1)
    score = outcome.rounds[-1].columns["influence"]
    np.testing.assert_allclose(score, want.max(axis=1), atol=2e-3)
    assert set(outcome.selection.rows) == set(np.argsort(-score, kind="stable")[:12])


def test_less_prefers_the_rows_that_are_the_target(tmp_path, model, store):
    made = records(60)
    pool = pool_of(tmp_path, 60)
    write_jsonl(tmp_path / "target.jsonl", made[:1])
    method = Less(model, read_pool(tmp_path / "target.jsonl"), direction="none", **SMALL)
    outcome = run(method, pool, Budget.parse("5"), Lab(store))
    assert outcome.selection.rows[0] == 0  # its own gradient: cosine 1


def test_another_model_may_choose(tmp_path, model, store, tmp_path_factory):
    pool = pool_of(tmp_path)
    other = str(causal_folder(tmp_path_factory.mktemp("other"), seed=5))
    lab = Lab(store)
    by_other = select(pool, "gradnorm", "10", lab=lab, model=model, select_model=other, **SMALL)
    kinds = {type(spec).__name__: spec.model for spec, _ in lab.measured}
    assert (kinds["AnswerTokens"], kinds["LoraGradient"]) == (model, other)
    as_model = run(Gradnorm(other, **SMALL), pool, Budget.parse("10"), lab, model=model).selection
    np.testing.assert_array_equal(by_other.rows, as_model.rows)


def do(words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code


def test_from_the_command_line_to_a_tuned_model(tmp_path, model, store, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "pool.jsonl", records(60))
    options = ["--tagcos.rank", "2", "--tagcos.width", "64", "--tagcos.max-tokens", "32", "--store", str(store)]
    do(["select", "pool.jsonl", "--method", "tagcos", "--model", model, "--budget", "20", "--out", "run", *options])
    table = pq.read_table(tmp_path / "run" / "selection.parquet").to_pydict()
    weights = [weight for weight, chosen in zip(table["weight"], table["selected"], strict=True) if chosen]
    assert len(weights) == 20 and len(set(weights)) > 1
    assert "checkpoint_agreement" in table
    stages = [json.loads(line)["stage"] for line in (tmp_path / "run" / "stages.jsonl").read_text().splitlines()]
    assert any(stage.startswith("tune") for stage in stages) and "kmeans" in stages
    do(["run", "run/run.toml", "--out", "again", "--store", str(store)])
    again = pq.read_table(tmp_path / "again" / "selection.parquet").to_pydict()
    assert again["selected"] == table["selected"] and again["weight"] == table["weight"]
    do(["tune", "run", "--model", model, "--rank", "2", "--epochs", "1", "--out", "tuned", "--store", str(store)])
    assert (tmp_path / "tuned" / "adapter_model.safetensors").exists()


def test_a_method_without_the_model_it_needs_names_the_flag():
    with pytest.raises(ValueError, match="tagcos needs --model"):
        make_method("tagcos", {})
    with pytest.raises(ValueError, match="less needs --target"):
        make_method("less", {"model": "any"})


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("tagcos", {"clusters": 0}),
        ("tagcos", {"width": 0}),
        ("less", {"warmup_share": 0.0}),
        ("grad_match", {"ridge": -1.0}),
        ("gradnorm", {"trials": 0}),
        ("craig", {"rank": 0}),
    ],
)
def test_nonsense_is_refused_before_anything_is_tuned(tmp_path, name, option):
    pool = pool_of(tmp_path, 20)
    target = {"target": pool} if name == "less" else {}
    lab = Lab(tmp_path / "store")
    (key,) = option
    with pytest.raises(ValueError, match=f"{key} .* asked; give"):
        run(make_method(name, {"model": "any", **target, **option}), pool, Budget.parse("5"), lab)
    assert not [stage for stage in lab.stages if stage.name.startswith("tune")]


def test_a_gradient_needs_a_checkpoint(model):
    with pytest.raises(ModelError, match="needs an adapter"):
        LoraGradient(model).resolved()
    assert AdapterAt("a", "b").weight == 1.0
