"""Do our scores agree with what authors selected? AUC of every score for each published subset of a pool.

    python benchmarks/published.py --pool alpaca_52k.parquet --sets cherry=cherry_alpaca_5_percent.parquet ...
        [--model smollm2-135m] [--template plain] [--rows 300] [--others 600] [--store DIR] [--out FILE]

Every subset is a parquet file with a column `pool_id`, the id of a record of the pool. Of each, `--rows` rows are
drawn, and `--others` rows from the whole pool as their counterpart; all scores are measured on these alone. A cell
is the chance that a row of the subset scores above a row drawn from the pool (rows in the subset left out), .5
where the score knows nothing of it, with its standard error. The last column is the rank correlation with the
published score, where the file has one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from coretune import Lab, Pool, read_pool
from coretune.chat import PLAIN
from coretune.engines import engine_for
from coretune.errors import Unmeasurable
from coretune.features.answer_loss import AnswerLoss
from coretune.features.rating import SELECT_IT, Rating
from coretune.features.yes_probability import YesProbability
from coretune.scores.ratings import agreeing_rating, expected_rating, uncertainty_weighted_rating
from coretune.scores.surprise import ifd_loss_ratio, ifd_perplexity_ratio


def scores_of(pool: Pool, model: str, template: str | None, lab: Lab) -> dict[str, np.ndarray]:
    """What our methods rank by, higher is better."""
    given, alone = (
        lab.features(AnswerLoss(model, before, template=template), pool).array()
        for before in ("conversation", "nothing")
    )
    ratings = lab.features(Rating(model, SELECT_IT, template=template), pool).array()
    return {
        "answer characters": np.array([float(len(example.answer)) for example in pool]),
        "loss (high first)": given,
        "IFD, loss ratio": ifd_loss_ratio(given, alone),
        "IFD, perplexity ratio": ifd_perplexity_ratio(given, alone),
        "Ask-LLM": lab.features(YesProbability(model, template=template), pool).array(),
        "SelectIT": agreeing_rating(uncertainty_weighted_rating(ratings)),
        "expected rating": np.mean(
            [expected_rating(ratings[:, prompt], low=1) for prompt in range(len(SELECT_IT))], axis=0
        ),
    }


def area(inside: np.ndarray, outside: np.ndarray) -> tuple[float, float]:
    """The chance that a value of `inside` is above one of `outside`, ties half; and its standard error (DeLong)."""
    above = (inside[:, None] > outside).astype(float) + 0.5 * (inside[:, None] == outside)
    spread = above.mean(axis=1).var(ddof=1) / len(inside) + above.mean(axis=0).var(ddof=1) / len(outside)
    return float(above.mean()), float(np.sqrt(spread))


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, with mean ranks of ties."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[place]

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def main() -> None:
    """Draw, score, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", required=True)
    parser.add_argument("--sets", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--template", choices=["plain"])
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--others", type=int, default=600)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    pool, rng = read_pool(asked.pool), np.random.default_rng(0)
    row_of = {name: row for row, name in enumerate(pool.column("id").tolist())}
    tables = {each.partition("=")[0]: pq.read_table(each.partition("=")[2]) for each in asked.sets}
    tables = {  # without records that the pool rejects
        name: table.filter(np.isin(table["pool_id"].to_numpy(), list(row_of))) for name, table in tables.items()
    }
    whole = {name: np.array([row_of[each] for each in table["pool_id"].to_pylist()]) for name, table in tables.items()}
    drawn = {
        name: np.sort(rng.choice(len(rows), min(asked.rows, len(rows)), replace=False)) for name, rows in whole.items()
    }
    others = rng.choice(len(pool), asked.others, replace=False)
    with engine_for(asked.workers) as engine:
        lab = Lab(asked.store, map=engine)
        rows = np.unique(np.concatenate([others, *(whole[name][places] for name, places in drawn.items())]))
        while True:
            try:
                scores = scores_of(pool.subset(rows), asked.model, PLAIN if asked.template else None, lab)
                break
            except Unmeasurable as error:
                print(f"{len(error.rows)} rows left out: {error.reason}")
                rows = np.delete(rows, error.rows)
    at = {row: place for place, row in enumerate(rows.tolist())}
    lines = [
        f"Model {asked.model}, {len(rows)} rows of {Path(asked.pool).name}; chance that a row of the subset is above "
        "one outside.",
        "",
    ]
    lines += [
        f"| score | {' | '.join(f'{name} ({len(drawn[name])})' for name in tables)} |",
        f"|---|{'---|' * len(tables)}",
    ]
    for score_name, score in scores.items():
        cells = []
        for name, table in tables.items():
            mine = [
                (at[row], place)
                for place, row in zip(drawn[name].tolist(), whole[name][drawn[name]].tolist(), strict=True)
                if row in at
            ]
            outside = np.array([at[row] for row in np.setdiff1d(others, whole[name]).tolist() if row in at])
            inside = np.array([place for place, _ in mine])
            value, error = area(score[inside], score[outside])
            published = (
                table["score"].to_numpy(zero_copy_only=False)[[place for _, place in mine]]
                if table["score"].null_count == 0
                else None
            )
            more = (
                ""
                if published is None or np.ptp(published) == 0
                else f", r {rank_correlation(score[inside], published):+.2f}"
            )
            cells.append(f"{value:.2f} ± {error:.2f}{more}")
        lines.append(f"| {score_name} | {' | '.join(cells)} |")
    text = "\n".join(lines)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
