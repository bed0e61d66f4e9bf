"""Do selectors prefer dirty records? Spoil a fifth of a clean pool's answers in five ways and see who chooses them.

    python examples/corruption_study.py [--model smollm2-135m] [--template plain] [--pool FILE --knowledge FILE]
        [--rows 2000] [--store DIR] [--out PAGE.md]

For every score: the area under the ROC curve (the chance that a clean record stands above a dirty one), by way of
spoiling too, and the share of dirty records among the best 1%, 5% and 10%, with 95% bootstrap intervals over records.
Without --pool, 2,000 records of the shipped set are spoilt and its other 1,000 are the trusted knowledge. On two cores
an hour and a half with smollm2-135m; needs [models].
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from corruptions import SPOILT, spoil

from coretune import Lab, Pool, read_pool
from coretune.chat import PLAIN
from coretune.data import DEMO_POOL
from coretune.engines import engine_for
from coretune.errors import Unmeasurable
from coretune.features.answer_loss import AnswerLoss
from coretune.features.yes_probability import YesProbability
from coretune.knowledge import Knowledge, RandomContext, Retrieved, indexed
from coretune.scores.surprise import ifd_loss_ratio, ifd_perplexity_ratio, rank_sum, relative_entropy

TOPS = (0.01, 0.05, 0.10)
DRAWS = 1000


def spoilt_pool(clean: Pool, folder: Path, rng: np.random.Generator) -> Pool:
    """The records with a fifth of the answers spoilt; the column `spoilt` says how."""
    answers, how = spoil([example.answer for example in clean], 0.2, rng)
    path = folder / "spoilt.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for example, answer, way in zip(clean, answers, how, strict=True):
            turns = [{"role": turn.role, "content": turn.content} for turn in example.messages]
            turns[-1]["content"] = answer
            file.write(json.dumps({"messages": turns, "spoilt": way}, ensure_ascii=False) + "\n")
    return read_pool(str(path))


def scores_of(pool: Pool, knowledge: Knowledge, model: str, template: str | None, lab: Lab) -> dict[str, np.ndarray]:
    """What every selector ranks by, higher is chosen first."""

    def loss(**options: Any) -> np.ndarray:
        return lab.features(AnswerLoss(model, template=template, **options), pool).array()

    given, alone = loss(), loss(before="nothing")
    retrieved = Retrieved(indexed(knowledge, lab), 3)
    known, by_chance = loss(context=retrieved), loss(context=RandomContext(retrieved, 0))
    gained, format_alone = relative_entropy(given, known), relative_entropy(given, by_chance)
    yes = lab.features(YesProbability(model, template=template), pool).array()
    return {
        "entropy, highest": given,
        "perplexity, lowest": -given,
        "perplexity, middle": -np.abs(np.argsort(np.argsort(given)) - (len(given) - 1) / 2),
        "IFD (loss ratio)": ifd_loss_ratio(given, alone),
        "IFD (perplexity ratio), 1 and more last": np.where(given < alone, ifd_perplexity_ratio(given, alone), -1.0),
        "RECOST, no knowledge (H0 alone)": rank_sum(np.zeros(len(given)), -given),
        "RECOST, random text": rank_sum(format_alone, -by_chance),
        "RECOST, retrieved knowledge": rank_sum(gained, -known),
        "relative entropy, random text": format_alone,
        "relative entropy, knowledge": gained,
        "relative entropy, knowledge less random text": gained - format_alone,
        "Ask-LLM": yes,
        "longest answer": np.array([float(len(example.answer)) for example in pool]),
    }


def area(score: np.ndarray, dirty: np.ndarray) -> float:
    """The chance that a clean record has a higher score than a dirty one, ties counted half."""
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    clean = int((~dirty).sum())
    return float((rank[~dirty].sum() - clean * (clean + 1) / 2) / (clean * (len(score) - clean)))


def dirty_share(score: np.ndarray, dirty: np.ndarray, part: float) -> float:
    """The share of dirty records in the best part."""
    order = np.argsort(-score, kind="stable")
    return float(dirty[order[: max(1, round(part * len(score)))]].mean())


def interval(measure: Any, score: np.ndarray, dirty: np.ndarray, rng: np.random.Generator, *more: float) -> str:
    """The figure and its 95% bootstrap interval over records."""
    draws = []
    for _ in range(DRAWS):
        rows = rng.integers(len(score), size=len(score))
        draws.append(measure(score[rows], dirty[rows], *more))
    low, high = np.percentile(draws, (2.5, 97.5))
    return f"{measure(score, dirty, *more):.2f} [{low:.2f}, {high:.2f}]"


def page(pool: Pool, scores: dict[str, np.ndarray], model: str) -> Iterator[str]:
    """The tables."""
    how = pool.column("spoilt").astype(str)
    dirty, rng = how != "", np.random.default_rng(0)
    yield f"{len(pool)} records, {int(dirty.sum())} spoilt; model {model}; intervals over records, {DRAWS} draws.\n"
    yield "| chosen by | area under ROC | dirty in the best 1% | 5% | 10% |"
    yield "|---|---|---|---|---|"
    for name, score in scores.items():
        shares = " | ".join(interval(dirty_share, score, dirty, rng, part) for part in TOPS)
        yield f"| {name} | {interval(area, score, dirty, rng)} | {shares} |"
    yield "\nArea under ROC by way of spoiling (clean records against those spoilt this way):\n"
    yield f"| chosen by | {' | '.join(SPOILT)} |"
    yield f"|---|{'---|' * len(SPOILT)}"
    for name, score in scores.items():
        rows = {way: (how == "") | (how == way) for way in SPOILT}
        yield f"| {name} | {' | '.join(f'{area(score[each], dirty[each]):.2f}' for each in rows.values())} |"


def measurable(
    pool: Pool, knowledge: Knowledge, asked: argparse.Namespace, lab: Lab
) -> tuple[Pool, dict[str, np.ndarray]]:
    """The scores of all rows that every score can be measured on; says which cannot."""
    template = PLAIN if asked.template == "plain" else None
    while True:
        try:
            return pool, scores_of(pool, knowledge, asked.model, template, lab)
        except Unmeasurable as error:
            print(f"{len(error.rows)} rows left out: {error.reason}")
            pool = pool.subset(np.setdiff1d(np.arange(len(pool)), error.rows))


def main() -> None:
    """Spoil, score, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--template", choices=["plain"])
    parser.add_argument("--pool", default=str(DEMO_POOL))
    parser.add_argument("--knowledge")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    everything = read_pool(asked.pool)
    order = rng.permutation(len(everything))
    clean = everything.subset(np.sort(order[: asked.rows]))
    rest = read_pool(asked.knowledge) if asked.knowledge else everything.subset(np.sort(order[asked.rows :]))
    with tempfile.TemporaryDirectory() as folder, engine_for(asked.workers) as engine:
        lab = Lab(asked.store, map=engine, progress=None)
        pool, scores = measurable(spoilt_pool(clean, Path(folder), rng), Knowledge.from_pool(rest), asked, lab)
        text = "\n".join(page(pool, scores, asked.model))
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
