"""What `run.toml` says of a run: everything resolved, so that it can be judged and repeated."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coretune import methods
from coretune.errors import ModelError
from coretune.knowledge import Knowledge
from coretune.pool import Pool

if TYPE_CHECKING:
    from coretune.lab import Lab
    from coretune.methods import Method
    from coretune.rounds import Outcome
    from coretune.runs import Request


def run_tables(request: Request, method: Method, outcome: Outcome, lab: Lab) -> dict[str, Any]:
    """Everything `run.toml` says but the time it took."""
    card = methods.card(request.method)
    asked = dataclasses.asdict(request)
    del asked["fingerprint"], asked["digests"]  # stand in [pool] and [models]
    for name in ("inputs", "scores", "decontaminate"):
        asked[name] = [_absolute(each) for each in asked[name]]
    asked["held_out"] = None if request.held_out is None else _absolute(request.held_out)
    options = {each.name: getattr(method, each.name) for each in dataclasses.fields(method)}  # type: ignore[arg-type]
    options = {name: request.options.get(name) if isinstance(v, Pool | Knowledge) else v for name, v in options.items()}
    return {
        "run": {
            "coretune": metadata.version("coretune"),
            "method": request.method,
            "title": card.idea,
            "paper": card.paper,
            "seed": request.seed,
            "command": " ".join(["coretune", *sys.argv[1:]]),
        },
        "request": asked,
        "options": options,
        "pool": pool_facts(outcome.pool) | {"columns": dict(request.columns), "dedup": request.dedup},
        "budget": _budget_facts(outcome),
        "models": _model_facts(request, options),
        "features": {str(i): _words(spec) for i, spec in enumerate(dict.fromkeys(spec for spec, _ in lab.measured))},
        "notes": dict(outcome.rounds[-1].notes) | _partition_notes(outcome),
        "versions": versions(),
    }


def _absolute(name: str) -> str:
    """A file by its whole path, so that the run can be repeated from anywhere; other names as they are."""
    path, colon, column = name.rpartition(":") if not Path(name).exists() else (name, "", "")
    return f"{Path(path).absolute()}{colon}{column}" if path and Path(path).exists() else name


def _budget_facts(outcome: Outcome) -> dict[str, Any]:
    chosen, budget, n = outcome.selection, outcome.budget, len(outcome.pool)
    facts: dict[str, Any] = {
        "asked": budget.asked,
        "rows": len(chosen),
        "share_of_pool": len(chosen) / n,
        "share_of_candidates": len(chosen) / int(outcome.pool.candidates.sum()),
    }
    if outcome.answer_tokens is not None:
        total, reached = int(outcome.answer_tokens.sum()), int(outcome.answer_tokens[chosen.rows].sum())
        facts |= {"total_tokens": total, "reached_tokens": reached, "token_share_of_pool": reached / max(1, total)}
    if budget.tokens is not None:
        facts |= {"tokens": budget.tokens, "deviation_tokens": facts["reached_tokens"] - budget.tokens}
    return facts


def _model_facts(request: Request, options: Mapping[str, Any]) -> dict[str, Any]:
    from coretune.models import find_model

    named = {name: options[name] for name in ("embedder", "model") if options.get(name) is not None}
    if request.model is not None:
        if named.get("model", request.model) != request.model:
            named["select_model"] = named["model"]
        named["model"] = request.model
    found = {name: find_model(str(asked)) for name, asked in named.items()}
    return {name: {"name": each.name, "digest": each.digest, "kind": each.kind} for name, each in found.items()}


def _words(spec: Any) -> dict[str, Any]:
    """A resolved feature as a table: its kind and its fields."""
    return {"kind": type(spec).__name__, **{f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}}


def _partition_notes(outcome: Outcome) -> dict[str, Any]:
    partition = outcome.rounds[-1].partition
    if partition is None:
        return {}
    facts = {"cells": len(partition.sizes), "inertia": partition.inertia}
    return {"partition": {**facts, **partition.notes}}


def versions() -> dict[str, str]:
    """The system and the packages that results depend on."""
    names = ("numpy", "pyarrow", "torch", "transformers", "sentence-transformers", "peft", "accelerate")
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def pool_facts(pool: Pool) -> dict[str, Any]:
    """What `run.toml` and `tuning.toml` say of a pool."""
    return {
        "inputs": list(pool.inputs),
        "fingerprint": pool.fingerprint,
        "rows": len(pool),
        "rejected": pool.rejected.num_rows,
        "candidates": int(pool.candidates.sum()),
        "duplicates": int((pool.duplicate_of >= 0).sum()),
        "excluded": {reason: len(rows) for reason, rows in pool.excluded.items()},
        "formats": pool.formats,
    }


def same_models(digests: Mapping[str, str]) -> None:
    """Raise `ModelError` where a model is not the one that a run to be repeated had."""
    from coretune.models import find_model

    for name, digest in digests.items():
        if (now := find_model(name).digest) != digest:
            raise ModelError(
                f"model {name!r} has changed since that run: its digest was {digest} and is {now}; bring the old one "
                "back, or choose anew with coretune select"
            )
