"""The command `coretune advise`: pilots within some hours, and what to do with the whole pool."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from coretune import terminal
from coretune.cli_compare import method_words, words_of
from coretune.cli_words import Columns, Embedder, Store, Target, Template, Workers
from coretune.command_options import parse_columns, template_text
from coretune.terminal import say

ADVISE_EXAMPLES = """Examples:

coretune advise data.jsonl --model smollm2-135m --hours 2 --out advice

coretune advise data/*.parquet --model MODEL --hours 12 --methods tagcos,ifd,'kmq?quality=ifd' \\
--tasks heldout_loss:holdout,gsm8k.toml --out advice

Small probes say what can be afforded. Methods are compared on two small parts of the pool; the best is compared with \
random once more, on other rows and with other seeds, and only that says how much it gains. The advice may be to use \
random, or everything. After a Ctrl-C or a kill the same command goes on."""

PILOTED = (
    *("km_random", "k_center", "kmq?quality=low_loss", "perplexity", "ifd", "superfiltering", "recost", "tagcos"),
)  # what is piloted where nothing is named; those that are too dear are left out


def advise(  # noqa: PLR0913 - the flags of a command
    pool: Annotated[list[str], Parameter(help="Files of the pool.")],
    /,
    *,
    model: Annotated[str, Parameter(help="The model to tune: a hub id, a folder, smollm2-135m.")],
    hours: Annotated[float, Parameter(help="How long pilots may take, all together.")],
    out: Annotated[Path, Parameter(help="The folder of the pilots and of advice.json; one that exists goes on.")],
    methods: Annotated[
        list[str] | None, Parameter(help="Methods to pilot, in place of a usual few.", negative_iterable="")
    ] = None,
    budgets: Annotated[
        list[str] | None, Parameter(help="Budgets to pilot; the first decides.", negative_iterable="")
    ] = None,
    tasks: Annotated[
        list[str] | None, Parameter(help="What tuned models are measured by; the first decides.", negative_iterable="")
    ] = None,
    margin: Annotated[str, Parameter(help="What does not matter: in the task's unit, or 1% of random's value.")] = "1%",
    epochs: Annotated[float | None, Parameter(help="How often every chosen row is seen; by default 3.")] = None,
    target: Target = None,
    embedder: Embedder = "minilm",
    template: Template = None,
    columns: Columns = None,
    seed: Annotated[int, Parameter(help="Everything random follows from it.")] = 0,
    workers: Workers = None,
    store: Store = None,
) -> None:
    """Say whether choosing pays on this pool, by which method and how much, and what the full run will take."""
    from coretune.advise import advise as advice_on
    from coretune.compare import Plan
    from coretune.engines import engine_for
    from coretune.engines.processes import gpus, processes
    from coretune.lab import Lab

    asked: dict[str, Any] = {"tasks": words_of(tasks), "template": template_text(template)}
    asked |= {"target": target, "columns": parse_columns(columns) or None}
    asked |= {"tuning": None if epochs is None else {"epochs": epochs}}
    plan = Plan(
        tuple(pool),
        model,
        methods=method_words(methods) or PILOTED,
        budgets=words_of(budgets) or ("5%-tokens", "20%-tokens"),
        margin=margin,
        embedder=embedder,
        seed=seed,
        **{name: value for name, value in asked.items() if value is not None},
    )
    count = workers or len(gpus()) or 1
    with ExitStack() as stack:
        watch = stack.enter_context(terminal.Watch().shown())
        lab = Lab(store, map=stack.enter_context(engine_for(workers)), progress=watch)
        engine = stack.enter_context(processes(count)) if count > 1 else None
        said = advice_on(plan, hours, out, lab, engine=engine)
    _show(said, out)


def _show(said: dict[str, Any], out: Path) -> None:
    """The pilots' gains, the recommendation and the plan."""
    from coretune.compare.forecast import duration

    for name, lines in (("pilot", said["pilots"][-1]), ("fresh seeds", said["estimate"])):
        terminal.table(
            f"{name}: against random, above 0 is better",
            ("arm", "budget", "difference", "95% interval", "verdict"),
            [
                (
                    each["arm"],
                    each["budget"],
                    f"{each['difference']:+.3g}",
                    " to ".join("?" if end is None else f"{end:+.3g}" for end in each["interval"]),
                    each["verdict"].replace("_", " "),
                )
                for each in lines
            ],
            right=(2,),
        )
        say()
    plan = said["plan"]
    say(said["recommendation"]["words"])
    if said["recommendation"]["full"]:
        say(said["recommendation"]["full"])
    for name, seconds in said["too_dear"].items():
        say(f"not piloted: {name}, choosing would take {duration(seconds)}")
    say(
        f"the full run: choosing {duration(plan['select_seconds'])}, tuning {duration(plan['tune_seconds'])} "
        f"(everything: {duration(plan['tune_everything_seconds'])}), {plan['disk_bytes'] / 2**30:.2f} GiB of disk, "
        f"{plan['memory_bytes'] / 2**30:.1f} GiB of memory seen in the pilots"
    )
    say(f"\nreports: {out / 'pilot' / 'report.html'} and {out / 'fresh' / 'report.html'}")
