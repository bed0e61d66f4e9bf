"""LEAD's order: rounds, each on the rows of one difficulty cluster that were least certain when last seen.

Source: Lin et al., "LEAD: Iterative Data Selection for Efficient LLM Instruction Tuning", PVLDB 19(3), 2025, arXiv
2505.07437; `methods/lead.py` says what is confirmed, and where this departs from the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from coretune.orders import Gradient
from coretune.scores.bandit import exp3_probabilities, exp3_updated, normalised_reward
from coretune.scores.dynamic_uncertainty import correction, cosine_between, smoothed
from coretune.shapes import Bool, Float, Float32, Int32, Int64

APART = -1  # the cell of rows that are drawn only when no other row is left
DRAW, SHUFFLE = 0, 1  # what a round's random numbers are for


@dataclass(frozen=True, eq=False)
class Lead:
    """Options of LEAD's order of n rows."""

    version: ClassVar[int] = 1

    losses: Float32[np.ndarray, " n"]
    """Each row's answer loss under the model that the training starts from: the first stored utility."""
    cell: Int32[np.ndarray, " n"]
    """Each row's difficulty cluster, an arm of the bandit; -1 for rows to be drawn only when no other is left."""
    task: Int32[np.ndarray, " n"]
    """Each row's task: every task within a cluster gives its share of a round."""
    budget: int
    """Training ends when the distinct rows that were trained cost so much in all."""
    costs: Int64[np.ndarray, " n"] | None = None
    """What each row costs, such as its answer tokens; none is 1 each."""
    slack: int = 0
    """How far below the budget training may end."""
    share: float = 0.015
    """The part of a cluster's task that a round takes, rounded down, at least one row."""
    most_uses: int = 4
    """A row is trained at most so often."""
    exploration: float = 0.1
    """EXP3's gamma: the chance that a draw of a cluster is at random."""
    memory: float = 0.1
    """What the stored utility counts beside the one just seen (b)."""
    decay: float = 0.995
    """The learning rate is multiplied by this ..."""
    decay_steps: int = 8
    """... every so many optimizer steps."""
    most_rounds: int | None = None
    """Training ends after so many rounds whatever the budget; the paper's is 20. None goes on to the budget."""
    keep_rounds: bool = False
    """Keep the weights after every round."""

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together, and numbers that mean nothing."""
        n = len(self.losses)
        sizes = {"cell": len(self.cell), "task": len(self.task), "costs": n if self.costs is None else len(self.costs)}
        odd = {name: size for name, size in sizes.items() if size != n}
        if odd:
            raise ValueError(f"{n} losses but {odd} given; give one of each a row")
        if not np.isfinite(self.losses).all() or (self.costs is not None and self.costs.min(initial=1) < 1):
            raise ValueError("losses that are not finite or costs below 1 given; leave such rows out")
        if n and self.cell.min() < APART:
            raise ValueError(f"cell {self.cell.min()} given; clusters count from 0, and {APART} is apart from them")
        for name, low in (("budget", 1), ("most_uses", 1), ("decay_steps", 1), ("most_rounds", 1), ("slack", 0)):
            if getattr(self, name) is not None and getattr(self, name) < low:
                raise ValueError(f"{name} {getattr(self, name)} asked of lead; give {low} or more")
        for name, most in (("share", 1), ("exploration", 1), ("decay", 1)):
            if not 0 < getattr(self, name) <= most:
                raise ValueError(f"{name} {getattr(self, name)} asked of lead; give more than 0, at most {most}")
        if not 0 <= self.memory < 1:
            raise ValueError(f"memory {self.memory} asked of lead; give 0 or more, below 1")

    def start(self, learned: Bool[np.ndarray, " n"], *, batch_rows: int, seed: int) -> LeadChooser:
        """A chooser at the beginning of the first round. Raises `ValueError` where none of the rows can be chosen."""
        if len(learned) != len(self.losses):
            raise ValueError(f"an order of {len(self.losses)} rows was given to a training of {len(learned)}")
        if batch_rows < 1:
            raise ValueError(f"steps of {batch_rows} rows asked; give 1 or more")
        return LeadChooser(self, np.asarray(learned, dtype=bool), batch_rows, seed)


class LeadChooser:
    """LEAD as it runs: stored utilities, uses, the bandit's weights, and the round at hand.

    `idu` `(n,)`, `uses` `(n,)`, `weights` `(c,)` are as they are now; `rounds` says of every finished round its `cell`,
    `end` (last step), `reward`, `change` (the correction of its losses), its `probabilities` and `weights` `(c,)`
    (0 for a cluster that nothing was left of), and `visited` the rows in the order of training with their `idu` after
    it.
    """

    wants_gradient = True

    def __init__(self, order: Lead, learned: Bool[np.ndarray, " n"], batch_rows: int, seed: int) -> None:
        self.order, self.learned, self.batch_rows, self.seed = order, learned, batch_rows, seed
        n, c = len(order.losses), int(order.cell.max(initial=-1)) + 1
        self.costs = np.ones(n, dtype=np.int64) if order.costs is None else order.costs.astype(np.int64)
        self.idu: Float[np.ndarray, " n"] = order.losses.astype(np.float64)
        self.uses: Int64[np.ndarray, " n"] = np.zeros(n, dtype=np.int64)
        self.weights: Float[np.ndarray, " c"] = np.ones(c)
        self.step, self.keep = 0, False
        self.lowest, self.highest = np.inf, -np.inf  # reward so far
        self.rounds: dict[str, list[Any]] = {name: [] for name in ROUND}
        self.visited: dict[str, list[Any]] = {"row": [], "idu": []}
        self.delta: Float[np.ndarray, " c1"] = np.full(c + 1, -1.0)  # of each cluster's last round; the last: of any
        self.vectors: list[Float32[np.ndarray, " d"]] = [np.empty(0, np.float32)] * (c + 1)
        self.queue: Int64[np.ndarray, " q"] = np.empty(0, dtype=np.int64)  # of the round at hand
        self.losses: Float[np.ndarray, " q"] = np.empty(0)  # of those of it that are trained
        self.squared = 0.0  # mean over the round's steps so far
        self.vector: Float[np.ndarray, " d"] = np.empty(0, dtype=np.float32)
        self.cluster, self.probabilities = APART, np.zeros(c)
        self._begin_round()

    @property
    def most_steps(self) -> int:
        """Every row that the budget can hold, as often as a row may be trained, one a step."""
        held = np.cumsum(np.sort(self.costs)) <= self.order.budget
        return max(1, self.order.most_uses * int(held.sum()))

    @property
    def over(self) -> bool:
        """Whether the budget is met, no row that fits is left, or no more rounds are wanted."""
        return not len(self.queue)

    def rows(self, step: int) -> Int64[np.ndarray, " b"]:
        """The next rows of the round."""
        if step != self.step + 1 or self.over:
            raise ValueError(f"rows of step {step} asked; {'none' if self.over else self.step + 1} is the next one")
        place = len(self.losses)
        return self.queue[place : place + self.batch_rows]

    def rate(self, step: int) -> float:
        """The highest times 0.995 for every 8 steps made."""
        return float(self.order.decay ** ((step - 1) // self.order.decay_steps))

    def seen(
        self, step: int, rows: Int64[np.ndarray, " b"], losses: Float[np.ndarray, " b"], gradient: Gradient | None
    ) -> None:
        """Take in a step; after the round's last one, utilities and weights are brought up to date."""
        assert gradient is not None
        if not np.array_equal(rows, self.rows(step)):
            raise ValueError(f"step {step} trained other rows than were chosen for it")
        steps = -(-len(self.queue) // self.batch_rows)
        self.step, self.keep = step, False
        self.losses = np.concatenate([self.losses, np.asarray(losses, dtype=np.float64)])
        self.squared += gradient.squared_norm / steps
        self.vector = gradient.vector / np.float32(steps) + (self.vector if len(self.vector) else np.float32(0))
        if len(self.losses) == len(self.queue):
            self._end_round(gradient.learning_rate)
            self.keep = self.order.keep_rounds
            self._begin_round()

    def _begin_round(self) -> None:
        """Draw a cluster by EXP3 and queue its least certain rows; nothing where training is over."""
        self.queue, self.losses = np.empty(0, dtype=np.int64), np.empty(0)
        self.squared, self.vector = 0.0, np.empty(0, dtype=np.float32)
        self.cluster, self.probabilities = APART, np.zeros(len(self.weights))
        number, left = len(self.rounds["cell"]), self.order.budget - int(self.costs[self.uses > 0].sum())
        fits = self.learned & ((self.uses > 0) | (self.costs <= left))
        done = left <= self.order.slack or not (fits & (self.uses == 0)).any()
        if done or number == self.order.most_rounds:
            return
        open_ = fits & (self.uses < self.order.most_uses)
        live = np.flatnonzero(np.bincount(self.order.cell[open_ & (self.order.cell >= 0)], minlength=len(self.weights)))
        if len(live):
            self.probabilities[live] = exp3_probabilities(self.weights[live], self.order.exploration)
            draw = np.random.default_rng([self.seed, number, DRAW]).random()
            place = np.searchsorted(np.cumsum(self.probabilities[live]), draw, side="right")
            self.cluster = int(live[min(int(place), len(live) - 1)])
        taken = self._least_certain(np.flatnonzero(open_ & (self.order.cell == self.cluster)), left)
        self.queue = np.random.default_rng([self.seed, number, SHUFFLE]).permutation(taken)

    def _least_certain(self, rows: Int64[np.ndarray, " m"], left: int) -> Int64[np.ndarray, " q"]:
        """Of each task the share with the highest stored utility; new rows, the highest first, while they fit."""
        rows = rows[np.argsort(-self.idu[rows], kind="stable")]  # ties go to the lower row
        task, size = np.unique(self.order.task[rows], return_inverse=True, return_counts=True)[1:]
        most = np.maximum(1, np.floor(self.order.share * size + 1e-9).astype(np.int64))
        order = np.argsort(task, kind="stable")
        rank = np.empty(len(rows), dtype=np.int64)  # within the row's task, by stored utility
        rank[order] = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
        taken = []
        for row in rows[rank < most[task]].tolist():
            if self.uses[row] or self.costs[row] <= left:
                taken.append(row)
                left -= 0 if self.uses[row] else int(self.costs[row])
        return np.array(taken, dtype=np.int64)

    def _end_round(self, rate: float) -> None:
        """Correct and smooth what was seen, reward the cluster that was drawn, and write the round down."""
        change = self._change(rate)
        before = self.idu[self.queue]
        self.idu[self.queue] = smoothed(before, self.losses, change, self.order.memory)
        self.uses[self.queue] += 1
        reward = float((before - self.idu[self.queue]).mean())
        if self.cluster != APART:
            self._learn(reward)
        for place in {self.cluster if self.cluster != APART else len(self.weights), len(self.weights)}:
            self.delta[place], self.vectors[place] = self.squared, self.vector
        said = (self.cluster, self.step, reward, change, self.probabilities, self.weights)
        for name, value in zip(ROUND, said, strict=True):
            self.rounds[name].append(value)
        self.visited["row"].append(self.queue)
        self.visited["idu"].append(self.idu[self.queue])

    def _change(self, rate: float) -> float:
        """What the steps since are taken to have done to the losses of this round: 0 for the first one of all."""
        last, same = float(self.delta[-1]), float(self.delta[self.cluster]) if self.cluster != APART else -1.0
        if last < 0:
            return 0.0
        if same < 0:  # the cluster's first round
            return -rate * last
        return correction(rate, same, last, cosine_between(self.vectors[self.cluster], self.vectors[-1]))

    def _learn(self, reward: float) -> None:
        """EXP3's new weight of the cluster that was drawn; the first reward counts as it is."""
        live = np.flatnonzero(self.probabilities > 0)
        first = self.lowest == np.inf
        scaled = reward if first else normalised_reward(reward, self.lowest, self.highest)
        self.lowest, self.highest = min(self.lowest, reward), max(self.highest, reward)
        arm = int(np.searchsorted(live, self.cluster))
        chance = float(self.probabilities[self.cluster])
        self.weights = self.weights.copy()  # those before are in the record of rounds
        self.weights[live] = exp3_updated(self.weights[live], arm, scaled, chance, self.order.exploration)

    def state(self) -> dict[str, np.ndarray]:
        """Everything that changes; what has happened so far as arrays over rounds `(t, ...)` and visits `(v,)`."""
        sizes = [len(each) for each in self.vectors]
        said = {
            "idu": self.idu.copy(),
            "uses": self.uses.copy(),
            "weights": self.weights.copy(),
            "delta": self.delta.copy(),
            "vectors": np.concatenate(self.vectors),
            "vector_sizes": np.array(sizes, dtype=np.int64),
            "queue": self.queue.copy(),
            "losses": self.losses.copy(),
            "vector": self.vector.copy(),
            "probabilities": self.probabilities.copy(),
            "counts": np.array([self.step, self.keep, self.cluster], dtype=np.int64),
            "numbers": np.array([self.lowest, self.highest, self.squared]),
        }
        t, c = len(self.rounds["cell"]), len(self.weights)
        for name, (dtype, wide) in ROUND.items():
            said[f"round_{name}"] = np.array(self.rounds[name], dtype=dtype).reshape((t, c) if wide else t)
        said["round_rows"] = np.array([len(each) for each in self.visited["row"]], dtype=np.int64)
        said["visit_row"] = np.concatenate([np.empty(0, np.int64), *self.visited["row"]])
        said["visit_idu"] = np.concatenate([np.empty(0), *self.visited["idu"]])
        return said

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from there."""
        for name in ("idu", "uses", "weights", "delta", "queue", "losses", "vector", "probabilities"):
            setattr(self, name, np.array(state[name]))
        ends = np.cumsum(state["vector_sizes"])[:-1]
        self.vectors = [np.array(each) for each in np.split(state["vectors"], ends)]
        step, keep, cluster = state["counts"].tolist()
        self.step, self.keep, self.cluster = step, bool(keep), cluster
        self.lowest, self.highest, self.squared = state["numbers"].tolist()
        self.rounds = {name: list(state[f"round_{name}"]) for name in ROUND}
        cuts = np.cumsum(state["round_rows"])[:-1]
        for name in self.visited:
            self.visited[name] = np.split(state[f"visit_{name}"], cuts) if len(state["round_rows"]) else []


# What is written down of a round, and whether there is one for each cluster.
ROUND: dict[str, tuple[type, bool]] = {
    "cell": (np.int64, False),
    "end": (np.int64, False),
    "reward": (np.float64, False),
    "change": (np.float64, False),
    "probabilities": (np.float64, True),
    "weights": (np.float64, True),
}
