"""A comparison carried out: baselines first, then every arm; what is done stays done, whatever happens."""

from __future__ import annotations

import json
import logging
import math
import operator
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coretune.compare.arms import LENGTH_MATCHED, RANDOM, UNTUNED, Run, as_long_as, own_loop
from coretune.compare.choosing import Chosen, Own, choose, identity, read_chosen, seed_of, write_chosen
from coretune.compare.equal_compute import LEAST, drawn_as_long, times_longer
from coretune.compare.ground import Asked, Ground
from coretune.compare.working import ITEMS, READING, TUNED, ChoiceJob, Job, attempt, carry_out, choose_there
from coretune.errors import CoretuneError
from coretune.features.lora_gradient import AdapterAt
from coretune.lab import Lab
from coretune.pool import Pool
from coretune.store.digests import digest, spec_words
from coretune.tuning import Tuning

log = logging.getLogger(__name__)

Engine = Callable[..., Iterable[Any]]
SENT = 1 << 31  # bytes of a pool that are sent to workers, at most
PLAIN = re.compile(r"[^A-Za-z0-9_.%-]+")


@dataclass(frozen=True, eq=False)
class Done:
    """A run that was carried out: where its choice and its readings lie."""

    run: Run
    chosen: Chosen | None
    folder: Path  # of the tuning: tuned.json, and a folder a task
    tuning: Tuning
    own: Own | None = None  # read in place of a fresh tuning

    def said(self, task: Asked) -> dict[str, Any]:
        """What is said of a task's reading: its metric, unit, counts and cost."""
        found: dict[str, Any] = json.loads((self.folder / task.digest / READING).read_text(encoding="utf-8"))
        return found

    def scores(self, task: Asked) -> pa.Table:
        """The scores of a task's items: `item`, `group`, and a column a metric."""
        return pq.read_table(self.folder / task.digest / ITEMS)

    def tuned(self) -> dict[str, Any]:
        """What is said of the tuning: its address, losses, counts and cost."""
        found: dict[str, Any] = json.loads((self.folder / TUNED).read_text(encoding="utf-8"))
        return found


@dataclass(frozen=True)
class Setting:
    """How fast and how long a run is tuned."""

    learning_rate: float
    epochs: float


@dataclass
class Course:
    """A comparison under way, in the folder `out`. `settings` says how every budget is tuned.

    `paid_as` says what a run's choice is paid for with (`Forecast.paid_as`): where that is no arm's name, the arm tunes
    for it, and the workers of `engine` choose.
    """

    ground: Ground
    out: Path
    lab: Lab
    engine: Engine | None = None
    paid_as: Callable[[Run], Hashable] = operator.attrgetter("arm.name")
    settings: dict[str, Setting] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # arms that could not be run, and why
    _chosen: dict[Run, tuple[Path, Chosen | None]] = field(default_factory=dict)

    def baselines(self) -> list[Done]:
        """The model as it comes, and random at every budget: what everything else is measured against."""
        runs = [run for run in self.ground.runs if run.arm.name in (UNTUNED, RANDOM)]
        return self.carried_out(runs)

    def others(self) -> list[Done]:
        """All other arms, and the models that methods have tuned while they chose."""
        done = self.carried_out([run for run in self.ground.runs if run.arm.name not in (UNTUNED, RANDOM)])
        own = [self._own(each, each.chosen.own) for each in done if each.chosen is not None and each.chosen.own]
        longer = [long for each in done if (long := self._as_long(each)) is not None]
        return [*done, *self._read([*own, *longer], self.ground.tasks)]

    def carried_out(
        self, runs: Sequence[Run], settings: Sequence[Setting] | None = None, tasks: Sequence[Asked] | None = None
    ) -> list[Done]:
        """Choose, tune and read; arms that cannot be run are noted in `failed` and left out."""
        self._have_chosen(runs)
        done = []
        for number, run in enumerate(runs):
            found = self.chosen(run)
            if found is not None:
                done.append(self._planned(run, found, self._setting(run) if settings is None else settings[number]))
        return self._read(done, tasks or self.ground.tasks)

    def _read(self, done: Sequence[Done], tasks: Sequence[Asked]) -> list[Done]:
        """Tune and read what is missing; arms that cannot be run are noted in `failed` and left out."""
        jobs = [self._job(each, tasks) for each in done]
        missing = [(each, job) for each, job in zip(done, jobs, strict=True) if not job.done]
        for count, ((each, _), why) in enumerate(
            zip(missing, self._mapped([job for _, job in missing]), strict=True), 1
        ):
            if why is not None:
                self._fail(each.run, why)
            if self.lab.progress is not None:
                self.lab.progress("runs", count, len(missing))
        return [each for each in done if each.run.arm.name not in self.failed]

    def _fail(self, run: Run, why: str) -> None:
        """Note that an arm cannot be run. Raises `CoretuneError` for what all others are measured against."""
        if run.arm.name in (UNTUNED, RANDOM):
            raise CoretuneError(f"{run.label} cannot be run, and every arm is measured against it: {why}")
        log.warning("%s cannot be run: %s", run.label, why)
        self.failed[run.arm.name] = why

    def chosen(self, run: Run) -> tuple[Path, Chosen | None] | None:
        """The folder of a run with its choice, made now if it is not there; None where that failed."""
        if run.arm.name in self.failed and run not in self._chosen:
            return None
        try:
            return self.choice(run)
        except (CoretuneError, ValueError) as error:
            self._fail(run, str(error))
            return None

    def choice(self, run: Run) -> tuple[Path, Chosen | None]:
        """The folder of a run with its choice, made now if it is not there. Raises what choosing raises."""
        if run in self._chosen:
            return self._chosen[run]
        others = self._matched_to(run)
        folder = self._folder(run, others)
        found = None
        if run.arm.method != UNTUNED:
            found = _choice_in(folder)
            if found is None:
                found = self._choose(run, folder, [each for _, each in others if each is not None])
        self._chosen[run] = folder, found
        return folder, found

    def _folder(self, run: Run, others: Sequence[tuple[Path, Chosen | None]] = ()) -> Path:
        """A run's folder, by all that its choice depends on."""
        ident = identity(self.ground, run, self._setting(run).epochs, [folder.name for folder, _ in others])
        name = PLAIN.sub("-", f"{run.arm.name}-{run.budget}-{run.seed}".replace("--", "-"))
        return self.out / "runs" / f"{name}-{ident[:12]}"

    def _choose(self, run: Run, folder: Path, others: Sequence[Chosen]) -> Chosen:
        lab = Lab(self.lab.store, map=self.lab.map, progress=self.lab.progress)
        found = choose(self.ground, run, lab, self._setting(run).epochs, others)
        write_chosen(folder / "chosen", found, lab.stages)
        return found

    def _have_chosen(self, runs: Sequence[Run]) -> None:
        """Have the engine's workers choose for arms that tune a model first, or meanwhile.

        What tunes meanwhile shares nothing with other runs; what tunes first shares it with all budgets of its seed.
        """
        if self.engine is None or self.ground.pool.table.nbytes > SENT:
            return
        missing: dict[Hashable, list[tuple[Run, float, Path]]] = {}
        for run in dict.fromkeys(runs):
            paid = self.paid_as(run)
            if isinstance(paid, str) or run.arm.name in self.failed or run in self._chosen:
                continue
            folder = self._folder(run)
            if _choice_in(folder) is None:
                missing.setdefault(paid, []).append((run, self._setting(run).epochs, folder))
        light = replace(self.ground, tasks=(), dev=None, leaks={})
        jobs = [ChoiceJob(light, tuple(each), self.lab.store) for each in missing.values()]
        for count, (job, why) in enumerate(zip(jobs, self.engine(choose_there, jobs), strict=True), 1):
            if why is not None:
                self._fail(job.runs[0][0], why)
            if self.lab.progress is not None:
                self.lab.progress("choices that need a tuning", count, len(jobs))

    def _matched_to(self, run: Run) -> list[tuple[Path, Chosen | None]]:
        """The choices of the methods that a length-matched draw is matched to. Raises `ValueError` for none."""
        if run.arm.method != LENGTH_MATCHED:
            return []
        methods = [arm for arm in self.ground.arms if arm.kind == "method"]
        found = [self.chosen(Run(arm, run.budget, run.seed)) for arm in methods]
        known = [each for each in found if each is not None]
        if not known:
            raise ValueError("there is no method whose answer lengths could be matched")
        return known

    def _setting(self, run: Run) -> Setting:
        """How a run is tuned: as was settled for its budget."""
        tuning = self.ground.tuning
        return self.settings.get(run.budget, Setting(tuning.learning_rate, tuning.epochs))

    def _planned(self, run: Run, found: tuple[Path, Chosen | None], setting: Setting) -> Done:
        folder, chosen = found
        plan, tuning, epochs = self.ground.plan, self.ground.tuning, setting.epochs
        if chosen is not None and chosen.epochs is not None:
            epochs = chosen.epochs
        if chosen is not None and plan.steps is not None:
            epochs = plan.steps / math.ceil(len(chosen.rows) / tuning.batch_rows)
        seed = seed_of(self.ground, run)
        tuning = replace(tuning, seed=seed, learning_rate=setting.learning_rate, epochs=epochs)
        where = "read" if chosen is None else f"tuned-{digest(spec_words(tuning))[:12]}"
        return Done(run, chosen, folder / where, tuning)

    def _as_long(self, done: Done) -> Done | None:
        """Random for as long as a method's run took to choose and train; None where that is not asked, or no longer."""
        ground, run, chosen = self.ground, done.run, done.chosen
        asked = ground.plan.equal_compute and run.arm.kind in ("method", "targeted") and run.budget == ground.primary[1]
        if chosen is None or not asked:
            return None
        times = times_longer(chosen.cost["seconds"], done.tuned()["seconds"])
        if times < LEAST:
            return None
        long = replace(run, arm=as_long_as(run.arm))
        folder = done.folder.parent / f"as-long-{done.folder.name}"
        found = read_chosen(folder / "chosen")
        if found is None:
            found = drawn_as_long(ground, long, times, seed_of(ground, long), self.lab)
            write_chosen(folder / "chosen", found, [])
        return self._planned(long, (folder, found), self._setting(run))

    def _own(self, done: Done, own: Own) -> Done:
        """The model of a run's last round, to be read as it is."""
        run = replace(done.run, arm=own_loop(done.run.arm))
        return Done(run, done.chosen, done.folder.parent / _own_folder(own), self.ground.tuning, own)

    def _job(self, done: Done, tasks: Sequence[Asked]) -> Job:
        chosen, asked = done.chosen, tuple((each.digest, each.task) for each in tasks)
        if done.own is not None:
            adapter = AdapterAt(done.own.digest, done.own.path)
            return Job(done.folder, self.lab.store, None, None, done.tuning, asked, adapter)
        pool = None if chosen is None else self.ground.pool.subset(chosen.rows)
        weights = None if chosen is None else chosen.weights
        return Job(done.folder, self.lab.store, pool, weights, done.tuning, asked)

    def _mapped(self, jobs: Sequence[Job]) -> Iterator[str | None]:
        if self.engine is None:
            yield from map(partial(_work_here, self.lab), jobs)
        else:
            yield from self.engine(carry_out, (replace(job, pool=_alone(job.pool)) for job in jobs))


def _own_folder(own: Own) -> str:
    """Where the readings of a method's own model lie, in its run's folder."""
    return f"own-{own.digest[:12]}"


def _choice_in(folder: Path) -> Chosen | None:
    """The choice in a run's folder; None too where the method's own model is gone from the store before it was read."""
    found = read_chosen(folder / "chosen")
    own = None if found is None else found.own
    lost = own is not None and not Path(own.path).is_dir() and not (folder / _own_folder(own)).is_dir()
    return None if lost else found


def _alone(pool: Pool | None) -> Pool | None:
    """The rows of a view in a table of their own, as another process gets them."""
    return None if pool is None else Pool.of(pool.examples(np.arange(len(pool))), "run")


def _work_here(lab: Lab, job: Job) -> str | None:
    """Carry out a run in this process, with the lab's engine and its progress."""
    return attempt(job, Lab(lab.store, map=lab.map, progress=lab.progress))
