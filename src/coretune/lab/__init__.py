"""The lab: everything costly goes through it, and it remembers. Features of pools, and arithmetic that is dear."""

from __future__ import annotations

import inspect
import time
from builtins import map as in_process
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from coretune import store as stored
from coretune.errors import CoretuneError, Unmeasurable
from coretune.features import FeatureSpec, Ragged, Texts
from coretune.lab.asking import first_reason, pool_rows, refuse_too_large, rows_of, title
from coretune.lab.feature import Feature
from coretune.lab.gathering import gathered, join_loose, look_up
from coretune.lab.shards import Shard, Work, measure_shard, release, shard_rows, this_process
from coretune.lab.stages import Clock, Stage, peak_is_exact
from coretune.models import metered
from coretune.pool import Pool
from coretune.shapes import Float32, Int64
from coretune.store.costs import Cost, cost_of, note_cost
from coretune.store.digests import function_name, spec_words, words
from coretune.store.kept import read_result, write_result
from coretune.store.keys import first_of_each

if TYPE_CHECKING:
    from coretune.orders import Order
    from coretune.tuning import EachStep, Tuned, Tuning

__all__ = ["Feature", "Lab", "Stage", "peak_is_exact", "release"]

Engine = Callable[..., Iterable[Any]]
Progress = Callable[[str, int, int | None], None]
Result = TypeVar("Result")

SIZED = np.ndarray | Ragged | Texts | Feature | Pool  # inputs whose rows count, where something is kept
JOIN_AFTER = 256  # shards that may lie loose before they are joined, while others are measured


class Lab:
    """Measures through an engine, and remembers in a store.

    `store` is a folder (default `default_store()`); `map` is the engine, any function with the signature of the
    builtin `map` that keeps the order; `progress(stage, done, total)` is called as rows are measured. `stages` says
    what everything cost, `measured` lists the features handed out, with their resolved specs.
    """

    def __init__(
        self, store: Path | None = None, *, map: Engine = in_process, progress: Progress | None = None
    ) -> None:
        self.store = stored.default_store() if store is None else Path(store)
        self.map = map
        self.progress = progress
        self.measured: list[tuple[FeatureSpec, Feature]] = []
        self._clock = Clock()

    @property
    def stages(self) -> list[Stage]:
        """The stages that are over, in the order in which they ended."""
        return self._clock.stages

    def stage(self, name: str) -> AbstractContextManager[Stage]:
        """A stage around a block: it gets the block's seconds and memory, and what the block sets."""
        return self._clock.stage(name)

    def features(self, spec: FeatureSpec, pool: Pool, rows: Int64[np.ndarray, " k"] | None = None) -> Feature:
        """The feature of a pool, or of some of its rows (row j is then `rows[j]`); what is stored is not measured.

        What is missing is measured once, in pool order, in shards that are stored as they finish: after an error, a
        Ctrl-C or a kill, the same call goes on where it stopped. Raises `Unmeasurable` where candidates have values
        that are not finite (which stay stored), `CoretuneError` naming the rows where measuring fails, `FolderError`
        where the store cannot be written, and `ValueError` for a spec that has no address.
        """
        name = title(spec)
        with self.stage(name) as stage:
            asked = slice(None) if rows is None else rows_of(pool, rows)
            keys = pool.keys[asked]
            resolved = spec.resolved()
            said = spec_words(resolved)
            place, step = stored.place_of(self.store, stored.FEATURES, said), shard_rows(resolved)
            arrays, which, _ = look_up(place, keys)
            absent = np.flatnonzero(which < 0)
            missing = absent[first_of_each(keys[absent])]
            if len(missing):
                refuse_too_large(resolved, len(missing), self.store, name)
                stored.describe(place, said)
                began = time.perf_counter()
                self._measure(stage, resolved, place, pool, np.sort(pool_rows(asked, missing)))
                spent = Cost(len(missing), time.perf_counter() - began, stage.tokens, stage.tokens_back)
                note_cost(place, spent)
            if len(missing) or sum(len(each) <= step for each in arrays) > 1:
                join_loose(place, max(step, len(missing)))
            feature = gathered(place, keys)
            stored.touch(place)
            _fill(stage, feature, stored_rows=len(keys) - len(absent), copies=len(absent) - len(missing))
            stage.spare(cost_of(place).of(stage.stored))
            _pay(stage, resolved, feature)
        barred = np.flatnonzero(~feature.finite & pool.candidates[asked])
        if len(barred):
            barred, reason = first_reason(feature, barred, name)
            raise Unmeasurable(pool_rows(asked, barred), reason, pool)
        self.measured.append((resolved, feature))
        return feature

    def keep(self, fn: Callable[..., Result], *inputs: Any, **options: Any) -> Result:
        """`fn(*inputs, **options)`, remembered by the function's name and `version` and the content of what goes in.

        Inputs are numbers, text, arrays, tuples, frozen dataclasses (ragged values, texts), pools, features and
        generators; a generator is left where the computation would have left it. The result holds arrays, numbers,
        text, or frozen dataclasses of them. Raises `ValueError` for a function without a lasting name, and for inputs
        or results of other kinds.
        """
        name = function_name(fn)
        bound = inspect.signature(fn).bind(*inputs, **options)
        bound.apply_defaults()
        rngs = [each for each in (*inputs, *options.values()) if isinstance(each, np.random.Generator)]
        size = next((len(each) for each in inputs if isinstance(each, SIZED)), 0)
        with self.stage(name.rpartition(".")[2].replace("_", " ")) as stage:
            said = {
                "function": name,
                "version": getattr(fn, "version", None),
                "inputs": [words(each) for each in bound.args],
                "options": {option: words(each) for option, each in bound.kwargs.items()},
            }
            place = stored.place_of(self.store, stored.KEPT, said)
            held = read_result(place)
            if held is None:
                stage.rows, began = size, time.perf_counter()
                with metered() as read:
                    result = fn(*inputs, **options)
                stage.tokens, stage.tokens_back = read.forward, read.backward
                stored.describe(place, said)
                write_result(place, (result, tuple(map(_state, rngs))))
                note_cost(place, Cost(1, time.perf_counter() - began, read.forward, read.backward))
                return result
            stage.stored = size
            stage.spare(cost_of(place).of(1))
            stored.touch(place)
            result, states = held[0]
            for rng, state in zip(rngs, states, strict=True):
                _set_state(rng, state)
            return result

    def tune(
        self,
        spec: Tuning,
        pool: Pool,
        rows: Int64[np.ndarray, " k"] | None = None,
        weights: Float32[np.ndarray, " k"] | None = None,
        *,
        each_step: EachStep | None = None,
        processes: int | None = None,
        order: Order | None = None,
    ) -> Tuned:
        """A model tuned on rows of a pool, in this order (all candidates by default); one in the store is given.

        `weights` `(k,)` scale what each row counts in the loss; none is 1 for each. `each_step(step, steps, loss)` is
        called after every optimizer step, in place of `progress`; `processes` is one a GPU by default. With an `order`
        the rows of each step are chosen while the training runs, and it may end before all were seen. After an error,
        a Ctrl-C or a kill the same call goes on where it stopped. Raises `PoolError` where no row has an answer token,
        `ModelError` where the model cannot be tuned so, and `ValueError` for a spec or weights that mean nothing.
        """
        from coretune import tuning

        name = f"tune {Path(spec.model).name or spec.model}"
        with self.stage(name) as stage:
            asked = np.flatnonzero(pool.candidates) if rows is None else rows_of(pool, rows)
            counted = tuning.checked_weights(weights, len(asked))
            resolved = spec.resolved()
            said = tuning.words_of(resolved, pool.keys[asked], counted, order)
            place = stored.place_of(self.store, stored.TUNINGS, said)
            kind = "rows" if order is None else "learned_rows"
            tuned = tuning.find_tuned(place)
            if tuned is None:
                release()  # the last feature's model gives its memory back
                stored.describe(place, said)
                examples = pool.subset(asked)
                tell = each_step or (lambda step, steps, loss: self._tell(name, step, steps))
                tuned = tuning.tune(resolved, examples, counted, place, tell, processes=processes, order=order)
                stage.rows, stage.bytes = tuned.counts[kind], tuning.bytes_of(tuned)
                stage.tokens = stage.tokens_back = tuned.counts["tokens"]
            else:
                stage.stored = tuned.counts[kind]
                stage.spare(Cost(stage.stored, tuned.seconds, tuned.counts["tokens"], tuned.counts["tokens"]))
            stage.counts = tuning.notable(tuned)
            stored.touch(place)
        return tuned

    def _measure(self, stage: Stage, spec: FeatureSpec, place: Path, pool: Pool, rows: Int64[np.ndarray, " m"]) -> None:
        """Measure these rows in shards, through the engine; every shard is stored by whoever measures it."""
        step = shard_rows(spec)
        starts = range(0, len(rows), step)
        examples = (pool.examples(rows[start : start + step]) for start in starts)
        work = Work(spec, place, this_process(), time.time_ns())
        peaks: dict[str, int] = {}
        self._tell(stage.name, 0, len(rows))
        shards = iter(self.map(partial(measure_shard, work), range(len(starts)), examples))
        try:
            for number, start in enumerate(starts):
                shard: Shard = _next(shards, stage.name, rows[start : start + step])
                stage.rows += shard.rows
                stage.bytes += shard.bytes
                stage.tokens += shard.tokens[0]
                stage.tokens_back += shard.tokens[1]
                peaks[shard.process] = max(peaks.get(shard.process, 0), shard.peak_memory_bytes)
                self._tell(stage.name, stage.rows, len(rows))
                if number % JOIN_AFTER == JOIN_AFTER - 1:
                    join_loose(place, step)
        finally:
            close = getattr(shards, "close", None)
            if close is not None:
                close()
        stage.peak_memory_bytes += sum(peak for process, peak in peaks.items() if process != work.driver)

    def _tell(self, stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(stage, done, total)


def _next(shards: Any, name: str, rows: Int64[np.ndarray, " m"]) -> Shard:
    """The next shard from the engine; an error names the rows it was to measure."""
    span = f"rows {rows[0]} to {rows[-1]} ({len(rows)} rows) of {name}"
    try:
        shard: Shard = next(shards)
        return shard
    except StopIteration as error:
        raise CoretuneError(f"the engine gave no result for {span}; a `map` gives one for every item") from error
    except CoretuneError as error:
        error.add_note(f"while measuring {span}")
        raise
    except Exception as error:
        raise CoretuneError(
            f"{span} could not be measured: {type(error).__name__}: {error}. "
            "What was measured before is stored: mend this and run again to go on"
        ) from error


def _fill(stage: Stage, feature: Feature, *, stored_rows: int, copies: int) -> None:
    """Say in a stage what was found, and how many rows have each mark."""
    stage.stored = stored_rows
    stage.counts.update({name: int(flags.sum()) for name, flags in feature.marks.items()})
    not_finite = len(feature) - int(feature.finite.sum())
    stage.counts.update({name: count for name, count in (("copies", copies), ("not finite", not_finite)) if count})


def _pay(stage: Stage, spec: FeatureSpec, feature: Feature) -> None:
    """Note what a judge has cost, where a feature asks one."""
    judge, names = getattr(spec, "judge", None), ("input_tokens", "output_tokens")
    if judge is not None and feature.numbers.keys() >= set(names):
        stage.pay(judge.budget, *(int(np.nansum(feature.numbers[name])) for name in names))


def _state(rng: np.random.Generator) -> dict[str, Any]:
    """Where a generator stands, as what a kept result can hold."""
    seed = rng.bit_generator.seed_seq
    spawned = seed.n_children_spawned if isinstance(seed, np.random.SeedSequence) else 0
    return {"state": dict(rng.bit_generator.state), "spawned": spawned}


def _set_state(rng: np.random.Generator, state: dict[str, Any]) -> None:
    """Bring a generator where `_state` found it."""
    rng.bit_generator.state = state["state"]
    seed = rng.bit_generator.seed_seq
    if isinstance(seed, np.random.SeedSequence) and state["spawned"] > seed.n_children_spawned:
        seed.spawn(state["spawned"] - seed.n_children_spawned)
