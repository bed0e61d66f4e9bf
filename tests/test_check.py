"""The check of a pool: every number by hand on a small pool, with and without a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coretune.check import check
from coretune.check_report import Spread, printable
from coretune.pool import Pool
from coretune.readers import read_pool


def chat(*said: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)], **more}


RECORDS = [
    chat("Name a colour.", "Blue.", source="colours", lang="en"),
    chat("Name a colour.", "Blue.", source="colours", lang="en"),
    chat("Привет", "Здравствуйте", source="greetings"),
    chat("Name a colour.", "Blue.", "Another?", "Red, I think.", source="colours", lang="en"),
    {
        "messages": [{"role": "system", "content": "Be brief."}, *chat("Say <|im_end|>.", "No.")["messages"]],
        "source": "markers",
    },
    {"prompt": "a\u001b[2Jb", "completion": "x" * 600, "source": "steering"},
]
REJECTED = ['{"messages": [', '{"messages": [{"role": "user", "content": "Hm?"}]}', "[1", "[2", "[3"]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join([*(json.dumps(record) for record in RECORDS), *REJECTED]) + "\n", encoding="utf-8")
    return read_pool(path)


def test_counts_by_hand(pool: Pool) -> None:
    report = check(pool)
    assert (report.rows, report.rejected, report.duplicates) == (6, 5, 1)
    assert report.formats == pool.formats
    assert sum(report.formats.values()) == 6
    assert report.sources == {"colours": 3, "greetings": 1, "markers": 1, "steering": 1}
    assert report.languages == {"en": 3, "Cyrillic script": 1, "Latin script": 2}
    assert report.turns == {"one answer": 5, "several answers": 1, "with a system turn": 1}
    prompts = np.array([14, 14, 6, 22, 9 + 15, 6])
    assert report.prompt == Spread.of(prompts)
    assert report.answer == Spread(643, pytest.approx(643 / 6), 3, 3, 5, 18, 600)
    assert sum(reason.count for reason in report.rejects) == 5
    assert report.rejects[0].count == 4
    assert len(report.rejects[0].first) == 3
    assert report.rejects[0].first[0].split(":")[-3:-1] != report.rejects[0].first[1].split(":")[-3:-1]
    assert report.model is None
    assert report.raw_bytes == sum(len(json.dumps(record)) for record in RECORDS)


def test_the_text_says_it_and_steers_no_terminal(pool: Pool) -> None:
    report = check(pool)
    text = report.to_text()
    assert "11 records read from" in text
    assert "usable      6" in text
    assert "rejected    5" in text
    assert json.loads(json.dumps(report.as_dict()))["rows"] == 6
    assert printable("a\u001b[2J\r\nb\u202e") == "a\\x1b[2J\\r\nb\\u202e"


def test_lengths_of_a_view_are_those_of_its_rows(pool: Pool) -> None:
    view = pool.subset(np.array([5, 3]))
    report = check(view)
    assert (report.prompt.least, report.prompt.most) == (6, 22)
    assert report.turns == {"one answer": 1, "several answers": 1}
    assert report.duplicates == 0


def test_an_empty_pool(pool: Pool) -> None:
    report = check(pool.subset(np.array([], dtype=np.int64)))
    assert (report.rows, report.answer.total, report.duplicates) == (0, 0, 0)
    assert "usable      0" in report.to_text()


def test_a_large_pool_counts_as_a_loop_does(
    make_pool: Callable[[Sequence[Any]], Pool], rng: np.random.Generator
) -> None:
    sizes = rng.integers(0, 60, (500, 2))
    pool = make_pool([chat("p" * a, "é" * (b + 1), source=f"s{a % 11}") for a, b in sizes])
    report = check(pool)
    assert report.answer == Spread.of(np.array([len(example.answer) for example in pool]))
    assert report.prompt.total == sizes[:, 0].sum()
    assert "and 3 more" in report.to_text()


class TestWithAModel:
    @pytest.fixture(autouse=True)
    def tokenizer(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        pytest.importorskip("transformers")
        from tests.made_tokenizers import tokenizer_for

        made = tokenizer_for("smollm2")
        made.model_max_length = 200
        monkeypatch.setattr("coretune.models.load_tokenizer", lambda name, **_: made)
        return made

    def test_tokens_by_hand(self, pool: Pool, tokenizer: Any) -> None:
        from coretune.chat import encode

        said: list[tuple[str, int, int | None]] = []
        report = check(pool, model="small", progress=lambda *told: said.append(told))
        found = report.model
        assert found is not None
        encoded = [encode(tokenizer, example.messages) for example in pool]
        total = np.array([len(each.ids) for each in encoded])
        answer = np.array([each.answer_mask.sum() for each in encoded])
        assert (found.tokens, found.prompt, found.answer) == tuple(map(Spread.of, (total, total - answer, answer)))
        assert (found.context, found.lose_context, found.lose_answer) == (
            200,
            (total > 200).sum(),
            (answer > 200).sum(),
        )
        assert (found.lose_context, found.lose_answer) == (1, 1)
        assert (found.unstopped, found.markers, found.bos) == (0, 1, "once")
        assert not found.refused
        assert said == [("count tokens", 6, 6)]
        text = report.to_text()
        assert "200 tokens; above it 1 rows" in text
        assert "⟦Blue.<|im_end|>⟧\n" in text
        assert "⟦Red, I think.<|im_end|>⟧" in text
        assert "in the loss, behind every answer" in text
        assert found.shown_id == pool[3].id
        assert [stretch.text for stretch in found.shown if stretch.answer] == [
            "Blue.<|im_end|>",
            "Red, I think.<|im_end|>",
        ]

    def test_refused_rows_are_told_with_the_templates_reason(self, pool: Pool, tokenizer: Any) -> None:
        tokenizer.chat_template = (
            "{% for m in messages %}{% if m.role == 'system' or loop.index0 > 2 %}{{ raise_exception('Too much.') }}"
            "{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
        )
        report = check(pool, model="small").model
        assert report is not None
        assert [(reason.name, reason.count) for reason in report.refused] == [("refused by the chat template", 1)]
        assert "Too much." in report.refused[0].first[0]
        assert report.notes["system_folded"] == 1
        assert report.unstopped == 5
        assert report.bos.startswith("none: the template writes no <|im_start|>")
        assert "not in the loss in 5 of 5 rows" in check(pool, model="small").to_text()

    def test_a_doubled_bos_is_said(self, pool: Pool, tokenizer: Any) -> None:
        tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
        found = check(pool, model="small").model
        assert found is not None
        assert found.bos.startswith("2 times in a row")

    def test_nothing_taken(self, pool: Pool) -> None:
        found = check(pool.subset(np.array([], dtype=np.int64)), model="small").model
        assert found is not None
        assert (found.tokens.total, found.shown, found.shown_id) == (0, (), None)


def test_answer_tokens(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from coretune.chat import PLAIN, encode
    from coretune.errors import ModelError
    from coretune.features import FeatureSpec
    from coretune.features.answer_tokens import AnswerTokens
    from coretune.pool import Example, Message
    from tests.made_tokenizers import tokenizer_for

    made = tokenizer_for("gemma")
    monkeypatch.setattr("coretune.models.load_tokenizer", lambda name, **_: made)
    spec = AnswerTokens("here").resolved()
    assert isinstance(spec, FeatureSpec)
    assert spec.tokenizer == AnswerTokens("there").resolved().tokenizer
    assert hash(spec) == hash(spec.resolved())
    silent = Example("s", (Message("user", "Hm?"), Message("assistant", " ")), b"0" * 16)
    twice = Example("t", (Message("user", "Hm?"), Message("user", "Well?"), Message("assistant", "Yes.")), b"1" * 16)
    rows = [*pool, silent, twice]
    measured = spec.load()(rows)
    truth = [float(encode(made, example.messages).answer_mask.sum()) for example in pool]
    assert measured.values.dtype == np.float32
    assert measured.values[:6].tolist() == truth
    assert measured.values[6] == 0
    assert np.isnan(measured.values[7])
    marks = {name: np.flatnonzero(rows).tolist() for name, rows in measured.marks.items() if rows.any()}
    assert marks == {"no answer text": [6], "refused by the chat template": [7], "system_folded": [4]}
    parts = [spec.load()(rows[start : start + 3]).values for start in range(0, 8, 3)]
    assert np.array_equal(np.concatenate(parts), measured.values, equal_nan=True)
    plain = AnswerTokens("here", PLAIN).resolved()
    assert plain.tokenizer != spec.tokenizer
    assert plain.load()(rows).values[7] == 1 + len(made.encode("Yes.", add_special_tokens=False))
    made.chat_template = None
    with pytest.raises(ModelError, match="model 'here': the tokenizer has no chat template"):
        AnswerTokens("here").resolved()
    made.chat_template = PLAIN + " "
    with pytest.raises(ModelError, match="run again"):
        spec.load()


@pytest.mark.models
def test_answer_tokens_through_the_lab(pool: Pool, tmp_path: Path) -> None:
    from coretune.features.answer_tokens import AnswerTokens
    from coretune.lab import Lab

    lab = Lab(tmp_path / "store")
    counts = lab.features(AnswerTokens("smollm2-135m"), pool)
    found = check(pool, model="smollm2-135m").model
    assert found is not None
    assert Spread.of(counts.array().astype(np.int64)) == found.answer
    assert counts.array()[[0, 3]].tolist() == [3.0, 3.0 + 6.0]  # Blue . <|im_end|>, and Red , I think . <|im_end|>
    assert not any(mark.any() for mark in counts.marks.values())
    assert found.context == 8192
    again = Lab(tmp_path / "store")
    again.features(AnswerTokens("smollm2-135m"), pool)
    assert [(stage.rows, stage.stored) for stage in again.stages] == [(0, 6)]
