"""Chosen against pool: how often each group stands in the pool and among the chosen, and whether chance would do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coretune.pages import wording
from coretune.shapes import Bool, Float, Int64

NOTABLE = 3.0  # standard deviations of a uniform draw of the same size


@dataclass(frozen=True)
class Group:
    """One group of rows: how many of the pool are in it, how many of those chosen, and how unusual that is."""

    name: str
    pool: int
    chosen: int
    pool_share: float
    chosen_share: float
    surprise: float  # standard deviations from what a uniform draw of the same size gives

    @property
    def ratio(self) -> float:
        """Share among the chosen over share in the pool; 1 is as in the pool."""
        return self.chosen_share / self.pool_share if self.pool_share else float("nan")

    @property
    def notable(self) -> int:
        """1 over-represented beyond chance, -1 under-represented, 0 neither."""
        return int(np.sign(self.surprise)) if abs(self.surprise) >= NOTABLE else 0


@dataclass(frozen=True)
class Comparison:
    """Groups of one kind, the largest first (or in their own order); `left_out` rows are in none of them."""

    kind: str
    groups: Sequence[Group]
    total: int
    left_out: int = 0

    @property
    def represented(self) -> int:
        """Groups with at least one chosen row."""
        return sum(group.chosen > 0 for group in self.groups)

    def over(self, most: int) -> list[Group]:
        """The groups most over-represented beyond chance, the most surprising first."""
        found = [group for group in self.groups if group.notable > 0]
        return sorted(found, key=lambda group: -group.surprise)[:most]

    def under(self, most: int) -> list[Group]:
        """The groups most under-represented beyond chance, the most surprising first."""
        found = [group for group in self.groups if group.notable < 0]
        return sorted(found, key=lambda group: group.surprise)[:most]


def compare(
    kind: str,
    codes: Int64[np.ndarray, " n"],
    names: Sequence[str],
    selected: Bool[np.ndarray, " n"],
    *,
    by_size: bool = True,
) -> Comparison:
    """Count the groups `codes` (-1: in none) among all rows and among the selected."""
    inside = codes >= 0
    pool = np.bincount(codes[inside], minlength=len(names))
    chosen = np.bincount(codes[inside & selected], minlength=len(names))
    n, k = int(pool.sum()), int(chosen.sum())
    surprise = surprises(pool, chosen)
    order = np.argsort(-pool, kind="stable") if by_size else np.arange(len(names))
    groups = [
        Group(
            name=names[i],
            pool=int(pool[i]),
            chosen=int(chosen[i]),
            pool_share=float(pool[i] / max(1, n)),
            chosen_share=float(chosen[i] / max(1, k)),
            surprise=float(surprise[i]),
        )
        for i in order
        if pool[i]
    ]
    return Comparison(kind, groups, n, int((~inside).sum()))


def surprises(pool: Int64[np.ndarray, " c"], chosen: Int64[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    """How many standard deviations each group's count is from that of a uniform draw (hypergeometric)."""
    n, k = int(pool.sum()), int(chosen.sum())
    if n < 2 or not k:
        return np.zeros(len(pool))
    share = pool / n
    spread = np.sqrt(k * share * (1 - share) * (n - k) / (n - 1))
    return np.divide(chosen - k * share, spread, out=np.zeros(len(pool)), where=spread > 0)


def shorten(comparison: Comparison, most: int) -> Comparison:
    """The `most` largest groups, and the others as one."""
    if len(comparison.groups) <= most:
        return comparison
    rest = comparison.groups[most - 1 :]
    pool, chosen = sum(group.pool for group in rest), sum(group.chosen for group in rest)
    n, k = comparison.total, sum(group.chosen for group in comparison.groups)
    joined = Group(
        name=f"{len(rest)} others",
        pool=pool,
        chosen=chosen,
        pool_share=pool / n,
        chosen_share=chosen / max(1, k),
        surprise=float(surprises(np.array([pool, n - pool]), np.array([chosen, k - chosen]))[0]),
    )
    return Comparison(comparison.kind, [*comparison.groups[: most - 1], joined], n, comparison.left_out)


def length_bins(lengths: Float[np.ndarray, " n"], bins: int = 10) -> tuple[Int64[np.ndarray, " n"], list[str]]:
    """Quantile bins of the pool's lengths: codes `(n,)` and names such as `12–31`; ties make them fewer."""
    if not len(lengths):
        return np.empty(0, dtype=np.int64), []
    inner = np.quantile(lengths, np.arange(1, bins) / bins, method="inverted_cdf")
    edges = np.unique(np.append(inner, lengths.max()))  # each bin ends with its edge
    codes = np.searchsorted(edges, lengths, side="left")
    starts = [lengths[codes == i].min() for i in range(len(edges))]
    names = [
        wording.count(low) if low == high else f"{wording.count(low)}–{wording.count(high)}"
        for low, high in zip(starts, edges, strict=True)
    ]
    return codes, names
