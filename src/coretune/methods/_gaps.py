"""How far the answer that a row has is from the one that a model now gives: what iterative kMQ steers by."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from coretune.answered import to_last_answer, with_answers
from coretune.features.answer_token_losses import AnswerTokenLosses
from coretune.features.generation import UNFINISHED, Generation
from coretune.features.judgement import Judgement
from coretune.features.lora_gradient import AdapterAt
from coretune.features.reward import Reward
from coretune.judge import Judge
from coretune.methods._judging import in_store
from coretune.methods._loop import adapter_of
from coretune.pool import Pool
from coretune.shapes import Bool, Float, Int64
from coretune.tuning import Tuned

if TYPE_CHECKING:
    from coretune.lab import Lab

log = logging.getLogger(__name__)

ONLY_MEASURED = "measured, never chosen"

Score = Callable[
    [Pool, Int64[np.ndarray, " m"], Bool[np.ndarray, " m"], AdapterAt],  # shapes are names here
    Float[np.ndarray, " m"],
]
"""A number for the answers of some rows of a pool, some of which end for want of room, under an adapter; NaN: none."""


@dataclass(frozen=True)
class Gaps:
    """S `(m,)` of some rows, NaN where there is none, and what happened on the way."""

    values: Float[np.ndarray, " m"]
    notes: Mapping[str, int | float]


class Answering(Protocol):
    """The options by which answers are written and scored."""

    @property
    def model(self) -> str: ...
    @property
    def template(self) -> str | None: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def reward(self) -> str | None: ...
    @property
    def reward_layout(self) -> str | None: ...
    @property
    def judge(self) -> Judge | None: ...


def scorer_of(asked: Answering, lab: Lab) -> tuple[str, Score]:
    """The scorer asked for and its name; a reward model or a judge that is not there is told at once."""
    if asked.reward is not None:
        return "reward", by_reward(Reward(asked.reward, asked.reward_layout).resolved(), lab)
    if asked.judge is not None:
        return "judge", by_judge(Judgement(in_store(asked.judge, lab)).resolved(), lab)
    return "perplexity", by_perplexity(asked, lab)


def by_reward(spec: Reward, lab: Lab) -> Score:
    """What a reward model gives."""
    return lambda pool, rows, _, __: lab.features(spec, pool, rows).array().astype(np.float64)


def by_judge(spec: Judgement, lab: Lab) -> Score:
    """What a judge gives."""
    return lambda pool, rows, _, __: lab.features(spec, pool, rows).array().astype(np.float64)


def by_perplexity(asked: Answering, lab: Lab) -> Score:
    """Log perplexity of the answer tokens under the tuned model.

    An answer that ended for want of room did not end by a stop token, so the one behind it is not counted. Precision is
    settled once, on the model as it came, so that rounds can be compared.
    """
    plain = AnswerTokenLosses(asked.model, template=asked.template, max_tokens=asked.max_tokens)
    precision = plain.resolved().precision

    def score(
        pool: Pool, rows: Int64[np.ndarray, " m"], unfinished: Bool[np.ndarray, " m"], adapter: AdapterAt
    ) -> Float[np.ndarray, " m"]:
        losses = lab.features(replace(plain, adapter=adapter, precision=precision), pool, rows).ragged()
        read = (losses[row][:-1] if cut else losses[row] for row, cut in enumerate(unfinished))
        return np.array([each.mean(dtype=np.float64) if len(each) else np.nan for each in read])

    return score


def gaps(asked: Answering, score: Score, pool: Pool, rows: Int64[np.ndarray, " m"], tuned: Tuned, lab: Lab) -> Gaps:
    """S of these rows: the score of the answer that each has, less that of the one the tuned model writes.

    A row whose prompt cannot be answered, or one of whose answers cannot be scored, has no S; the log says how many.
    """
    adapter, none = adapter_of(tuned), np.zeros(len(rows), dtype=bool)
    gold = _apart(to_last_answer(pool, rows))
    spec = Generation(asked.model, adapter, template=asked.template, max_new_tokens=asked.max_new_tokens)
    written = lab.features(spec, gold)
    texts, unfinished = written.texts(), written.marks.get(UNFINISHED, none)
    made = _apart(with_answers(pool, rows, texts))
    given = np.array([row for row, text in enumerate(texts) if text is not None], dtype=np.int64)
    values = np.full(len(rows), np.nan)
    if len(given):
        ours = score(gold, given, none[given], adapter)
        values[given] = ours - score(made, given, unfinished[given], adapter)
    values[~np.isfinite(values)] = np.nan
    known = values[~np.isnan(values)]
    if len(known) < len(rows):
        log.warning("%d of %d answers cannot be compared with the model's own", len(rows) - len(known), len(rows))
    notes = {"measured": len(known), "unmeasured": len(rows) - len(known), "unfinished": int(unfinished.sum())}
    spread = {"gap_mean": float(known.mean()), "gap_deviation": float(known.std())} if len(known) else {}
    return Gaps(values, notes | spread)


def _apart(pool: Pool) -> Pool:
    """The pool with every row barred: what cannot be measured of an answer is no reason to leave its row out."""
    return pool.exclude(np.flatnonzero(pool.candidates), ONLY_MEASURED)
