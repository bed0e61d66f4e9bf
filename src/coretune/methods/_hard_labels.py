"""Which instructions are hard for a model: it answers them, and a judge compares its answers with the references."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coretune.answered import to_last_answer
from coretune.errors import ModelError
from coretune.features.generation import Generation
from coretune.features.preference import Preference, beside
from coretune.pool import Pool
from coretune.scores.hardness import probability_of_hard
from coretune.scores.logistic import auc, balanced_accuracy
from coretune.shapes import Bool, Float, Float32, Int64

if TYPE_CHECKING:
    from coretune.lab import Lab

log = logging.getLogger(__name__)

ENOUGH = 10  # rows without a single verdict after which a judge is given up


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows that were asked about, in order of asking, and what came of it `(m,)`.

    1: the reference holds against the model's answer in both orders; 0: in neither; 0.5: in one; NaN: no verdict, or
    no answer to judge. `requests` are those that the labels cost, whenever they were paid.
    """

    rows: Int64[np.ndarray, " m"]
    values: Float32[np.ndarray, " m"]
    requests: int

    @classmethod
    def none(cls) -> Labelled:
        """No rows yet."""
        return cls(np.empty(0, np.int64), np.empty(0, np.float32), 0)

    def and_then(self, more: Labelled) -> Labelled:
        """These, and then others."""
        return Labelled(
            np.concatenate([self.rows, more.rows]),
            np.concatenate([self.values, more.values]),
            self.requests + more.requests,
        )

    @property
    def known(self) -> Bool[np.ndarray, " m"]:
        """Which have a label."""
        return np.asarray(np.isfinite(self.values))

    @property
    def hard(self) -> Bool[np.ndarray, " m"]:
        """Which are hard: only those on which both orders agree."""
        return np.asarray(self.values == 1)

    def probability_of_hard(self, x: Float[np.ndarray, "n d"], ridge: float) -> Float[np.ndarray, " n"]:
        """Of every row `(n,)`, by a classifier fitted to the rows that have a label."""
        return probability_of_hard(x, self.rows[self.known], self.hard[self.known], ridge)

    def counts(self) -> dict[str, int]:
        """How many were asked about, and how many are what."""
        told = {"hard": 1.0, "easy": 0.0, "inconsistent": 0.5}
        counted = {name: int((self.values == value).sum()) for name, value in told.items()}
        return {"asked": len(self.rows), **counted, "misses": int((~self.known).sum())}


def hard_labels(
    answers: Generation, preference: Preference, pool: Pool, rows: Int64[np.ndarray, " m"], lab: Lab
) -> Labelled:
    """Label these rows of the pool; what is stored is neither answered nor judged again.

    A row that the model cannot be asked, or that has no verdict, has no label and stays a candidate: a judge's silence
    is no reason to leave it out of the pool.
    """
    asked = to_last_answer(pool, rows)
    places = np.flatnonzero(asked.candidates)
    texts = lab.features(answers, _beyond_choice(asked), places).texts()
    said = [(place, text) for place, text in zip(places.tolist(), texts, strict=True) if text is not None]
    values = np.full(len(rows), np.nan, np.float32)
    if not said:
        return Labelled(rows, values, 0)
    pairs = Pool.of([beside(asked[place], text) for place, text in said], "pairs")
    told = lab.features(preference, _beyond_choice(pairs))
    values[[place for place, _ in said]] = told.array()
    return Labelled(rows, values, int(told.numbers["requests"][pairs.duplicate_of < 0].sum()))


def refuse_silence(asked: Labelled, judge: str) -> None:
    """Raise `ModelError` where a judge has said nothing usable of any of `ENOUGH` rows or more."""
    if len(asked.rows) >= ENOUGH and not asked.known.any():
        raise ModelError(
            f"there is no verdict of {judge} on any of {len(asked.rows)} rows ({asked.requests} requests): its replies "
            "are not `a`, `b` or `tie`, so nothing can be learned from them. Take another judge, or have the server "
            "hold it to these words (judge.extra takes further fields of a request, as llama.cpp's `grammar`)"
        )


def how_it_does(
    held: Labelled, labelled: Labelled, p: Float[np.ndarray, " n"], length: Float[np.ndarray, " n"], ridge: float
) -> dict[str, Any]:
    """Notes on a classifier: its AUC and balanced accuracy on the validation set `held`, beside the AUC of one that
    knows an instruction's length alone (its logarithm, in standard deviations of the labelled rows). None where the
    validation set holds one label alone.
    """
    rows, hard = held.rows[held.known], held.hard[held.known]
    column = np.log1p(length.astype(np.float64))[:, None]
    spread = column[labelled.rows].std() if len(labelled.rows) else 0.0
    by_length = labelled.probability_of_hard(column / (spread or 1.0), ridge)
    counts = labelled.counts()
    if not counts["hard"] or counts["hard"] == labelled.known.sum():
        log.warning("there is no classifier yet, since all labels are alike: %s", counts)
    return {
        "labels": counts,
        "validation": held.counts(),
        "auc": _known(auc(p[rows], hard)),
        "auc_by_length": _known(auc(by_length[rows], hard)),
        "balanced_accuracy": _known(balanced_accuracy(p[rows], hard)),
        "judge_requests": labelled.requests + held.requests,
    }


def _known(number: float) -> float | None:
    return None if np.isnan(number) else number


def _beyond_choice(pool: Pool) -> Pool:
    """The pool with all rows barred, so that a row without a value is no error."""
    return pool.exclude(np.arange(len(pool)), "asked about, not chosen")
