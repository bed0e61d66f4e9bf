"""Comparisons: methods x budgets x seeds, tuned and read alike, down to a verdict with its error and its bill."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coretune import run_folder
from coretune.compare.ahead import refusal, unmet_budgets
from coretune.compare.arms import RANDOM
from coretune.compare.forecast import announce_bill, forecast
from coretune.compare.ground import Ground, lay
from coretune.compare.plan import Plan, read_plan
from coretune.compare.rates import settle, tried_rates
from coretune.compare.results import collect, write_files
from coretune.compare.running import Course, Done
from coretune.compare.verdict import announce, best_methods, judge
from coretune.errors import FolderError, UnmetBudget
from coretune.run_facts import pool_facts, versions
from coretune.store.digests import digest, words

if TYPE_CHECKING:
    from coretune.lab import Lab

__all__ = ["Finished", "Plan", "compare", "read_plan"]

log = logging.getLogger(__name__)

COMPARE = "compare.toml"
DECLARED = ("primary_task", "primary_budget", "margin")  # never changed once something has run
MAY_GROW = ("methods", "arms", "seeds", "random_seeds", "controls", "budgets", "tasks", "sensitivity", "equal_compute")


@dataclass(frozen=True)
class Finished:
    """A comparison's folder, complete; `verdict` is what `verdict.json` holds."""

    folder: Path
    verdict: Mapping[str, Any]


def compare(
    plan: Plan,
    out: Path,
    lab: Lab,
    *,
    engine: Callable[..., Iterable[Any]] | None = None,
    overwrite: bool = False,
    leave_out_unmet: bool = False,
) -> Finished:
    """Carry a comparison out into a folder that grows: what is done is not done again, whatever happens.

    `engine` maps whole runs over workers; none runs them here, one after the other. A folder with another comparison
    is refused, but one to which methods, budgets, seeds or tasks are added goes on; what was declared as primary
    cannot be changed. Arms that cannot be run are named in the verdict's `failed`, and the folder is then not complete:
    the same call tries them again. Raises `UnmetBudget`, before anything is tuned, for an arm that cannot meet one of
    the budgets, unless such arms are to be left out; `FolderError` for another comparison's folder, and what reading
    and tuning raise.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    before = _before(plan, out, overwrite)
    ground = lay(plan, lab)
    out.mkdir(parents=True, exist_ok=True)
    tables = _tables(plan, ground) | {"history": before}
    tables["run"]["started"] = started.isoformat(timespec="seconds")
    _write_plan(out, tables)
    lines = forecast(ground, lab)
    predicted = lines.words(ground)
    log.info("%s", announce_bill(predicted, len(ground.runs), getattr(engine, "at_once", 1)))
    _write_plan(out, tables := tables | {"predicted": predicted})
    course = Course(ground, out, lab, engine, lines.paid_as)
    unmet = unmet_budgets(course, lines)
    if unmet and not leave_out_unmet:
        raise UnmetBudget(refusal(unmet))
    trials = settle(course)
    baselines = course.baselines()
    for line in announce(ground, baselines):
        log.info("%s", line)
    done = [*baselines, *course.others()]
    verdict = judge(ground, done, trials, course.failed, predicted)
    if plan.sensitivity:
        verdict["sensitivity"] = tried_rates(course, [RANDOM, *best_methods(verdict)])
    _write(out, ground, done, verdict, lab)
    tables["run"]["seconds"] = round(time.perf_counter() - clock, 3)
    tables["run"]["complete"] = not course.failed
    _write_plan(out, tables)
    from coretune.report import write_report

    write_report(out)
    return Finished(out, verdict)


def _before(plan: Plan, out: Path, overwrite: bool) -> list[dict[str, Any]]:
    """What was asked of this folder before. Raises `FolderError` where it holds something else."""
    path = out / COMPARE
    if overwrite and path.is_file():
        shutil.rmtree(out)
    if not path.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise FolderError(f"{out} exists and is no comparison (it has no {COMPARE}); give another --out")
        return []
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
        asked, identity, history = said["plan"], said["run"]["identity"], said.get("history", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError) as error:
        raise FolderError(f"{path} cannot be read: {error!r}; give another --out, or --overwrite") from error
    now = _plan_words(plan)
    primary = {"primary_task": said["primary"]["task"], "primary_budget": said["primary"]["budget"]}
    for name, was in {**primary, "margin": said["primary"]["margin"]}.items():
        asked_now = dict(zip(DECLARED, (*plan.primary, plan.margin), strict=True))[name]
        if asked_now != was:
            raise FolderError(
                f"{out} was declared with {name.replace('_', ' ')} {was!r}, and {asked_now!r} is asked now: what "
                "decides is said before anything runs. Give another --out"
            )
    if identity != _identity(plan):
        differ = sorted(name for name in now if name not in MAY_GROW and now[name] != asked.get(name))
        raise FolderError(
            f"{out} holds another comparison (it differs in {', '.join(differ) or 'the files'}); give another --out, "
            "or --overwrite"
        )
    grown = sorted(name for name in MAY_GROW if now[name] != asked.get(name))
    if not grown:
        return list(history)
    was_asked = {name: asked.get(name, "none") for name in grown}
    return [*history, {"asked": was_asked, "at": said["run"].get("started", "")}]


def _plan_words(plan: Plan) -> dict[str, Any]:
    """The plan as `compare.toml` holds it, so that it can be repeated from anywhere."""
    said = dataclasses.asdict(plan)
    said["inputs"] = [str(Path(each).absolute()) if Path(each).exists() else each for each in plan.inputs]
    return {name: run_folder.sayable(value) for name, value in said.items()}


def _identity(plan: Plan) -> str:
    """A digest of what may not change in a folder."""
    said = {name: value for name, value in _plan_words(plan).items() if name not in (*MAY_GROW, *DECLARED)}
    return digest(words(said))


def _tables(plan: Plan, ground: Ground) -> dict[str, Any]:
    """Everything that `compare.toml` says but the time it took."""
    task, budget = plan.primary
    return {
        "run": {
            "coretune": metadata.version("coretune"),
            "command": " ".join(["coretune", *sys.argv[1:]]),
            "identity": _identity(plan),
            "complete": False,
        },
        "primary": {"task": task, "budget": budget, "margin": plan.margin},
        "plan": _plan_words(plan),
        "compared": {arm.name: {"method": arm.method, "kind": arm.kind, **dict(arm.options)} for arm in ground.arms},
        "tuning": dataclasses.asdict(ground.tuning),
        "pool": pool_facts(ground.pool) | _parts(ground),
        "leakage": {name: leak.facts() for name, leak in ground.leaks.items()},
        "models": dict(ground.digests),
        "versions": versions(),
    }


def _parts(ground: Ground) -> dict[str, Any]:
    counts = {name: int((ground.part == name).sum()) for name in ("train", "dev", "holdout")}
    return {"parts": counts, "choosable": len(ground.train), "answer_tokens": int(ground.tokens[ground.train].sum())}


def _write_plan(out: Path, tables: Mapping[str, Any]) -> None:
    draft = out / f".{COMPARE}"
    run_folder.write_toml(draft, tables)
    draft.replace(out / COMPARE)


def _write(out: Path, ground: Ground, done: Sequence[Done], verdict: Mapping[str, Any], lab: Lab) -> None:
    """The files of a comparison beside its runs."""
    import json

    write_files(out, ground, done, collect(done, ground.tasks))
    run_folder.write_stages(out / run_folder.STAGES, lab.stages)
    (out / "verdict.json").write_text(json.dumps(verdict, indent=1, allow_nan=False) + "\n", encoding="utf-8")
