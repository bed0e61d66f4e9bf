"""A tuning asked for by a user: from a pool or a finished run to a folder with the tuned weights and what they cost."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coretune import run_folder
from coretune.errors import FolderError
from coretune.pool import Pool
from coretune.readers import read_pool
from coretune.run_facts import pool_facts, versions
from coretune.shapes import Float32
from coretune.tuning import EachStep, Tuned, Tuning, identity_of

if TYPE_CHECKING:
    from coretune.lab import Lab

LOSSES, ROW_LOSSES = "losses.parquet", "row_losses.parquet"


@dataclass(frozen=True)
class TuningRequest:
    """What a user asks for. `inputs` are files, or one folder of a finished run; `weights` None takes a run's own."""

    inputs: tuple[str, ...]
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    template: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    weights: bool | None = None

    @property
    def run(self) -> Path | None:
        """The folder of the finished run that is asked, if it is one."""
        folder = Path(self.inputs[0])
        return folder if len(self.inputs) == 1 and (folder / run_folder.RUN).is_file() else None

    def spec(self) -> Tuning:
        """The tuning. Raises `ValueError` for options that mean nothing."""
        return Tuning(self.model, template=self.template, seed=self.seed, **self.options)


@dataclass(frozen=True)
class FinishedTuning:
    """A tuning's folder, complete. `tuned` is None where the same was there already; `weighted` by a run's weights."""

    folder: Path
    pool: Pool
    tuned: Tuned | None
    weighted: bool


def default_folder(request: TuningRequest) -> Path:
    """Where a tuning goes that names no folder: beside the run. Raises `ValueError` for a pool."""
    if request.run is None:
        raise ValueError("give --out DIR, the folder to make")
    run = request.run.absolute()
    return run.with_name(f"{run.name}-tuned-{Path(request.model).name}")


def carry_out_tuning(
    request: TuningRequest,
    out: Path,
    lab: Lab,
    *,
    overwrite: bool = False,
    processes: int | None = None,
    each_step: EachStep | None = None,
) -> FinishedTuning:
    """Read, tune and write; the folder appears complete or not at all.

    The same request on a complete folder does nothing; another one's folder raises `FolderError` unless `overwrite`.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    there = run_folder.identity_of(out, run_folder.TUNING)
    with lab.stage("read") as stage:
        pool, weights = read_inputs(request, lab)
        stage.rows, stage.counts = len(pool), {"rejected": pool.rejected.num_rows}
    spec = request.spec().resolved()
    identity = identity_of(spec, pool.keys, weights)
    weighted = weights is not None
    if there == identity and not overwrite:
        return FinishedTuning(out, pool, None, weighted)
    if there is not None and not overwrite:
        raise FolderError(f"{out} holds another tuning; give another --out, or --overwrite to replace it")
    tuned = lab.tune(spec, pool, np.arange(len(pool)), weights, each_step=each_step, processes=processes)
    with run_folder.in_place_at_once(out) as folder:
        with lab.stage("write") as stage:
            _write(folder, tuned, pool, weights)
            stage.rows = len(pool)
            stage.bytes = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
        run_folder.write_stages(folder / run_folder.STAGES, lab.stages)
        tables = _tables(request, spec, tuned, pool, weighted)
        seconds = round(time.perf_counter() - clock, 3)
        tables["run"] |= {"identity": identity, "started": started.isoformat(timespec="seconds"), "seconds": seconds}
        run_folder.write_toml(folder / run_folder.TUNING, tables)
        from coretune.report import write_report

        write_report(folder)
    return FinishedTuning(out, pool, tuned, weighted)


def read_inputs(request: TuningRequest, lab: Lab) -> tuple[Pool, Float32[np.ndarray, " n"] | None]:
    """The rows to tune on, in order, and their weights where a run gives some that differ.

    Raises `FolderError` for a run folder whose files do not belong together, `ValueError` for weights of a plain pool.
    """
    if request.run is None:
        if run_folder.is_going_on(Path(request.inputs[0])):
            raise FolderError(f"{request.inputs[0]} holds a run that is not finished; give its command again first")
        if request.weights:
            raise ValueError(
                f"weights asked, but {request.inputs[0]} is no run folder: weights are those of a selection"
            )
        return read_pool(*request.inputs, columns=request.columns or None, progress=lab.progress), None
    run = request.run
    said = tomllib.loads((run / run_folder.RUN).read_text(encoding="utf-8"))
    (selected,) = sorted(run.glob("selected.*")) or [run / "selected.jsonl"]
    converted = said.get("request", {}).get("format", "none") != "none"
    columns = dict(request.columns) or ({} if converted else said.get("pool", {}).get("columns", {}))
    pool = read_pool(str(selected), columns=columns or None, progress=lab.progress)
    table = pq.read_table(run / run_folder.SELECTION, columns=["selected", "rank", "weight"])
    chosen = table.filter(table["selected"]).sort_by("rank")
    if len(pool) != len(chosen):
        raise FolderError(
            f"{selected} holds {len(pool)} usable records, but {run / run_folder.SELECTION} says that {len(chosen)} "
            "were chosen; run its command again"
        )
    weights = chosen["weight"].fill_null(1.0).to_numpy().astype(np.float32)
    return pool, None if request.weights is False or (weights == 1).all() else weights


def _write(folder: Path, tuned: Tuned, pool: Pool, weights: Float32[np.ndarray, " n"] | None) -> None:
    """Weights as PEFT or transformers loads them, and the losses of steps and rows."""
    for checkpoint in tuned.checkpoints:
        last = checkpoint.path == tuned.path
        target = folder if last else folder / "checkpoints" / checkpoint.path.name
        target.mkdir(parents=True, exist_ok=True)
        for each in checkpoint.path.iterdir():
            if each.name != "optimizer.safetensors":  # in the store, for methods that read it
                shutil.copyfile(each, target / each.name)
    steps = {
        "step": np.arange(1, len(tuned.losses) + 1),
        "loss": tuned.losses,
        "learning_rate": tuned.learning_rates,
    }
    pq.write_table(pa.table(steps), folder / LOSSES, compression="zstd")
    own = pool.take(("id", "file", "line"))
    rows = {
        "row": np.arange(len(pool)),
        "id": own["id"],
        "file": own["file"].cast(pa.string()),
        "line": own["line"],
        "loss": pa.array(tuned.row_losses, mask=np.isnan(tuned.row_losses)),
        "visits": np.bincount(tuned.visits["row"], minlength=len(pool)),
        "weight": np.ones(len(pool), dtype=np.float32) if weights is None else weights,
        "excerpt": pa.array([run_folder.excerpt_of(example) for example in pool], pa.large_string()),
    }
    pq.write_table(pa.table(rows), folder / ROW_LOSSES, compression="zstd")


def _tables(request: TuningRequest, spec: Tuning, tuned: Tuned, pool: Pool, weighted: bool) -> dict[str, Any]:
    """Everything that `tuning.toml` says but the time it took."""
    options = dataclasses.asdict(spec)
    asked = dataclasses.asdict(request)
    asked["inputs"] = [str(Path(each).absolute()) if Path(each).exists() else each for each in request.inputs]
    checkpoints = [{"step": each.step, "mean_learning_rate": each.learning_rate} for each in tuned.checkpoints]
    return {
        "run": {
            "coretune": metadata.version("coretune"),
            "command": " ".join(["coretune", *sys.argv[1:]]),
        },
        "request": asked,
        "options": options,
        "pool": pool_facts(pool) | {"weighted": weighted},
        "tuned": {
            "address": tuned.address,
            "seconds": tuned.seconds,
            "first_loss": tuned.ends[0],  # over a tenth of the steps
            "last_loss": tuned.ends[1],
            "counts": dict(tuned.counts),
            "checkpoints": checkpoints,
        },
        "versions": versions(),
    }
