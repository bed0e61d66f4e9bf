"""Label a few instructions as hard for the model, train a small classifier on them, and let it rate all the others.

Paper: Song et al., "IterSelectTune: An Iterative Training Framework for Efficient Instruction-Tuning Data Selection",
    2024, arXiv 2410.13464.
Needs: the language model that is to be tuned, an encoder, and a judge behind an OpenAI-compatible endpoint.
Costs: an answer of the model and two short requests for each labelled row, at most 5 x 500 + 500; one encoder pass over
    all instructions. Said before it starts; give the judge a budget (`--iter_select_tune.judge.budget.requests`).

1. k-means of the instructions; V: rows drawn as evenly from all clusters as they allow. Apart from V, a validation set
   drawn uniformly from the whole pool, labelled once and never trained on.
2. A batch of V: in the first round the beginning of the even draw, later the rows with the highest Q.
3. The model answers the batch; the judge compares with the reference, in both orders. A row is hard where the reference
   holds in both: the model's answer is worse, or no better. Otherwise it is easy, also where the orders disagree.
4. The classifier is fitted anew to all labels. P is its probability of hard; R the largest cosine of an instruction to
   one labelled hard; Q = alpha P + (1 - alpha) R, for every row of the pool.
5. From 2 again, until the classifier is right often enough on the validation set, V is used up, or rounds are over.
6. The highest Q within the budget. Every round says what it would choose; these are not parts of one another.

Notation: S -> the pool; V -> `diverse_rows`; D_hard -> rows with label 1; P, R, Q -> `p_hard`, `similarity`, `q`.
Relations: `kmq_iterative`, `lead` and `diverse_evol` look at a model that is tuned in the loop; here it never is.
Differs: no code was published, and only the abstract and summaries were at hand: alpha, clusters, rounds, batch, the
size of V, the threshold, and the largest cosine in R are reconstructed, and so are the two orders. The classifier is no
fine-tuned BERT but a logistic regression on the frozen vectors of a sentence encoder, with both labels weighted alike:
exact, in a second on a CPU, and without a seed. The threshold is on balanced accuracy, since a weak model loses nearly
always and "always hard" would pass a plain one. While all labels are alike there is no classifier and P is the same for
all; rows with equal Q come in random order. A miss of the judge has no label. The judge's prompt is ours. On small
pools a round labels at most a twentieth of the rows, the validation set is at most a tenth and V half of the others,
with ten rows a cluster. The paper keeps 20%; here the budget says. The classifier sees instructions alone, so a bad
reference passes for an easy instruction or a hard one alike: the notes set its AUC beside that of length alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from coretune.features.embedding import Embedding
from coretune.features.generation import Generation
from coretune.features.length import Length
from coretune.features.preference import Preference
from coretune.judge import Judge
from coretune.methods._hard_labels import Labelled, hard_labels, how_it_does, refuse_silence
from coretune.methods._judging import in_store
from coretune.partitions import Partition, equal, kmeans, within
from coretune.pickers import uniform
from coretune.pickers.top import highest
from coretune.pool import Pool
from coretune.rounds import Round
from coretune.scores.hardness import hardness, nearness
from coretune.selection import Budget, Selection
from coretune.shapes import Float, Int64

if TYPE_CHECKING:
    from coretune.lab import Lab

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IterSelectTune:
    """Options of `iter_select_tune`."""

    judge: Judge
    """Who compares the model's answers with the references."""
    model: str
    """The model that is to be tuned: a hub id, a folder, a GGUF file, `smollm2-135m` or `gemma3-270m`."""
    embedder: str = "minilm"
    """What instructions are clustered, classified and compared by: a hub id, a folder, or `minilm`."""
    clusters: int = 100
    """Clusters of instructions from which V is drawn; at most a tenth of the pool."""
    iterations: int = 5
    """Rounds of labelling and fitting."""
    rows_a_round: int = 500
    """Rows labelled in a round; at most a twentieth of the pool."""
    diverse_rows: int = 10_000
    """Rows in V, from which batches are taken; at most half of the pool that is not validation."""
    validation_rows: int = 500
    """Rows drawn uniformly from the pool and labelled to measure the classifier; at most a tenth of the pool."""
    alpha: float = 0.7
    """The classifier's share in Q; the rest is the similarity to what is known to be hard."""
    ridge: float = 1.0
    """The classifier's ridge: half of it times the squared weights is added to the log loss of all labelled rows."""
    stop_accuracy: float | None = 0.9
    """Balanced accuracy on the validation set at which labelling stops; none never stops before the last round."""
    max_new_tokens: int = 256
    """Most tokens of the model's answers."""
    template: str | None = None
    """Chat template for a model that has none; `--template` fills it."""
    remote_code: bool = False
    """Let code that comes with the encoder run."""

    def rounds(self, pool: Pool, budget: Budget, lab: Lab, rng: np.random.Generator) -> Iterator[Round]:
        """A round for every batch of labels: what the classifier of the round would choose.

        Raises `ModelError` where the judge has no verdict on any row.
        """
        self._refuse_odd()
        n, batch = len(pool), max(1, min(self.rows_a_round, len(pool) // 20))
        cluster_rng, validation_rng, diverse_rng, tie_rng, fill_rng = rng.spawn(5)
        x = lab.features(Embedding(self.embedder, text="prompt", remote_code=self.remote_code), pool).array()
        length = lab.features(Length("prompt"), pool).array()
        differing = len(np.unique(x[:, 0]))  # at least so many rows differ; k-means takes no more cells than that
        cells = lab.keep(kmeans, x, max(1, min(self.clusters, n // 10, differing)), cluster_rng)
        validation = np.sort(validation_rng.permutation(n)[: max(1, min(self.validation_rows, n // 10))])
        diverse = _evenly(cells, validation, min(self.diverse_rows, (n - len(validation)) // 2), diverse_rng)
        most = min(len(diverse), self.iterations * batch) + len(validation)
        log.warning("up to %d rows to answer, and %d requests to %s", most, 2 * most, self.judge.model)
        held, labelled = self._labels(pool, validation, lab), Labelled.none()
        refuse_silence(held, self.judge.model)
        shuffled, q = tie_rng.permutation(n), np.zeros(n, np.float32)

        def choose(k: int, _: np.random.Generator) -> Selection:
            rows = _best(q, shuffled, k)
            return Selection.of(rows, q[rows])

        for turn in range(self.iterations):
            rest = diverse[~np.isin(diverse, labelled.rows)]
            waiting = shuffled[np.isin(shuffled, rest)]
            asked = _best(q, waiting, min(batch, len(rest))) if turn else rest[:batch]
            labelled = labelled.and_then(self._labels(pool, asked, lab))
            refuse_silence(held.and_then(labelled), self.judge.model)
            with lab.stage("fit classifier"):
                p = labelled.probability_of_hard(x, self.ridge)
                similarity = nearness(x, x[labelled.rows[labelled.hard]])
                q = hardness(p, similarity, alpha=self.alpha)
                notes = how_it_does(held, labelled, p, length, self.ridge)
            enough = self.stop_accuracy is not None and (notes["balanced_accuracy"] or 0.0) >= self.stop_accuracy
            notes["ended_by"] = "accuracy" if enough else "V is used up" if len(rest) <= batch else "none"
            chosen = budget.fill(choose, fill_rng)
            columns = {"p_hard": p.astype(np.float32), "similarity": similarity, "q": q}
            rows = np.bincount(cells.cell[chosen.rows], minlength=len(cells))
            yield Round(chosen, partition=cells, columns=columns, cells={"rows": rows}, notes=notes)
            if notes["ended_by"] != "none":
                return

    def _labels(self, pool: Pool, rows: Int64[np.ndarray, " m"], lab: Lab) -> Labelled:
        """Answers and judgements of these rows."""
        answers = Generation(self.model, template=self.template, max_new_tokens=self.max_new_tokens)
        return hard_labels(answers, Preference(in_store(self.judge, lab)), pool, rows, lab)

    def _refuse_odd(self) -> None:
        """Raise `ValueError` for numbers that mean nothing, before anything is spent."""
        for name in ("clusters", "iterations", "rows_a_round", "diverse_rows", "validation_rows"):
            if (number := getattr(self, name)) < 1:
                raise ValueError(f"{name} {number} asked of iter_select_tune; give 1 or more")
        if not 0 <= self.alpha <= 1 or not self.ridge > 0:
            raise ValueError(f"alpha {self.alpha} and ridge {self.ridge} asked; give alpha from 0 to 1, ridge above 0")


def _evenly(
    cells: Partition, without: Int64[np.ndarray, " m"], k: int, rng: np.random.Generator
) -> Int64[np.ndarray, " k"]:
    """Rows drawn as evenly from all cells as they allow, every beginning too; none of those to do without."""
    cell = cells.cell.copy()
    cell[without] = -1
    others = replace(cells, cell=cell)
    return within(others, equal(others.sizes, k), lambda rows, quota, rng: uniform(len(rows), quota, rng=rng), rng).rows


def _best(q: Float[np.ndarray, " n"], rows: Int64[np.ndarray, " m"], k: int) -> Int64[np.ndarray, " k"]:
    """The k of these rows with the highest Q; of equal ones those that stand first."""
    return np.asarray(rows[highest(q[rows], k)])
