"""A selection: chosen rows in order, with gains and weights; and the budget that says how many."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coretune.errors import UnmetBudget
from coretune.shapes import Float32, Int64

BUDGET = re.compile(r"^(?P<number>\d+(?:\.\d+)?)(?P<unit>%|k|m)?(?P<tokens>-tokens)?$", re.IGNORECASE)
SCALE = {"k": 1e3, "m": 1e6}
TRIES = 12  # choices made to find how many rows fit into a token budget


@dataclass(frozen=True)
class Selection:
    """Chosen rows, unique, in order of picking; `gains` as the picker defines them; `weights` >= 0 with mean 1."""

    rows: Int64[np.ndarray, " k"]
    gains: Float32[np.ndarray, " k"]
    weights: Float32[np.ndarray, " k"]

    def __post_init__(self) -> None:
        if not len(self.rows) == len(self.gains) == len(self.weights):
            raise ValueError(f"{len(self.rows)} rows, {len(self.gains)} gains and {len(self.weights)} weights differ")
        if len(np.unique(self.rows)) != len(self.rows):
            raise ValueError("a selection holds a row twice")

    @classmethod
    def of(
        cls,
        rows: Int64[np.ndarray, " k"] | Sequence[int],
        gains: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> Selection:
        """A selection with gains NaN and weights 1 where none are given; weights are scaled to mean 1."""
        chosen = np.asarray(rows, dtype=np.int64)
        gain = np.full(len(chosen), np.nan) if gains is None else np.asarray(gains)
        weight = np.ones(len(chosen)) if weights is None else np.asarray(weights, dtype=np.float64)
        if len(weight) and weight.min() < 0:
            raise ValueError(f"a weight is negative ({weight.min():.3g})")
        mean = weight.mean() if len(weight) else 1.0
        return cls(chosen, gain.astype(np.float32), (weight / (mean or 1.0)).astype(np.float32))

    def __len__(self) -> int:
        return len(self.rows)

    def head(self, k: int) -> Selection:
        """The first `k` picks."""
        return type(self).of(self.rows[:k], self.gains[:k], self.weights[:k])


def lift(local: Selection, rows: Int64[np.ndarray, " m"]) -> Selection:
    """The selection with its positions in `rows` replaced by the rows themselves: the one way back to a wider index."""
    return replace(local, rows=np.asarray(rows, dtype=np.int64)[local.rows])


def union(parts: Sequence[Selection]) -> Selection:
    """Selections one after the other, weights kept in proportion; raises `ValueError` if they share a row."""
    if not parts:
        return Selection.of([])
    return Selection.of(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.gains for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )


@dataclass(frozen=True)
class Budget:
    """How much to choose: `5%` or `1000` rows, `5%-tokens` or `200k-tokens` answer tokens.

    `parse` reads the text; `on` resolves it for one pool. A resolved budget has `rows` (or an estimate of them, where
    tokens are asked) and, for tokens, `tokens` and each row's `costs`.
    """

    asked: str
    share: float | None = None
    amount: int | None = None
    in_tokens: bool = False
    rows: int = 0
    tokens: int | None = None
    costs: Int64[np.ndarray, " n"] | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget. Raises `ValueError` with the forms that are understood."""
        match = BUDGET.match(text.strip().replace("_", ""))
        if match is None or (match["unit"] != "%" and "." in match["number"] and not match["unit"]):
            raise ValueError(f"budget {text!r} is not understood; give 5%, 1000, 5%-tokens or 200k-tokens")
        number, unit, in_tokens = float(match["number"]), (match["unit"] or "").lower(), bool(match["tokens"])
        if number == 0 or (unit == "%" and number > 100):
            raise ValueError(f"budget {text!r} is outside what can be chosen; give more than 0 and at most 100%")
        if unit == "%":
            return cls(text.strip(), share=number / 100, in_tokens=in_tokens)
        return cls(text.strip(), amount=round(number * SCALE.get(unit, 1)), in_tokens=in_tokens)

    def on(self, n: int, candidates: int, costs: Int64[np.ndarray, " n"] | None = None) -> Budget:
        """The budget for a pool of `n` rows of which `candidates` may be chosen; `costs` are the pool's answer tokens.

        A share is of the whole pool, excluded rows included. Raises `UnmetBudget` where more is asked than there is,
        and `ValueError` where tokens are asked and `costs` is None.
        """
        if self.in_tokens:
            if costs is None:
                raise ValueError(f"budget {self.asked!r} counts answer tokens, which needs a model: add --model")
            total = int(costs.sum())
            tokens = round(self.share * total) if self.share is not None else int(self.amount or 0)
            if tokens > total:
                raise UnmetBudget(f"budget {self.asked!r} is {tokens} answer tokens; the pool has {total}")
            rows = max(1, min(candidates, round(tokens / max(1.0, total / max(1, n)))))
            return replace(self, rows=rows, tokens=tokens, costs=costs)
        rows = max(1, round(self.share * n)) if self.share is not None else int(self.amount or 0)
        if self.amount is not None and rows > candidates:
            raise UnmetBudget(
                f"budget {self.asked!r} asks for {rows} rows; {candidates} of {n} may be chosen: lower it"
            )
        return replace(self, rows=min(rows, candidates))

    def view(self, rows: Int64[np.ndarray, " m"]) -> Budget:
        """The same budget for a view of the pool: costs of these rows alone."""
        return self if self.costs is None else replace(self, costs=self.costs[rows])

    def rounds(self, count: int, rows: int | None = None) -> tuple[Budget, ...]:
        """Budgets that grow round by round up to this one: `count` equal parts, or parts of so many `rows` each.

        With `rows` there are as many rounds as it takes, whatever `count` says, so that a larger budget begins with the
        same rounds; where tokens are asked, a part has the answer tokens of so many rows on average. Raises
        `ValueError` for numbers below 1, and where there are more rounds than rows.
        """
        if count < 1 or (rows is not None and rows < 1):
            raise ValueError(f"{count} rounds of {rows} rows asked; give 1 or more")
        total = self.rows if self.tokens is None else self.tokens
        if rows is None:
            ends = [round(total * place / count) for place in range(1, count + 1)]
        else:
            step = rows if self.costs is None else max(1, round(rows * float(self.costs.mean())))
            ends = [*range(step, total, step), total]
        if len(set(ends)) < len(ends) or not ends[0]:
            raise ValueError(f"{len(ends)} rounds asked of a budget of {total}; give fewer rounds")
        if self.tokens is None:
            return tuple(replace(self, rows=end) for end in ends)
        return tuple(replace(self, rows=max(1, round(self.rows * end / total)), tokens=end) for end in ends)

    def fill(self, choose: Callable[[int, np.random.Generator], Selection], rng: np.random.Generator) -> Selection:
        """What `choose(k, rng)` gives within this budget; every call starts from the same state of `rng`.

        Rows: `choose(rows)`. Tokens: the largest k found whose choice fits, then further rows of a longer choice, in
        order, that still fit; never above the budget. Raises `UnmetBudget` where `choose` has too few rows to give.
        """
        if self.tokens is None or self.costs is None:
            chosen = choose(self.rows, rng)
            if len(chosen) < self.rows:
                raise UnmetBudget(
                    f"budget {self.asked!r} asks for {self.rows} rows, but there are {len(chosen)} to choose among; "
                    "lower it, or widen what the method may choose from"
                )
            return chosen
        made: dict[int, Selection] = {}

        def attempt(k: int) -> Selection:
            if k not in made:
                made[k] = choose(k, copy.deepcopy(rng))
            return made[k]

        return self._fill_tokens(attempt, self.tokens, self.costs)

    def _fill_tokens(self, attempt: Callable[[int], Selection], tokens: int, costs: np.ndarray) -> Selection:
        most = len(costs)
        k = _largest_that_fits(attempt, costs, tokens, self.rows)
        chosen = attempt(k) if k else Selection.of([])
        tolerance = max(tokens / 100, float(np.median(costs)) / 2)
        longer = k
        while (left := tokens - int(costs[chosen.rows].sum())) and longer < most:
            longer = min(most, 4 * longer + 64)
            chosen = _fill_up(chosen, attempt(longer), costs, left)
            if tokens - int(costs[chosen.rows].sum()) <= tolerance:
                break
        if tokens - int(costs[chosen.rows].sum()) > tolerance and len(attempt(most)) == len(chosen):
            raise UnmetBudget(
                f"budget {self.asked!r} asks for {tokens} answer tokens, but the {len(chosen)} rows to choose among "
                f"hold {int(costs[chosen.rows].sum())}; lower it, or widen what the method may choose from"
            )
        if not len(chosen):
            raise UnmetBudget(
                f"budget {self.asked!r} is below the shortest answer, {int(costs.min())} tokens; raise it"
            )
        return chosen


def _largest_that_fits(
    attempt: Callable[[int], Selection], costs: Int64[np.ndarray, " n"], tokens: int, guess: int
) -> int:
    """The largest k found whose choice costs at most `tokens`; 0 where none does.

    A choice that costs too much says, by its own prefix, which k to try next: the answer where choices are prefixes of
    one another, a good guess where they are not. A choice that fits is grown by what it leaves.
    """
    fits, over, k = 0, len(costs) + 1, min(max(guess, 1), len(costs))
    for _ in range(TRIES):
        if over - fits <= 1:
            break
        spent = np.cumsum(costs[attempt(k).rows])
        if not len(spent) or spent[-1] <= tokens:
            fits = k
            k = math.ceil(1.02 * k * tokens / max(1, int(spent[-1]) if len(spent) else 1)) + 1
        else:
            over = k
            k = int(np.searchsorted(spent, tokens, side="right"))
        k = min(max(k, fits + 1), over - 1)
    return fits


def _fill_up(chosen: Selection, further: Selection, costs: np.ndarray, left: int) -> Selection:
    """`chosen` and then, in order, those rows of `further` that still fit into the tokens `left`."""
    taken = set(chosen.rows.tolist())
    extra = []
    for position, row in enumerate(further.rows.tolist()):
        if row not in taken and costs[row] <= left:
            extra.append(position)
            left -= int(costs[row])
    places = np.array(extra, dtype=np.int64)
    return union([chosen, Selection(further.rows[places], further.gains[places], further.weights[places])])
