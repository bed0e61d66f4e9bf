"""The command `coretune tune`: a selection, or any pool, to a tuned model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from coretune import terminal
from coretune.cli_words import Columns, Store, Template
from coretune.command_options import parse_columns, template_text, tuning_class, tuning_options
from coretune.terminal import say

TUNE_EXAMPLES = """Examples:

coretune tune runs/ltd --model smollm2-135m

coretune tune runs/tagcos --model smollm2-135m --no-weights --epochs 4 --rank 128 \\
--targets q_proj k_proj v_proj o_proj --learning-rate 2e-5 --out tuned/tagcos

coretune tune data.jsonl --model MODEL --rank none --learning-rate 1e-5 --gradient-checkpointing --out tuned/all-weights

The folder that is made holds the LoRA adapter in PEFT's own format (or the model, where all weights are tuned), \
losses by step and by row, tuning.toml with everything resolved, and report.html. After a Ctrl-C or a kill, the same \
command goes on."""


def tune_command(*, asked: bool = True) -> Callable[..., None]:
    """The command, with the options of a tuning as flags where it is the one that is asked for."""

    def tune(  # noqa: PLR0913 - the flags of a command
        pool: Annotated[
            list[str],
            Parameter(help="The folder of a finished run, or a pool: files, folders, globs, `-`, a hub dataset id."),
        ],
        /,
        *,
        model: Annotated[str, Parameter(help="The model to tune: a hub id, a folder, a GGUF file, smollm2-135m.")],
        out: Annotated[
            Path | None, Parameter(help="The folder to make; for a run, by default, RUN-tuned-MODEL beside it.")
        ] = None,
        seed: Annotated[int, Parameter(help="Adapter initialisation, order of rows and dropout follow from it.")] = 0,
        weights: Annotated[
            bool | None,
            Parameter(help="Weigh rows in the loss as the selection says; by default wherever they differ there."),
        ] = None,
        template: Template = None,
        columns: Columns = None,
        processes: Annotated[
            int | None, Parameter(help="How many processes train together; by default one a GPU.")
        ] = None,
        store: Store = None,
        overwrite: Annotated[bool, Parameter(help="Replace another tuning's folder.", negative="")] = False,
        options: Any = None,
    ) -> None:
        """Tune a model on a run's selection, or on any pool: LoRA or all weights, loss on answer tokens alone."""
        from coretune.lab import Lab
        from coretune.tuning_runs import TuningRequest, carry_out_tuning, default_folder

        request = TuningRequest(
            inputs=tuple(pool),
            model=model,
            options=tuning_options(options or tuning_class()()),
            seed=seed,
            template=template_text(template),
            columns=parse_columns(columns),
            weights=weights,
        )
        folder = out or default_folder(request)
        with terminal.Watch().shown() as watch:

            def each_step(step: int, steps: int, loss: float) -> None:
                watch(f"tune {Path(model).name}", step, steps, f"loss {loss:.3f}")

            lab = Lab(store, progress=watch)
            done = carry_out_tuning(request, folder, lab, overwrite=overwrite, processes=processes, each_step=each_step)
        if done.tuned is None:
            say(f"{folder} holds this tuning already, complete; nothing was done. Its report: {folder / 'report.html'}")
            return
        terminal.show_stages(lab.stages)
        say()
        terminal.show_tuning(done)

    parameter = Parameter(name="*", group="Options of the tuning") if asked else Parameter(parse=False)
    kind: Any = tuning_class() | None if asked else Any
    tune.__annotations__["options"] = Annotated[kind, parameter]
    return tune
