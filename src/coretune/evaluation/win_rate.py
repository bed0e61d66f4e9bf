"""How often a judge prefers a model's answers to others' answers, asked in both orders, with length held equal too.

Papers: Zheng et al., "Judging LLM-as-a-Judge", 2023, arXiv 2306.05685; Li et al., "From Quantity to Quality" (Cherry),
2024, arXiv 2308.12032; Dubois et al., "Length-Controlled AlpacaEval", 2024, arXiv 2404.04475.
Needs: a judge behind an OpenAI-compatible endpoint, and answers to compare with: the items' own, another model's, or a
file's.
Costs: an answer and two short requests an item.

1. The model answers every item; so does the other model, where there is one.
2. The judge says which answer is better, or neither, once in each order.
3. An item counts 1, 1/2 or 0 by FastChat's rule: whatever the orders disagree on is a tie. The tally by Cherry_LLM's
   rule stands beside it; on the same judgements the two give different numbers (`_tie_rules`).
4. The rate at equal lengths is that of a logistic regression on the difference of lengths (`_length_control`).

Differs: Cherry_LLM and MT-bench have the judge score both answers from 1 to 10 and compare the scores; here it says
which is better. AlpacaEval asks in one order, drawn at random, and reads a probability; here both orders are asked. A
reply without a verdict is a miss: counted, and its item left out. Two answers that are the same, letter by letter, are
a tie that nobody is asked about.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coretune.errors import CoretuneError, PoolError
from coretune.evaluation._length_control import length_controlled
from coretune.evaluation._tie_rules import Tally, both_orders, either_order, inconsistent
from coretune.evaluation.items import Items, read_items
from coretune.evaluation.reading import Reading
from coretune.evaluation.subject import Subject
from coretune.features.generation import Generation
from coretune.judge import BETTER, Judge, Pair, PreferencePrompt, Verdict, prefer
from coretune.shapes import Float

log = logging.getLogger(__name__)

SAME = Verdict("tie", "tie")


@dataclass(frozen=True)
class WinRate:
    """The share of items whose answer the judge prefers, ties half: `items` is 1, 0.5 or 0 each.

    Figures: wins, ties and losses by both rules, with Cherry's `winning_score`; `inconsistency`, the share of items on
    which the orders disagree; mean lengths of both sides in characters; `length_controlled_win_rate` with its standard
    error. Counts: `misses` (no verdict in one order or both), `no_answer` and `no_other_answer` (nothing to compare),
    all left out, `same_answer`, and the marks of a model's answers, such as `unfinished` ones.
    """

    items: Items
    """What is asked."""
    judge: Judge
    """Who judges."""
    against: str | None = None
    """Whose answers are compared with: a model's name, or a file of answers with the items' ids or prompts; none is
    the items' own answers."""
    prompt: PreferencePrompt = BETTER
    """What the judge is asked."""
    max_new_tokens: int = 256
    """The longest answer of a model."""
    temperature: float = 0.0
    """At which models answer; 0 takes the likeliest words."""
    seed: int = 0
    """Of answers at a temperature above 0."""

    def read(self, subject: Subject) -> Reading:
        """Answer, judge and count. Raises `CoretuneError` where no item is judged, and what the judge raises."""
        (own, marks), (others, other_marks) = self._written(subject), self._compared_with(subject)
        pairs = [(row, a, b) for row, (a, b) in enumerate(zip(own, others, strict=True)) if None not in (a, b)]
        judged = self._judged(subject, [(row, a or "", b or "") for row, a, b in pairs])
        counts = {
            "no_answer": own.count(None),
            "no_other_answer": sum(b is None and a is not None for a, b in zip(own, others, strict=True)),
            "same_answer": sum(a == b for _, a, b in pairs),
            "misses": len(pairs) - len(judged),
            **marks,
            **other_marks,
        }
        if not judged:
            raise CoretuneError(
                f"none of the {len(self.items)} items of {self.items.name} was judged ({_told(counts)}); see that the "
                f"judge {self.judge.model} replies as asked and that there are answers to compare with"
            )
        if counts["misses"]:
            log.warning("%s gave no verdict on %d of %d pairs", self.judge.model, counts["misses"], len(pairs))
        return self._reading(judged, counts, [(own[row] or "", others[row] or "") for row in judged])

    def _reading(self, judged: Mapping[int, Verdict], counts: dict[str, int], said: list[tuple[str, str]]) -> Reading:
        verdicts, rows = list(judged.values()), list(judged)
        scores, lenient = both_orders(verdicts), either_order(verdicts)
        lengths = np.array([[len(a), len(b)] for a, b in said], dtype=np.float64)
        figures, notes = _controlled(scores, lengths)
        return Reading(
            "win_rate",
            "win_rate",
            "share preferred",
            True,
            tuple(self.items.ids[row] for row in rows),
            scores,
            tuple(self.items.groups[row] for row in rows),
            others={"win_rate_either_order": lenient, "inconsistent": inconsistent(verdicts)},
            figures={
                **_tallied(Tally.of(scores), "both_orders"),
                **_tallied(Tally.of(lenient), "either_order"),
                "winning_score": Tally.of(lenient).winning_score,
                "inconsistency": float(inconsistent(verdicts).mean()),
                "mean_characters": float(lengths[:, 0].mean()),
                "mean_characters_other": float(lengths[:, 1].mean()),
                **figures,
            },
            counts=counts,
            texts={"answer": tuple(a for a, _ in said), "other": tuple(b for _, b in said)},
            notes={"judge": self.judge.model, "against": self.against or "the items' own answers", **notes},
        )

    def _judged(self, subject: Subject, pairs: Sequence[tuple[int, str, str]]) -> dict[int, Verdict]:
        """The verdicts by row, without misses; the judge's answers lie in the lab's store unless it was given one."""
        judge = self.judge
        if judge.store is None:
            judge = replace(judge, store=str(subject.lab.store / "answers"))
        asked = [(row, Pair(self.items[row].asked, a, b)) for row, a, b in pairs if a != b]
        with subject.lab.stage(f"judge {judge.model}") as stage:
            stage.rows = len(asked)
            verdicts = prefer(judge, [pair for _, pair in asked], self.prompt)
            told = dict(zip((row for row, _ in asked), verdicts, strict=True))
            judged = {row: told.get(row, SAME) for row, _, _ in pairs}
            heard = {row: each for row, each in judged.items() if "miss" not in (each.as_given, each.turned)}
            paid = [sum(getattr(each, f"{side}_tokens") for each in verdicts) for side in ("input", "output")]
            stage.pay(judge.budget, *paid)
            stage.counts = {"misses": missed} if (missed := len(judged) - len(heard)) else {}
        return heard

    def _written(self, subject: Subject) -> tuple[list[str | None], dict[str, int]]:
        """A model's answers, None for an item that it cannot be asked, and how many have which mark."""
        spec = Generation(
            **subject.fields, max_new_tokens=self.max_new_tokens, temperature=self.temperature, seed=self.seed
        )
        pool = self.items.pool()
        feature = subject.lab.features(spec, pool.exclude(np.arange(len(pool)), "answered"))
        marks = {name: int(flags.sum()) for name, flags in feature.marks.items() if name != "missing"}
        return feature.texts(), {name: count for name, count in marks.items() if count}

    def _compared_with(self, subject: Subject) -> tuple[list[str | None], dict[str, int]]:
        """The other side's answers, None where there is none, and counts of another model's."""
        if self.against is None:
            own = [next(iter(item.references), None) if item.answer is None else item.answer for item in self.items]
            return own, {}
        path = Path(self.against).expanduser()
        if path.is_file() and path.suffix.lower() != ".gguf":
            return _filed(path, self.items), {}
        answers, marks = self._written(Subject(self.against, subject.lab))
        return answers, {f"other_{name}": count for name, count in marks.items()}


def _filed(path: Path, items: Items) -> list[str | None]:
    """The answers of a file, by id where it has all ids, else by what is asked. Raises `PoolError` where none fits."""
    found = read_items(path)
    by_id = {item.id: item.answer for item in found}
    if all(name in by_id for name in items.ids):
        return [by_id[name] for name in items.ids]
    by_question = {item.asked.strip(): item.answer for item in found}
    answers = [by_question.get(item.asked.strip()) for item in items]
    if all(answer is None for answer in answers):
        raise PoolError(
            f"{path} holds {len(found)} answers, and none has the id or the prompt of an item of {items.name}; give a "
            "file with the items' ids, or with their prompts as they are"
        )
    return answers


def _tallied(tally: Tally, rule: str) -> dict[str, float]:
    return {f"{name}_{rule}": float(getattr(tally, name)) for name in ("wins", "ties", "losses")}


def _controlled(
    scores: Float[np.ndarray, " n"], lengths: Float[np.ndarray, "n 2"]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and notes of the rate at equal lengths; a note alone where it cannot be told."""
    found = length_controlled(scores, lengths[:, 0], lengths[:, 1])
    if found is None:
        return {}, {"length_controlled": "not told: fewer than 10 items, or one and the same difference of lengths"}
    rate = {"length_controlled_win_rate": found.rate, "length_controlled_stderr": found.stderr}
    return rate, {"length_weight": found.theta, "length_penalty": found.penalty}


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())
