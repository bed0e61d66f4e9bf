"""A tuning's folder read back, and what its page says of it: the loss, the cost, the rows that were hard to learn."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coretune.errors import FolderError
from coretune.pages import charts, summary, wording
from coretune.pages.run_files import UNFINISHED
from coretune.run_folder import STAGES, TUNING

SHOWN = 8  # rows of highest and of lowest loss on the page
EXCERPT = 320


@dataclass(frozen=True)
class TuningFiles:
    """What a tuning's folder holds: `tuning.toml`, losses by step and by row, and the stages."""

    name: str
    said: Mapping[str, Any]
    steps: pa.Table
    rows: pa.Table
    stages: Sequence[Mapping[str, Any]]


def read_tuning(folder: Path) -> TuningFiles:
    """Read a tuning's folder. Raises `FolderError` where it is not a complete one."""
    try:
        said = tomllib.loads((folder / TUNING).read_text(encoding="utf-8"))
        steps, rows = (pq.read_table(folder / f"{name}.parquet") for name in ("losses", "row_losses"))
        lines = (folder / STAGES).read_text(encoding="utf-8").splitlines()
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, pa.ArrowException) as error:
        raise FolderError(f"{folder} holds a tuning that cannot be read: {error}; run its command again") from error
    unfinished = UNFINISHED.fullmatch(folder.absolute().name)
    name = unfinished[1] if unfinished else folder.absolute().name
    return TuningFiles(name, said, steps, rows, [json.loads(line) for line in lines])


def tuning_facts(files: TuningFiles) -> dict[str, Any]:
    """Everything that the page says, as the template takes it."""
    said, options = files.said, files.said["options"]
    losses, rates = (files.steps[name].to_numpy() for name in ("loss", "learning_rate"))
    how = "all weights" if options["rank"] == "none" else f"LoRA of rank {options['rank']}"
    cost = summary.cost_of(files.stages)
    return {
        "coretune": wording.visible(str(said["run"]["coretune"]), 40),
        "model": wording.visible(str(options["model"]), 120),
        "how": how,
        "lora": options["rank"] != "none",
        "folder": wording.visible(files.name, 120),
        "command": wording.visible(str(said["run"]["command"]), 1000),
        "meta": [f"seed {options['seed']}", f"started {said['run']['started']}", f"folder {files.name}"],
        "tiles": _tiles(said),
        "loss": charts.loss_curve(losses),
        "rate": charts.rate_curve(rates),
        "cost": cost,
        "hard": _hard(files.rows),
        "left_out": int(files.rows["loss"].null_count),
        "tables": [
            (title, summary.flattened(said[name]))
            for name, title in (("options", "Options"), ("tuned", "Tuning"), ("pool", "Pool"), ("versions", "Versions"))
        ],
        **{name: getattr(charts, name.upper()) for name in ("width", "height", "left", "right", "bottom")},
    }


def _tiles(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The large numbers at the top."""
    tuned, counts = said["tuned"], said["tuned"]["counts"]
    rate = counts["tokens"] / max(tuned["seconds"], 1e-9)
    return [
        {
            "name": "rows tuned on",
            "value": wording.count(counts["learned_rows"]),
            "lines": [
                f"{wording.plural(counts['rows'] - counts['learned_rows'], 'row')} left out",
                "weighted as the selection says" if said["pool"]["weighted"] else "all rows alike",
            ],
        },
        {
            "name": "optimizer steps",
            "value": wording.count(counts["steps"]),
            "lines": [f"of {wording.count(counts['planned_steps'])} planned", f"{said['options']['epochs']:g} epochs"],
        },
        {
            "name": "loss on answers",
            "value": f"{tuned['first_loss']:.3f} → {tuned['last_loss']:.3f}",
            "lines": ["first to last tenth of the steps", "nats a token"],
        },
        {
            "name": "time to tune",
            "value": wording.seconds(tuned["seconds"]),
            "lines": [f"{wording.count(counts['tokens'])} tokens", f"{wording.count(rate)} tokens a second"],
        },
    ]


def _hard(rows: pa.Table) -> list[tuple[str, list[dict[str, str]]]]:
    """The rows of highest and of lowest mean loss, where there are enough to tell them apart."""
    losses = rows["loss"].to_numpy(zero_copy_only=False)
    known = np.flatnonzero(np.isfinite(losses))
    if len(known) < 2 * SHOWN:
        return []
    order = known[np.argsort(-losses[known], kind="stable")]
    parts = (
        ("Highest loss: unusual, or wrong", order[:SHOWN]),
        ("Lowest loss: easy, or known before", order[::-1][:SHOWN]),
    )
    return [(title, [_row(rows, int(row)) for row in part]) for title, part in parts]


def _row(rows: pa.Table, row: int) -> dict[str, str]:
    said = {name: rows[name][row].as_py() for name in ("row", "id", "loss", "excerpt")}
    prompt, _, answer = str(said["excerpt"]).partition(" ⟶ ")
    return {
        "where": f"row {said['row']}, {wording.visible(str(said['id']), 60)}",
        "loss": f"{said['loss']:.3f}",
        "prompt": wording.visible(prompt, EXCERPT),
        "answer": wording.visible(answer, EXCERPT),
    }
