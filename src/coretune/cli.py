"""The command line: reads what was asked, calls the library, and says what came out."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from coretune import methods, terminal
from coretune.cli_advise import ADVISE_EXAMPLES, advise
from coretune.cli_compare import COMPARE_EXAMPLES, compare
from coretune.cli_evaluate import EVALUATE_EXAMPLES, evaluate_command
from coretune.cli_overlap import OVERLAP_EXAMPLES, overlap
from coretune.cli_rounds import ROUNDS_EXAMPLES, rounds_command
from coretune.cli_select import SELECT_EXAMPLES, run, select_command
from coretune.cli_tune import TUNE_EXAMPLES, tune_command
from coretune.cli_words import Columns, Pools, Store, Template
from coretune.command_options import parse_columns, template_text
from coretune.errors import CoretuneError
from coretune.terminal import say

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command line; ends the process with 0, with 2 where it could not be done, with 130 where interrupted."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    terminal.listen()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: threads that wait leave the core alone
    try:
        _app(tokens)(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        terminal.complain(f"{error}\nsee: coretune {tokens[0] if tokens else ''} --help")
        sys.exit(2)
    except (CoretuneError, ValueError) as error:
        terminal.complain(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        terminal.complain("interrupted; what was measured is kept, the same command goes on from there")
        sys.exit(INTERRUPTED)


def console() -> None:
    """The `coretune` command: `main`, and an end at once where a worker thread is still inside a computation.

    Such a thread cannot be left in order: the interpreter would abort while it shuts down.
    """
    try:
        main()
    except SystemExit as ended:
        workers = [thread for thread in threading.enumerate() if thread.name.startswith("worker ")]
        for thread in workers:
            thread.join(0.5)
        if any(thread.is_alive() for thread in workers):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(ended.code or 0))
        raise


def _app(tokens: Sequence[str]) -> App:
    """The commands; that of `select` depends on the method that is asked for."""
    app = App(
        name="coretune",
        help="Which part of an instruction-tuning pool is worth tuning on, chosen by any published method.",
        help_format="plaintext",
        version_flags=["--version"],
        suppress_keyboard_interrupt=False,
    )
    app.command(check)
    app.command(overlap, help_epilogue=OVERLAP_EXAMPLES)
    app.command(select_command(tokens), name="select", help_epilogue=SELECT_EXAMPLES)
    app.command(list_methods, name="methods")
    app.command(tune_command(asked=list(tokens[:1]) == ["tune"]), name="tune", help_epilogue=TUNE_EXAMPLES)
    app.command(compare, name="compare", help_epilogue=COMPARE_EXAMPLES)
    app.command(evaluate_command, name="evaluate", help_epilogue=EVALUATE_EXAMPLES)
    app.command(advise, name="advise", help_epilogue=ADVISE_EXAMPLES)
    app.command(rounds_command, name="rounds", help_epilogue=ROUNDS_EXAMPLES)
    app.command(report)
    app.command(run)
    cache = App(name="cache", help="What has been measured and kept: list it, or prune it.")
    cache.default(list_store)
    cache.command(prune)
    app.command(cache)
    return app


def list_methods() -> None:
    """List the methods: what each is, what it needs, what it costs, which paper."""
    for name in methods.names():
        card = methods.card(name)
        terminal.heading(name, card.idea)
        for label, text in (("needs", card.needs), ("costs", card.costs), ("paper", card.paper)):
            say(f"    {label}: {text}")
    say("\nOptions of one: coretune select --method NAME --help")


def check(
    pool: Pools,
    /,
    *,
    model: Annotated[str | None, Parameter(help="The model to be tuned: adds token counts, cuts and a mask.")] = None,
    template: Template = None,
    columns: Columns = None,
) -> None:
    """Say what to know of a pool before anything is spent: formats, rejects, lengths, copies, masks."""
    from coretune.check import check as examine
    from coretune.readers import read_pool

    with terminal.Watch().shown() as watch:
        read = read_pool(*pool, columns=parse_columns(columns) or None, progress=watch)
        report = examine(read, model=model, template=template_text(template), progress=watch)
    say(report.to_text())


def report(folder: Annotated[Path, Parameter(help="A run folder.")], /) -> None:
    """Write a run folder's report.html again, from its files."""
    from coretune.report import write_report

    say(f"report: {write_report(folder)}")


def list_store(*, store: Store = None) -> None:
    """List what is kept: its size, when it was last used, and what it was made from."""
    from coretune.store import default_store, listing

    root = store or default_store()
    entries = listing(root)
    terminal.table(
        f"{root}: {sum(entry.bytes for entry in entries) / 2**20:,.1f} MiB",
        ("address", "rows", "MiB", "days idle", "made from"),
        [
            (
                entry.address[:12],
                f"{entry.rows:,}" if entry.rows else "",
                f"{entry.bytes / 2**20:,.1f}",
                f"{entry.idle_days:.0f}",
                entry.made_from,
            )
            for entry in entries
        ],
        right=(1, 2, 3),
    )


def prune(
    addresses: Annotated[
        list[str] | None, Parameter(help="Addresses, or how they start, as the list shows them.")
    ] = None,
    /,
    *,
    idle_days: Annotated[float | None, Parameter(help="Remove what was not used for so many days.")] = None,
    everything: Annotated[bool, Parameter(help="Remove all of it.", negative="")] = False,
    store: Store = None,
) -> None:
    """Remove measurements: by address, by age, or all. They can always be measured again."""
    from coretune.store import default_store
    from coretune.store import prune as remove

    if not (addresses or idle_days is not None or everything):
        raise ValueError("nothing was named to be removed; give addresses, --idle-days or --everything")
    gone = remove(store or default_store(), addresses=addresses or (), idle_days=idle_days, everything=everything)
    say(f"removed {len(gone)} entries, {sum(entry.bytes for entry in gone) / 2**20:,.1f} MiB")
