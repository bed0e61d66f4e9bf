"""Methods that read the pool with a model: what they rank by, against the formulas of their papers."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pyarrow.parquet as pq
import pytest

from coretune.cli import main
from coretune.features import Ragged
from coretune.features.answer_loss import AnswerLoss
from coretune.features.answer_token_losses import AnswerTokenLosses
from coretune.features.embedding import Embedding
from coretune.features.noisy_token_losses import NoisyTokenLosses, drawn
from coretune.judge import Judge
from coretune.knowledge import Knowledge
from coretune.lab import Lab, release
from coretune.methods._labels import numbered, split
from coretune.methods.nuggets import golden, ranked
from coretune.methods.s2l import quotas
from coretune.methods.t_shirt import ratios
from coretune.quality import READ, named_score
from coretune.rounds import run
from coretune.runs import Request, make_method
from coretune.selection import Budget
from tests.faulty_server import FaultyServer
from tests.made_models import causal_folder
from tests.made_pools import TOPICS, HashedWords, pool_of, records, write_jsonl


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    yield str(causal_folder(tmp_path_factory.mktemp("model"), window=4096))
    release()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def _hashed_words(monkeypatch):
    monkeypatch.setattr(Embedding, "resolved", lambda self: HashedWords())


def outcome_of(name, pool, budget, store, **options):
    return run(make_method(name, options), pool, Budget.parse(budget), Lab(store))


def losses(model, pool, store, **options):
    return Lab(store).features(AnswerLoss(model, **options), pool).array().astype(np.float64)


def highest(score, k):
    return np.argsort(-score, kind="stable")[:k]


def test_bands_of_perplexity_do_not_meet(tmp_path, model, store):
    pool = pool_of(tmp_path)
    loss = losses(model, pool, store)
    rows = {
        band: outcome_of("perplexity", pool, "30", store, model=model, band=band).selection.rows
        for band in ("low", "middle", "high")
    }
    np.testing.assert_array_equal(rows["low"], highest(-loss, 30))
    np.testing.assert_array_equal(rows["high"], highest(loss, 30))
    ranks = np.argsort(np.argsort(loss))[rows["middle"]]
    assert sorted(ranks) == list(range(45, 75))


def test_the_two_ifds_divide_what_their_papers_divide(tmp_path, model, store):
    pool = pool_of(tmp_path)
    given, alone = losses(model, pool, store), losses(model, pool, store, before="nothing")
    cherry = outcome_of("ifd", pool, "20", store, model=model, experience=0)
    small = outcome_of("superfiltering", pool, "20", store, model=model)
    for made, ratio, name in ((cherry, given / alone, "ifd"), (small, np.exp(given - alone), "ifd_perplexity")):
        np.testing.assert_allclose(made.rounds[-1].columns[name], ratio, rtol=1e-5)
        order = highest(np.where(ratio < 1, ratio, -ratio), 20)
        np.testing.assert_array_equal(made.selection.rows, order)


def test_ifd_reads_with_a_model_that_has_seen_middling_rows_of_every_cluster(tmp_path, model, store):
    pool = pool_of(tmp_path, 300)
    lab = Lab(store)
    made = run(make_method("ifd", {"model": model}), pool, Budget.parse("20"), lab)
    (tuning,) = [stage for stage in lab.stages if stage.name.startswith("tune")]
    assert 20 <= tuning.rows <= 30  # 10 rows of each of 3 clusters
    plain = outcome_of("ifd", pool, "20", store, model=model, experience=0)
    assert np.abs(made.rounds[-1].columns["ifd"] - plain.rounds[-1].columns["ifd"]).max() > 1e-4


def test_superfiltering_s_diverse_rows_are_among_the_best_tenfold(tmp_path, model, store):
    pool = pool_of(tmp_path)
    best = outcome_of("superfiltering", pool, "50", store, model=model).selection.rows
    diverse = outcome_of("superfiltering", pool, "5", store, model=model, diverse=True).selection.rows
    assert set(diverse) <= set(best)
    assert len(diverse) == 5


def test_recost_ranks_by_both_entropies_and_a_window_of_a_step_is_that_ranking(tmp_path, model, store):
    pool = pool_of(tmp_path)
    knowledge = Knowledge.of([f"More about {topic}: {topic}{i} and {i}" for topic in TOPICS for i in range(0, 30, 3)])
    asked = {"model": model, "knowledge": knowledge, "search": "bm25"}
    made = outcome_of("recost", pool, "21", store, step=5, window=1, **asked)
    columns = made.rounds[-1].columns
    without, given = columns["entropy"], columns["entropy_with_knowledge"]
    np.testing.assert_array_equal(without, losses(model, pool, store).astype(np.float32))
    assert (without != given).mean() > 0.9
    gained = without.astype(np.float64) - given
    np.testing.assert_allclose(columns["relative_entropy"], gained, rtol=1e-5, atol=1e-7)
    rank = np.empty((2, 120), np.int64)
    for row, score in enumerate((gained, -given)):
        rank[row, np.argsort(-score, kind="stable")] = np.arange(120)
    best = np.argsort(rank.sum(axis=0), kind="stable")[:21]
    assert set(made.selection.rows) == set(best)
    clusters = outcome_of("recost", pool, "21", store, sampler="clusters", **asked)
    assert clusters.rounds[-1].partition is not None
    control = outcome_of("recost", pool, "21", store, control=True, rank="relative", step=5, window=1, **asked)
    random = control.rounds[-1].columns["entropy_with_random_text"].astype(np.float64)
    want = random - given  # (H0 - Hk) - (H0 - Hrandom)
    np.testing.assert_allclose(control.rounds[-1].columns["relative_entropy"], want, rtol=1e-4, atol=1e-5)
    assert set(control.selection.rows) == set(highest(control.rounds[-1].columns["relative_entropy"], 21))


def test_recost_without_knowledge_takes_what_is_shipped(tmp_path, model, store):
    pool = pool_of(tmp_path, 30)
    made = outcome_of("recost", pool, "5", store, model=model, search="bm25", passages=1)
    assert len(made.selection) == 5
    assert len(made.rounds[-1].notes["knowledge"]) == 32


def test_golden_scores_by_hand():
    alone = np.array([-2.0, -1.5, -3.0, -0.8])
    shown = np.array([[-1.8, -1.6, -2.0, -0.7], [-1.8, -1.6, -2.0, -0.7]])
    same = np.zeros((2, 4), bool)
    same[1, 2] = True
    share, gain = golden(shown, alone, same)
    np.testing.assert_allclose(share, [0.75, 2 / 3])
    np.testing.assert_allclose(gain, [(0.2 - 0.1 + 1.0 + 0.1) / 4, (0.2 - 0.1 + 0.1) / 3], rtol=1e-6)
    order = ranked(np.array([0.75, 0.5, 0.75, 0.5]), np.array([1.0, 9.0, 2.0, 8.0]), 4)
    np.testing.assert_array_equal(np.argsort(-order), [2, 0, 1, 3])


def test_nuggets_says_its_cost_and_tries_every_anchor(tmp_path, model, store, caplog):
    pool = pool_of(tmp_path, 40)
    made = outcome_of("nuggets", pool, "10", store, model=model, anchors=3)
    assert "40 rows before each of 3 anchors: 120 answers" in caplog.text
    assert len(made.rounds[-1].notes["anchors"]) == 3
    share = made.rounds[-1].columns["golden"]
    assert set(np.round(share * 6).astype(int)) <= {0, 2, 3, 4, 6}  # thirds, and halves for the anchors themselves


def test_s2l_serves_small_sources_and_small_clusters_first():
    owner = np.array([0, 0, 1, 1, 1])
    sizes = np.array([2, 4, 3, 30, 2])
    got = quotas(sizes, owner, 20)
    np.testing.assert_array_equal(got, [2, 4, 3, 11, 0])  # 6 of the small source; then 14: 3, 11, and the pair last
    assert quotas(sizes, owner, 41).tolist() == sizes.tolist()


def test_s2l_clusters_the_trajectories_of_every_source(tmp_path, model, store):
    pool = pool_of(tmp_path)
    options = {"model": model, "checkpoints": 2, "epochs": 1.0, "rank": 2, "sources": "topic"}
    made = outcome_of("s2l", pool, "25", store, **options).rounds[-1]
    topics = pool.column("topic").astype(str)
    for cell in range(len(made.partition)):
        assert len(set(topics[made.partition.members(cell)])) == 1
    assert made.columns["first_loss"].mean() > made.columns["last_loss"].mean()  # it has learnt


def test_equal_ratings_are_drawn_from_the_whole_file(tmp_path, store):
    pool = pool_of(tmp_path)
    with FaultyServer(tmp_path / "log") as server:
        judge = Judge(server.url, "judge")
        made = outcome_of("alpagasus", pool, "10%", store, judge=judge)
        rating = made.rounds[-1].columns["rating"]
        lowest = rating[made.selection.rows].min()
        assert lowest >= np.sort(rating)[-12]
        asked = (tmp_path / "log").read_text().count("asked")
        again = outcome_of("alpagasus", pool, "20%", store, judge=judge)
        assert (tmp_path / "log").read_text().count("asked") <= asked + 1  # but for a probe
    assert set(made.selection.rows) <= set(again.selection.rows) or lowest == rating[again.selection.rows].min()
    assert (store / "answers" / "answers.sqlite").exists()


def test_tags_in_plain_form():
    assert split('["Data  Analysis", "data-analysis", "Chess!"]') == ["data analysis", "chess"]
    assert split("Rivers, rivers , bread") == ["rivers", "bread"]
    found = numbered([["b", "a"], ["a"], [], ["c"]], 1)
    assert found.names == ("a", "b", "c")
    assert (found.labels.tolist(), found.offsets.tolist()) == ([1, 0, 0, 2], [0, 2, 3, 3, 4])
    assert numbered([["b", "a"], ["a"]], 2).names == ("a",)


def test_tags_come_from_a_judge_or_a_column_not_both(tmp_path, store):
    pool = pool_of(tmp_path, 20)
    with pytest.raises(ValueError, match="give one"):
        outcome_of("instag", pool, "5", store)
    with FaultyServer(tmp_path / "log") as server:
        made = outcome_of("instag", pool, "5", store, judge=Judge(server.url, "judge"))
    assert made.rounds[-1].columns["tags"].max() == 2  # "tag XX" and "common tag"
    assert made.rounds[-1].notes["different_tags"] > 2


def test_screening_reads_few_rows_and_says_what_it_lost(tmp_path, model, store):
    pool = pool_of(tmp_path)
    lab = Lab(tmp_path / "store")
    method = make_method("ifd", {"model": model, "experience": 0, "screen": "length", "keep": 0.25})
    made = run(method, pool, Budget.parse("12"), lab)
    said = made.rounds[-1].notes["screen"]
    assert (said["by"], said["survivors"]) == ("length", 30)
    length = np.array([len(example.answer) for example in pool])
    assert set(made.selection.rows) <= set(highest(length, 30))
    read = [stage.rows for stage in lab.stages if stage.name.startswith("answer loss")]
    assert read == [said["measured"]] * 2
    assert np.isfinite(made.rounds[-1].columns["ifd"]).sum() == said["measured"]


@pytest.mark.parametrize("name", sorted(set(READ) - {"yes_probability"}))
def test_kmq_takes_what_a_model_says_as_quality(tmp_path, model, store, name):
    pool = pool_of(tmp_path)
    made = outcome_of("kmq", pool, "12", store, model=model, quality=name)
    np.testing.assert_array_equal(made.rounds[-1].columns[name], named_score(name, pool, Lab(store), model=model))


def test_a_score_of_a_model_needs_one(tmp_path, store):
    with pytest.raises(ValueError, match="name one, with --model"):
        outcome_of("kmq", pool_of(tmp_path), "12", store, quality="ifd")


def coretune(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in words])
        raise SystemExit(0)
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_a_judge_and_knowledge_on_the_command_line_and_again_from_run_toml(capsys, tmp_path, model):
    pool = write_jsonl(tmp_path / "pool.jsonl", records(30))
    out, store = tmp_path / "run", ("--store", tmp_path / "store")
    with FaultyServer(tmp_path / "log") as server:
        asked = ("select", pool, "--method", "alpagasus", "--budget", "10", *store)
        code, _, error = coretune(
            capsys, *asked, "--out", out, "--alpagasus.judge.url", server.url, "--alpagasus.judge.model", "judge",
            "--alpagasus.judge.budget.requests", 100,
        )  # fmt: skip
        assert code == 0, error
        run_toml = tomllib.loads((out / "run.toml").read_text())
        assert run_toml["request"]["options"]["judge"]["budget"]["requests"] == 100
        code, _, error = coretune(capsys, "run", out / "run.toml", "--out", tmp_path / "again", *store)
        assert code == 0, error
        assert (tmp_path / "again" / "selected.jsonl").read_text() == (out / "selected.jsonl").read_text()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "notes.md").write_text("# Notes\n\nOn rivers and bread.\n\nComets come back.\n")
    asked = ("select", pool, "--method", "recost", "--budget", "5", "--model", model, "--recost.search", "bm25", *store)
    code, _, error = coretune(capsys, *asked, "--out", tmp_path / "r", "--recost.knowledge", tmp_path / "docs")
    assert code == 0, error
    run_toml = tomllib.loads((tmp_path / "r" / "run.toml").read_text())
    assert run_toml["options"]["knowledge"] == str(tmp_path / "docs")
    columns = pq.read_table(tmp_path / "r" / "selection.parquet").column_names
    assert {"entropy", "entropy_with_knowledge", "relative_entropy"} <= set(columns)
    code, _, error = coretune(capsys, "run", tmp_path / "r" / "run.toml", "--out", tmp_path / "r2", *store)
    assert code == 0, error
    assert json.loads((tmp_path / "r2" / "selected.jsonl").read_text().splitlines()[0])["topic"] in TOPICS


def test_an_unknown_field_of_a_table_names_the_nearest():
    request = Request(("pool",), "alpagasus", "5", options={"judge": {"url": "http://x", "model": "m", "budgt": {}}})
    with pytest.raises(ValueError, match="did you mean 'budget'"):
        make_method("alpagasus", request.options)


def test_t_shirt_s_ratios_by_hand():
    delta = np.array([-1, -0.05, -0.1, -1.5])
    given, alone = Ragged.of([delta + 2, delta[:2] + 1]), Ragged.of([np.full(4, 2.0), np.ones(2)])
    plain, some = ratios(given, alone, 1, 0.5)
    np.testing.assert_allclose(plain[0], 0.516, atol=5e-4)
    np.testing.assert_allclose(some[0], 0.287, atol=5e-4)  # tokens 1 and 4
    np.testing.assert_allclose(some[1], np.exp(-1), rtol=1e-6)
    two = ratios(Ragged.of([np.concatenate([delta + 2, delta[::-1] + 2])]), Ragged.of([np.full(8, 2.0)]), 2, 0.5)
    np.testing.assert_allclose(two[1], [[0.287, 0.287]], atol=5e-4)


def test_t_shirt_takes_steady_rows_among_the_best(tmp_path, model, store):
    pool = pool_of(tmp_path, 60)
    made = outcome_of("t_shirt", pool, "10", store, model=model, copies=3).rounds[-1]
    mean, deviation, plain = (made.columns[each] for each in ("selective_ifd", "deviation", "ifd_perplexity"))
    best = highest(np.where(plain < 1, mean, mean - 1e6), 20)
    steady = best[highest(-deviation[best] - 1e6 * (plain[best] >= 1), 10)]
    np.testing.assert_array_equal(made.selection.rows, steady)
    assert deviation.min() > 0


def test_noise_is_neftune_s_and_its_absence_changes_nothing(tmp_path, model, store):
    pool, lab = pool_of(tmp_path, 12), Lab(store)
    plain = lab.features(AnswerTokenLosses(model, precision="float32"), pool).ragged()
    still = lab.features(NoisyTokenLosses(model, copies=2, scale=0.0, precision="float32"), pool).ragged()
    blurred = lab.features(NoisyTokenLosses(model, copies=2, scale=50.0, precision="float32"), pool).ragged()
    for row in range(12):
        np.testing.assert_allclose(still[row].reshape(2, -1), np.stack([plain[row]] * 2), rtol=1e-5, atol=1e-5)
        one, other = blurred[row].reshape(2, -1)
        assert np.abs(one - other).max() > 1e-3
        assert np.abs(one - plain[row]).max() > 1e-3
    noise = drawn(NoisyTokenLosses(model), b"key", 0, 0, (50, 80))
    assert np.abs(noise).max() <= 5 / np.sqrt(50 * 80)
    np.testing.assert_allclose(noise.std(), 5 / np.sqrt(50 * 80) / np.sqrt(3), rtol=0.03)
    assert (drawn(NoisyTokenLosses(model), b"key", 0, 1, (50, 80)) != noise).all()


@pytest.mark.parametrize("name", ["ifd", "nuggets"])
def test_a_share_that_is_none_is_refused_before_anything_is_spent(tmp_path, model, name):
    lab = Lab(tmp_path / "store")
    method = make_method(name, {"model": model, "screen": "length", "keep": 2.0})
    with pytest.raises(ValueError, match=r"keep 2\.0"):
        run(method, pool_of(tmp_path, 20), Budget.parse("5"), lab)
    assert [stage.rows for stage in lab.stages if stage.name != "choose"] == []
