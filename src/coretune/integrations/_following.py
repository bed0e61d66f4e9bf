"""An order inside a Trainer's run: what is given out, what comes back, and what a checkpoint holds of it."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from coretune.errors import CoretuneError, need
from coretune.integrations._checkpoints import read_arrays, write_arrays
from coretune.integrations._loader import PLACES
from coretune.integrations._reading import gradient_of, last_layer, row_losses
from coretune.orders import Chooser, Gradient
from coretune.shapes import Int64
from coretune.tuning.tuned import VISIT

log = logging.getLogger(__name__)


class Following:
    """Stands between a `chooser` and a Trainer."""

    def __init__(self, trainer: Any, chooser: Chooser) -> None:
        self.trainer, self.chooser = trainer, chooser
        self.resumed: Path | None = None  # the checkpoint that the training goes on from
        self._visits = [np.empty(0, dtype=VISIT)]
        self._given: Int64[np.ndarray, " b"] | None = None  # the rows of the step that is not over yet
        self._losses: list[tuple[Any, Any]] = []  # of its batches on this process: places and losses
        self._gradient: Gradient | None = None
        self._watched: list[Any] = []
        self._skipped = 0

    @property
    def visits(self) -> np.ndarray:
        """Step, row and loss of everything learned so far, in order."""
        self._visits = [np.concatenate(self._visits)]
        return self._visits[0]

    # What the loader asks

    def next_rows(self) -> Int64[np.ndarray, " b"] | None:
        """The rows of the next step, None where the order is over.

        Raises `CoretuneError` where the losses of the step before are still missing: something fetches ahead.
        """
        if self._given is not None:
            raise CoretuneError(
                "rows of the next step were asked for before the step at hand was over; something fetches batches "
                "ahead (a dataloader of your own, or a wrapper around it), which an order cannot allow"
            )
        if self.chooser.over:
            return None
        step = self.trainer.state.global_step + 1
        rows = np.asarray(self.chooser.rows(step), dtype=np.int64)
        full, known = step_rows(self.trainer), len(self.trainer.train_dataset)
        if not 0 < len(rows) <= full:
            raise ValueError(f"step {step} of the order has {len(rows)} rows, the trainer's have 1 to {full}; set both")
        if rows.min() < 0 or rows.max() >= known:
            raise ValueError(f"the order chose row {rows.max()} in step {step}; the trainer's dataset has {known} rows")
        self._given = rows
        return rows

    def skipped(self) -> int:
        """How many batches the Trainer skips in the pass that begins."""
        skipped, self._skipped = self._skipped, 0
        return skipped

    # What the training tells

    def trained(self, step: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        """A training step of the Trainer, `step(model, inputs, ...)`, in which losses and gradient are noted."""
        torch, places, labels = need("torch", "models"), inputs.pop(PLACES).cpu(), inputs["labels"]
        noted: list[Any] = []

        def note(module: Any, given: Any, output: Any) -> None:
            if torch.is_grad_enabled() and not noted:  # TRL may look a second time, for its own figures
                noted.append(row_losses(output, labels))

        handle = model.register_forward_hook(note)
        try:
            loss = step(model, inputs, *rest)
        finally:
            handle.remove()
        if not noted:
            raise CoretuneError("a training step made no forward pass of the model that it was given")
        if int(places.min()) < 0 and not torch.isfinite(loss):
            raise CoretuneError(
                "a step has fewer rows than gradient_accumulation_steps x processes, and the model's loss of a batch "
                "without rows is not 0; set a smaller gradient_accumulation_steps"
            )
        self._losses.append((places, noted[0]))
        if self.chooser.wants_gradient and self.trainer.accelerator.sync_gradients:
            self._watched = self._watched or last_layer(self.trainer.model)
            self._gradient = gradient_of(self.trainer, self._watched)
        return loss

    def ended(self, step: int) -> None:
        """Tell the chooser of a step. Raises `CoretuneError` where a row was not trained, or a loss is not finite."""
        assert self._given is not None
        rows, losses = self._given, self._gathered(len(self._given))
        if not np.isfinite(losses).all():
            bad = int(np.flatnonzero(~np.isfinite(losses))[0])
            raise CoretuneError(
                f"the loss of row {rows[bad]} in step {step} is {losses[bad]}; it has no tokens to learn, or the "
                f"training diverges: try a lower learning_rate than {self.trainer.args.learning_rate:g}"
            )
        self.chooser.seen(step, rows, losses, self._gradient)
        visits = np.empty(len(rows), dtype=VISIT)
        visits["step"], visits["row"], visits["loss"] = step, rows, losses
        self._visits.append(visits)
        self._given, self._gradient, self._losses = None, None, []

    def _gathered(self, rows: int) -> np.ndarray:
        """The losses of a step's rows `(b,)`, from all processes: each row was trained by one of them."""
        torch, accelerator = need("torch", "models"), self.trainer.accelerator
        device = accelerator.device if self.trainer.args.world_size > 1 else "cpu"
        both = torch.zeros(2, rows, dtype=torch.float64, device=device)  # losses, and how often each row was trained
        for places, losses in self._losses:
            mine = places >= 0
            there = places[mine].to(device)
            both[0, there] += losses.to(device).double()[mine.to(device)]
            both[1, there] += 1
        losses, times = accelerator.reduce(both, "sum").cpu().numpy()
        if not (times == 1).all():
            raise CoretuneError(f"{int((times != 1).sum())} of the {rows} rows of a step were not trained once")
        return np.asarray(losses)

    # What a checkpoint holds

    def write(self, folder: Path) -> str:
        """Write chooser and visits into a checkpoint; gives the digest that `begin` asks for."""
        chooser = {f"chooser.{name}": array for name, array in self.chooser.state().items()}
        return write_arrays(folder, {**chooser, "visits": self.visits})

    def begin(self, step: int, digest: str | None) -> None:
        """Begin a training, or go on from the checkpoint `resumed` at `step`. Raises where that cannot be."""
        self._given, self._gradient, self._losses, self._watched = None, None, [], []
        if not step:
            if len(self.visits):
                raise CoretuneError("this order has been followed already; attach it anew to begin another training")
            return
        if self.resumed is None:
            raise CoretuneError(f"the trainer begins at step {step} without resume_from_checkpoint")
        arrays = read_arrays(self.resumed, digest)
        self._visits = [arrays.pop("visits")]
        self.chooser.restore({name.removeprefix("chooser."): array for name, array in arrays.items()})
        args = self.trainer.args
        if not args.ignore_data_skip:  # as the Trainer counts: whole steps of the pass that was cut off
            passed = step % (pass_batches(self.trainer) // args.gradient_accumulation_steps)
            self._skipped = passed * args.gradient_accumulation_steps


def step_rows(trainer: Any) -> int:
    """How many rows an optimizer step of a Trainer has, over all processes."""
    args = trainer.args
    return int(args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size)


def pass_batches(trainer: Any) -> int:
    """Batches that one process takes in a pass: whole steps, enough for as many rows as the dataset has."""
    return -(-len(trainer.train_dataset) // step_rows(trainer)) * int(trainer.args.gradient_accumulation_steps)


@cache
def callback_class() -> type:
    """`Follower` as a callback of the Trainer with a state; made when it is first needed, since that loads torch."""
    callbacks = need("transformers.trainer_callback", "models")
    return type("CoretuneOrder", (Follower, callbacks.TrainerCallback, callbacks.ExportableState), {})


class Follower:
    """What happens between steps: the chooser is told, the training ends when the order does, checkpoints hold it."""

    def __init__(self, following: Following) -> None:
        self.following = following

    def state(self) -> dict[str, Any]:
        """What the `trainer_state.json` of the checkpoint that is being written is to hold."""
        trainer = self.following.trainer
        folder = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
        saving = trainer.state.global_step and folder.is_dir()  # the Trainer also asks before it begins
        return {"args": {}, "attributes": {"digest": self.following.write(folder)} if saving else {}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Begin, or go on from what a checkpoint holds."""
        saved = state.stateful_callbacks.get(type(self).__name__, {})
        self.following.begin(state.global_step, saved.get("attributes", {}).get("digest"))
        chooser = self.following.chooser
        control.should_training_stop = control.should_training_stop or chooser.over
        if state.max_steps > chooser.most_steps and chooser.rate(1) is None:
            log.warning(
                "the learning rate is planned for %d steps, and the order makes at most %d; set max_steps=%d",
                *(state.max_steps, chooser.most_steps, chooser.most_steps),
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Tell the chooser of the step, and do what it asks for."""
        chooser = self.following.chooser
        self.following.ended(state.global_step)
        control.should_training_stop = control.should_training_stop or chooser.over
        if chooser.keep and str(getattr(args.save_strategy, "value", args.save_strategy)) != "no":
            control.should_save = True

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Say so where the training was over before the order."""
        if not self.following.chooser.over:
            most = self.following.chooser.most_steps
            log.warning(
                "the training ended after %d steps, the order was not over (at most %d)", state.global_step, most
            )
