"""Examples in and out: which rows a reader should see, and what is known about why each is in or out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coretune.pages import wording
from coretune.pages.run_files import RunFiles
from coretune.run_folder import EXCERPT
from coretune.shapes import Int64

FIRST, LAST, AT_RANDOM = 12, 4, 12
SCORES, BY_SCORE = 3, 5  # scores looked at, rows for each end
REASONS, BY_REASON = 6, 4
ARROW = " ⟶ "  # between prompt and answer in an excerpt


@dataclass(frozen=True)
class Shown:
    """A row on the page. `state` is `chosen`, `out` or `excluded`; `why` are facts, the most telling first."""

    row: int
    group: str
    state: str
    badge: str
    prompt: str
    answer: str
    where: str
    why: Sequence[str]


def pick_examples(files: RunFiles, rng: np.random.Generator) -> list[Shown]:
    """First, last and unlikely picks, rows left out at random and in spite of high scores, and excluded rows.

    No row is shown twice; it stands in the first group that it fits.
    """
    seen: set[int] = set()
    groups: list[tuple[str, list[int]]] = []
    for name, rows in [*_chosen(files), *_left_out(files, rng), *_excluded(files)]:
        fresh = [int(row) for row in rows if int(row) not in seen]
        seen.update(fresh)
        groups.append((name, fresh))
    rows = np.array([row for _, members in groups for row in members], dtype=np.int64)
    texts = files.texts(rows)
    reasons = _Reasons(files)
    names = [name for name, members in groups for _ in members]
    return [
        _shown(files, int(row), names[i], {key: each[i] for key, each in texts.items()}, reasons)
        for i, row in enumerate(rows)
    ]


def _chosen(files: RunFiles) -> list[tuple[str, Int64[np.ndarray, " m"]]]:
    """Groups of chosen rows."""
    order = files.order
    groups = [("First picks", order[:FIRST])]
    for name in files.scores[:SCORES]:
        scores = files.numbers(name)[order]
        known = order[np.isfinite(scores)]
        lowest = known[np.argsort(files.numbers(name)[known], kind="stable")][:BY_SCORE]
        groups.append((f"Chosen in spite of a low {wording.visible(name, 40)}", lowest))
    return [*groups, ("Last picks", order[-LAST:])]


def _left_out(files: RunFiles, rng: np.random.Generator) -> list[tuple[str, Int64[np.ndarray, " m"]]]:
    """Groups of rows that could have been chosen and were not."""
    rows = np.flatnonzero(~files.selected & ~files.excluded)
    groups = []
    for name in files.scores[:SCORES]:
        scores = files.numbers(name)[rows]
        known = np.isfinite(scores)
        best = rows[known][np.argsort(-scores[known], kind="stable")][:BY_SCORE]
        groups.append((f"Left out in spite of a high {wording.visible(name, 40)}", best))
    drawn = rng.choice(rows, min(AT_RANDOM, len(rows)), replace=False) if len(rows) else rows
    return [*groups, ("Left out, at random", np.sort(drawn))]


def _excluded(files: RunFiles) -> list[tuple[str, Int64[np.ndarray, " m"]]]:
    """The first rows excluded for each reason."""
    codes, names = files.groups("excluded_by")
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    common = np.argsort(-counts, kind="stable")[:REASONS]
    return [(f"Excluded: {wording.visible(names[i], 80)}", np.flatnonzero(codes == i)[:BY_REASON]) for i in common]


def halves(excerpt: str) -> tuple[str, str]:
    """Prompt and answer of an excerpt; a prompt that was cut ends where it was cut, whatever arrows it holds."""
    if excerpt[EXCERPT : EXCERPT + len(ARROW)] == ARROW:
        return excerpt[:EXCERPT], excerpt[EXCERPT + len(ARROW) :]
    prompt, _, answer = excerpt.partition(ARROW)
    return prompt, answer


def _cut(half: str) -> str:
    """Half an excerpt on one line, with a sign that it goes on where it does."""
    return wording.visible(half[:EXCERPT]) + ("…" if len(half) >= EXCERPT else "")


class _Reasons:
    """What is known of a row, in words. Holds the sorted scores that percentiles are read from."""

    def __init__(self, files: RunFiles) -> None:
        self.files = files
        self.scores = {name: files.numbers(name) for name in files.scores}
        self.sorted = {name: np.sort(values[np.isfinite(values)]) for name, values in self.scores.items()}
        self.gain, self.weight = files.numbers("gain"), files.numbers("weight")
        self.rounds = files.numbers("round")
        self.duplicate_of = files.numbers("duplicate_of")
        self.source, self.sources = files.groups("source")
        self.lang, self.langs = files.groups("lang")
        self.reason, self.reasons = files.groups("excluded_by")
        cells = np.maximum(files.cells, 0)
        self.cell_size = np.bincount(cells, weights=files.cells >= 0)
        self.cell_chosen = np.bincount(cells, weights=(files.cells >= 0) & files.selected)
        self.place = np.full(len(files), -1, dtype=np.int64)
        self.place[files.order] = np.arange(len(files.order))
        self.several_rounds = len(np.unique(self.rounds[np.isfinite(self.rounds)])) > 1

    def why(self, row: int) -> list[str]:
        """All facts of a row, the most telling first."""
        return [*self._standing(row), *self._scores(row), *self._cell(row), *self._nature(row)]

    def _standing(self, row: int) -> list[str]:
        facts = []
        if self.reason[row] >= 0:
            facts.append(wording.visible(self.reasons[self.reason[row]], 120))
        if np.isfinite(self.duplicate_of[row]):
            facts.append(f"same content as row {int(self.duplicate_of[row])}")
        if np.isfinite(self.gain[row]):
            facts.append(f"gain {wording.number(float(self.gain[row]))}")
        if np.isfinite(self.weight[row]) and abs(self.weight[row] - 1) > 1e-6:
            facts.append(f"weight {wording.number(float(self.weight[row]))}")
        if self.several_rounds and np.isfinite(self.rounds[row]):
            facts.append(f"round {int(self.rounds[row])}")
        return facts

    def _scores(self, row: int) -> list[str]:
        facts = []
        for name, values in self.scores.items():
            if np.isfinite(values[row]):
                below = float(np.searchsorted(self.sorted[name], values[row]) / len(self.sorted[name]))
                facts.append(
                    f"{wording.visible(name, 40)} {wording.number(float(values[row]))}, above {below:.0%} of the pool"
                )
        return facts

    def _cell(self, row: int) -> list[str]:
        cell = int(self.files.cells[row])
        if cell < 0:
            return []
        size = wording.plural(int(self.cell_size[cell]), "row")
        return [f"cell {cell}: {int(self.cell_chosen[cell])} of its {size} chosen"]

    def _nature(self, row: int) -> list[str]:
        unit = self.files.unit
        facts = [wording.plural(int(self.files.lengths[row]), unit.removesuffix("s"), unit) + " of answer"]
        if self.source[row] >= 0:
            facts.append(wording.visible(self.sources[self.source[row]], 60))
        if self.lang[row] >= 0 and len(self.langs) > 1:
            facts.append(wording.visible(self.langs[self.lang[row]], 40))
        return facts


def _shown(files: RunFiles, row: int, group: str, texts: dict[str, str], reasons: _Reasons) -> Shown:
    """The row as the page shows it."""
    prompt, answer = (_cut(part) for part in halves(texts.get("excerpt", "")))
    place = int(reasons.place[row])
    state = "chosen" if place >= 0 else "excluded" if files.excluded[row] else "out"
    badge = {"chosen": f"{wording.place(place + 1)} pick", "excluded": "excluded", "out": "left out"}[state]
    line = files.table["line"][row].as_py() if "line" in files.table.column_names else None
    source = [wording.visible(texts.get("file", ""), 80) + (f":{line}" if line is not None else "")]
    where = " · ".join([f"row {row}", *source, wording.visible(texts.get("id", ""), 60)])
    return Shown(row, group, state, badge, prompt, answer, where, reasons.why(row))
