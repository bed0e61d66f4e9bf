"""Iterative kMQ: rounds that nest, weights that follow what was measured, and a loop that goes on where it stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from coretune.errors import ModelError
from coretune.features import Measure, Measured
from coretune.features.answer_token_losses import AnswerTokenLosses
from coretune.features.embedding import Embedding
from coretune.features.generation import Generation
from coretune.features.judgement import Judgement
from coretune.features.reward import Reward
from coretune.judge import Judge
from coretune.lab import Lab, release
from coretune.methods._loop import adapter_of
from coretune.partitions import Partition, grown
from coretune.pickers import drawn
from coretune.pool import Example, Message, Pool, content_key
from coretune.rounds import Outcome, run
from coretune.runs import make_method
from coretune.scores.cell_weights import carried_over, cell_means, softmax_of, standardised
from coretune.selection import Budget, Selection
from tests.faulty_server import FaultyServer
from tests.made_models import causal_folder
from tests.made_pools import TOPICS, HashedWords, pool_of

JUNK = "bread"


@dataclass(frozen=True)
class Rates:
    """A stand-in for a reward model: 0 for whatever a model writes, and for a pool's answers by their topic."""

    version: ClassVar[int] = 1
    junk: float = -1.0
    unrated: str = "no topic at all"

    def resolved(self) -> Rates:
        return self

    def load(self) -> Measure:
        return self.measure

    def measure(self, examples: Sequence[Example]) -> Measured:
        return Measured(np.array([self._rate(example.answer) for example in examples], dtype=np.float32))

    def _rate(self, answer: str) -> float:
        said = next((topic for topic in TOPICS if answer.startswith(f"On {topic}:")), None)
        if said == self.unrated:
            return float("nan")
        return 0.0 if said is None else self.junk if said == JUNK else 1.0 + len(answer) / 1e3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(causal_folder(tmp_path_factory.mktemp("model"), window=512))


@pytest.fixture(autouse=True)
def _no_real_models(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Embedding, "resolved", lambda self: HashedWords())
    yield
    release()


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the reward model of the method be one of these."""

    def use(**options: Any) -> dict[str, str]:
        monkeypatch.setattr(Reward, "resolved", lambda self: Rates(**options))
        return {"reward": "a model that rates"}

    return use


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for tests that may find what others have measured."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def go(model: str, tmp_path: Path, shared: Path) -> Any:
    pool = pool_of(tmp_path)

    def going(
        budget: str = "36", *, store: str | None = None, seed: int = 0, name: str = "kmq_iterative", **options: Any
    ):
        given = {"clusters": 5, **options}
        if name == "kmq_iterative":
            given = {"quality": "stars", "model": model, "rank": 2, "max_tokens": 192, "max_new_tokens": 5, **given}
        lab = Lab(shared if store is None else tmp_path / store)
        tokens = {"model": model} if "tokens" in budget else {}
        return run(make_method(name, given), pool, Budget.parse(budget), lab, seed=seed, **tokens), lab, pool

    return going


def topics_of(outcome: Outcome, pool: Pool) -> list[str]:
    """The commonest topic of each cell."""
    said, cell = pool.column("topic"), outcome.rounds[0].partition.cell
    return [Counter(said[cell == number]).most_common(1)[0][0] for number in range(cell.max() + 1)]


def test_rounds_nest_and_fill_the_budget_and_weights_are_shares(go: Any, rates: Any) -> None:
    outcome, _, _ = go("35", **rates())
    assert [len(each.selection) for each in outcome.rounds] == [12, 23, 35]
    for one, other in zip(outcome.rounds, outcome.rounds[1:], strict=False):
        assert np.array_equal(one.selection.rows, other.selection.rows[: len(one.selection)])
    assert len(np.unique(outcome.selection.rows)) == 35
    assert np.allclose(outcome.selection.weights, 1)
    assert outcome.rounds[0].cells["weight"] == pytest.approx(np.full(5, 0.2))
    for one, other in zip(outcome.rounds, outcome.rounds[1:], strict=False):
        assert np.array_equal(one.cells["next_weight"], other.cells["weight"])
        assert (other.cells["weight"] >= 0).all() and other.cells["weight"].sum() == pytest.approx(1)
        assert one.cells["measured"].sum() == len(one.selection) == one.notes["measured"]
    assert set(outcome.rounds[-1].cells) == {"weight"} and outcome.rounds[-1].model is not None


def test_new_rows_go_to_cells_by_weight_within_what_they_have_left(go: Any, rates: Any) -> None:
    outcome, _, _ = go("90", **rates(junk=0.5), final_model=False)
    for one, other in zip(outcome.rounds, outcome.rounds[1:], strict=False):
        cell = other.partition.cell
        new = np.bincount(cell[other.selection.rows[len(one.selection) :]], minlength=5)
        left = other.partition.sizes - np.bincount(cell[one.selection.rows], minlength=5)
        assert (new <= left).all()
        free = new < left
        asked = other.cells["weight"] * (len(other.selection) - len(one.selection))
        assert (new[free] >= np.floor(asked[free])).all()


@pytest.mark.parametrize("rule", ["carried_over", "softmax"])
def test_weights_follow_from_the_gaps_by_the_rule(go: Any, rates: Any, rule: str) -> None:
    outcome, _, _ = go(**rates(junk=0.25), weights=rule, final_model=False)
    for each in outcome.rounds[:-1]:
        rows = np.sort(each.selection.rows)
        gap, cell = each.columns["gap"][rows].astype(np.float64), each.partition.cell[rows]
        means = cell_means(gap, cell, 5)
        assert each.cells["score"] == pytest.approx(means, rel=1e-6)
        after = (
            softmax_of(cell_means(standardised(gap), cell, 5))
            if rule == "softmax"
            else carried_over(each.cells["weight"], means)
        )
        assert each.cells["next_weight"] == pytest.approx(after, rel=1e-5)
        assert np.isnan(np.delete(each.columns["gap"], rows)).all()
        assert each.notes["gap_mean"] == pytest.approx(gap.mean())


@pytest.mark.parametrize(("junk", "floor"), [(0.3, 0.0), (-1.0, 0.0), (-1.0, 0.05)])
def test_a_cell_of_junk_loses_weight_in_every_round(go: Any, rates: Any, junk: float, floor: float) -> None:
    outcome, _, pool = go("48", **rates(junk=junk), iterations=4, floor=floor, final_model=False)
    bad = topics_of(outcome, pool).index(JUNK)
    course = [each.cells["weight"][bad] for each in outcome.rounds]
    if junk > 0:
        assert (np.diff(course) < 0).all()
    else:
        assert course[0] == pytest.approx(0.2)
        assert np.allclose(course[1:], floor / 5, rtol=0.1)
        cell = outcome.rounds[0].partition.cell
        assert floor or not (cell[outcome.selection.rows[len(outcome.rounds[0].selection) :]] == bad).any()


def test_one_round_is_kmq_with_equal_quotas_and_one_cell_a_draw_by_quality(go: Any) -> None:
    ours, lab, _ = go("40", iterations=1, final_model=False)
    assert np.array_equal(ours.selection.rows, go("40", name="kmq", quality="stars", quotas="equal")[0].selection.rows)
    assert not [stage for stage in lab.stages if stage.name.startswith(("tune", "generation"))]
    assert ours.rounds[0].model is None
    alone = go("40", iterations=1, clusters=1, final_model=False)[0].selection.rows
    assert np.array_equal(alone, go("40", name="kmq", quality="stars", clusters=1)[0].selection.rows)


def test_a_constant_quality_is_a_uniform_draw(go: Any) -> None:
    flat = go("40", iterations=1, clusters=1, final_model=False, temperature=1e12)[0].selection.rows
    assert np.array_equal(flat, go("40", name="km_random", clusters=1)[0].selection.rows)


def test_growing_row_by_row_is_one_draw_without_replacement() -> None:
    log_weights, cells = np.log([36.0, 30, 25, 16, 9, 4]), Partition(np.zeros(6, np.int32))
    counts = np.zeros(6)
    for seed in range(4000):
        rng, chosen = np.random.default_rng(seed), Selection.of([])
        for k in (1, 2):
            chosen = grown(chosen, cells, np.ones(1), lambda rows, q, own: drawn(log_weights[rows], q, rng=own), k, rng)
        counts[chosen.rows] += 1
    assert counts / 4000 == pytest.approx([0.5598, 0.4903, 0.4232, 0.2854, 0.1660, 0.0753], abs=0.03)


def test_a_cell_that_is_empty_passes_its_rows_on() -> None:
    cells = Partition(np.array([0, 0, 0, 1, 1, 2], np.int32))
    before = Selection.of([5, 3])

    def pick(rows: np.ndarray, quota: int, rng: np.random.Generator) -> Selection:
        return Selection.of(np.arange(quota))

    found = grown(before, cells, np.array([0.1, 0.2, 0.7]), pick, 5, np.random.default_rng(0))
    assert found.rows[:2].tolist() == [5, 3] and sorted(found.rows[2:].tolist()) == [0, 1, 4]
    assert np.array_equal(grown(before, cells, np.ones(3), pick, 1, np.random.default_rng(0)).rows, [5])
    assert len(grown(before, cells, np.ones(3), pick, 9, np.random.default_rng(0))) == 6


def measured_rows(lab: Lab) -> dict[str, int]:
    """Rows measured or tuned on anew, by stage."""
    return {stage.name: stage.rows for stage in lab.stages if stage.rows and stage.name != "choose"}


def test_the_same_seed_gives_the_same_and_a_second_run_measures_nothing(go: Any) -> None:
    first, lab, _ = go("24", iterations=2, store="one")
    assert measured_rows(lab)
    again, idle, _ = go("24", iterations=2, store="one")
    assert measured_rows(idle) == {}
    fresh, _, _ = go("24", iterations=2, store="other")
    for other in (again, fresh):
        assert np.array_equal(other.selection.rows, first.selection.rows)
        assert np.array_equal(other.rounds[1].cells["weight"], first.rounds[1].cells["weight"])
    other = go("12", iterations=1, final_model=False, seed=1)[0]
    assert not np.array_equal(other.selection.rows, first.rounds[0].selection.rows)


def test_further_rounds_go_on_and_repeat_none(go: Any) -> None:
    options = {"rows_a_round": 12, "clusters": None, "store": "one"}
    short, before, pool = go("24", **options)
    longer, lab, _ = go("36", **options)
    assert [len(each.selection) for each in longer.rounds] == [12, 24, 36]
    for one, other in zip(short.rounds, longer.rounds, strict=False):
        assert np.array_equal(one.selection.rows, other.selection.rows)
        assert np.array_equal(one.cells["weight"], other.cells["weight"])
        assert one.model.address == other.model.address
    tunings = [stage.rows for stage in lab.stages if stage.name.startswith("tune")]
    assert tunings == [0, 0, 36]
    written = [stage for stage in lab.stages if stage.name.startswith("generation")]
    assert [(stage.stored, stage.rows) for stage in written] == [(12, 0), (0, 24)]
    assert max(stage.rows for stage in before.stages if stage.name.startswith(("generation", "answer"))) < len(pool)


def test_each_round_is_tuned_afresh_on_all_rows_or_goes_on_with_the_new_ones(go: Any, rates: Any) -> None:
    fresh, _, _ = go(**rates())
    further, _, _ = go(**rates(), restart=False)
    assert [each.model.counts["rows"] for each in fresh.rounds] == [12, 24, 36]
    assert [each.model.counts["rows"] for each in further.rounds] == [12, 12, 12]
    assert fresh.rounds[0].model.address == further.rounds[0].model.address
    assert fresh.rounds[1].model.address != further.rounds[1].model.address


def test_a_budget_of_answer_tokens_is_kept_round_by_round(go: Any, rates: Any) -> None:
    outcome, _, _ = go("25%-tokens", **rates(), final_model=False)
    spent = [int(outcome.answer_tokens[each.selection.rows].sum()) for each in outcome.rounds]
    total = outcome.budget.tokens
    slack = max(total / 100, float(np.median(outcome.answer_tokens)) / 2)
    assert len(spent) == 3
    assert all(total * share - slack <= used <= total * share for used, share in zip(spent, (1 / 3, 2 / 3, 1)))


def example(asked: str, said: str) -> Example:
    turns = (Message("user", asked), Message("assistant", said))
    return Example("made", turns, content_key(turns))


def test_without_a_scorer_the_gap_is_the_difference_of_log_perplexities(go: Any, model: str) -> None:
    outcome, _, pool = go("6", iterations=2, max_new_tokens=3, final_model=False)
    first = outcome.rounds[0]
    adapter, rows = adapter_of(first.model), np.sort(first.selection.rows)
    asked = pool.examples(rows)
    texts = Generation(model, adapter, max_new_tokens=3).load()(asked)
    precision = AnswerTokenLosses(model, max_tokens=192).resolved().precision
    read = AnswerTokenLosses(model, adapter=adapter, max_tokens=192, precision=precision).load()
    gold = read(asked).values
    made = read([example(each.prompt, text or "") for each, text in zip(asked, texts.values, strict=True)]).values
    assert texts.marks["unfinished"].any()
    for place, row in enumerate(rows.tolist()):
        own = made[place][:-1] if texts.marks["unfinished"][place] else made[place]  # it has written no stop token
        assert first.columns["gap"][row] == pytest.approx(gold[place].mean() - own.mean(), abs=1e-5)
    assert first.notes["scorer"] == "perplexity"
    assert first.notes["unfinished"] == int(texts.marks["unfinished"].sum())


def test_a_judge_rates_both_answers(go: Any, tmp_path: Path) -> None:
    with FaultyServer(tmp_path / "log") as server:
        judge = Judge(server.url, "made", store=str(tmp_path / "answers"))
        outcome, _, pool = go("6", iterations=2, judge=judge, final_model=False)
        first = outcome.rounds[0]
        rows = np.sort(first.selection.rows)
        gold = Judgement(judge).resolved().load()(pool.examples(rows)).values
    gap = first.columns["gap"][rows]
    known = np.isfinite(gap)
    assert first.notes["scorer"] == "judge" and known.any()
    generated = gold[known] - gap[known]
    assert ((generated > -1e-5) & (generated < 5 + 1e-5)).all()


def test_rows_without_a_score_are_counted_and_stay(go: Any, rates: Any, caplog: pytest.LogCaptureFixture) -> None:
    outcome, _, pool = go(**rates(unrated="chess"), final_model=False)
    assert outcome.pool.candidates.all()
    for each in outcome.rounds[:-1]:
        rows = each.selection.rows
        chess = pool.column("topic")[rows] == "chess"
        assert np.array_equal(np.isnan(each.columns["gap"][rows]), chess)
        assert each.notes["unmeasured"] == chess.sum() > 0
    assert "answers cannot be compared" in caplog.text
    cells = outcome.rounds[0].cells
    alone = cells["measured"] == 0  # the cell of chess: it keeps its weight
    assert alone.sum() == 1 and np.isnan(cells["score"][alone]).all()
    assert cells["next_weight"][alone] == pytest.approx(0.2)


def test_a_budget_of_fewer_rows_than_rounds_has_a_round_for_each(go: Any, caplog: pytest.LogCaptureFixture) -> None:
    outcome, _, _ = go("2", final_model=False)
    assert [len(each.selection) for each in outcome.rounds] == [1, 2]
    assert "2 rows: 2 rounds, not 3" in caplog.text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"iterations": 0}, "iterations 0"),
        ({"floor": 2.0}, "floor 2"),
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"reward": "a", "judge": Judge("http://127.0.0.1:1/v1", "b")}, "give one of them"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_method("kmq_iterative", {"quality": "stars", "model": "m", **options})


def test_a_reward_model_that_is_not_there_is_told_before_anything_is_tuned(go: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such file or folder"):
        go("12", reward=str(tmp_path / "nothing"), store="one")
    assert not (tmp_path / "one").exists()
