"""Items of the primary task that an arm does most better and most worse on than random, with what models wrote."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from coretune.pages import verdict_words as words
from coretune.pages import wording
from coretune.pages.verdict_files import ComparisonFiles
from coretune.pages.verdict_items import ItemScores, item_prompts, item_scores, item_texts
from coretune.pages.verdict_records import RANDOM
from coretune.shapes import Float, Int64

EACH = 6  # items at each end
TEXT = 300  # characters of what a model wrote
MOST_ARMS = 24


def browser(files: ComparisonFiles) -> dict[str, Any] | None:
    """The items as the template takes them, arm by arm; None where no scores were kept."""
    scores = item_scores(files)
    if scores is None or not len(scores.ids):
        return None
    turn = 1.0 if files.primary.higher_is_better else -1.0
    names = files.in_order(each for each in scores.means if each != RANDOM)
    apart = {name: turn * (scores.means[name] - scores.means[RANDOM]) for name in names}
    ends = {name: _ends(apart[name]) for name in names[:MOST_ARMS]}
    shown = [scores.ids[i] for rows in ends.values() for i in rows]
    texts, asked = item_texts(files, shown), item_prompts(files, shown)
    digits = words.digits_for([float(np.std(each)) / 10 for each in apart.values()])
    return {
        "arms": [
            {
                "arm": words.name(name),
                "said": _spread(apart[name], digits),
                "rows": [
                    _row(scores, name, int(i), float(apart[name][i]), texts, digits) | _asked(asked, scores.ids[i])
                    for i in rows
                ],
            }
            for name, rows in ends.items()
        ],
        "size": wording.count(len(scores.ids)),
        "texts": bool(texts),
        "prompts": bool(asked),
        "left_out": len(names) - len(ends),
    }


def _ends(apart: Float[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """The items that gain most, then those that lose most; an item that does neither is in none."""
    order = np.argsort(-apart, kind="stable")
    up, down = order[:EACH], order[::-1][:EACH]
    return np.concatenate([up[apart[up] > 0], down[apart[down] < 0]])


def _spread(apart: Float[np.ndarray, " n"], digits: int) -> str:
    """How the differences lie over all items, in words."""
    better, worse = int((apart > 0).sum()), int((apart < 0).sum())
    low, middle, high = (words.signed(float(each), digits) for each in np.quantile(apart, (0.25, 0.5, 0.75)))
    return (
        f"better than random on {wording.share(better, len(apart))} of the items and worse on "
        f"{wording.share(worse, len(apart))}; half of all lie between {low} and {high}, the median is {middle}"
    )


def _row(
    scores: ItemScores, name: str, i: int, apart: float, texts: dict[tuple[str, str], str], digits: int
) -> dict[str, Any]:
    item, ends = scores.ids[i], {"arm": name, "random": RANDOM}
    written = {side: texts.get((arm, item)) for side, arm in ends.items()}
    return {
        "item": wording.visible(item, 80),
        "group": wording.visible(scores.groups[i], 60),
        "better": apart > 0,
        "difference": words.signed(apart, digits),
        "arm": words.plain(_of(scores, name, i), digits),
        "random": words.plain(_of(scores, RANDOM, i), digits),
        "texts": {
            side: wording.visible(said, TEXT) or "(nothing)" for side, said in written.items() if said is not None
        },
    }


def _asked(asked: dict[str, tuple[str, str]], item: str) -> dict[str, str]:
    """What an item asks and its right answer, each empty where it is not kept."""
    prompt, answer = asked.get(item, ("", ""))
    return {"prompt": wording.visible(prompt, TEXT), "answer": wording.visible(answer, TEXT)}


def _of(scores: ItemScores, name: str, i: int) -> float:
    return float(scores.means[name][i]) if name in scores.means else math.nan
