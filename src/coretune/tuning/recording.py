"""What happens beside the training: checkpoints that stay, checkpoints to go on from, the progress told."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coretune.errors import need
from coretune.tuning import choosing, resuming
from coretune.tuning.saving import write_checkpoint
from coretune.tuning.tuned import CHECKPOINTS, step_name

if TYPE_CHECKING:
    from coretune.tuning.job import EachStep, Job

RESUME_SECONDS = 60.0  # at least, between two checkpoints to go on from
RESUME_SHARE = 20.0  # and so many times what writing one takes


@cache
def recorder_class() -> type:
    """`Recorder` as the Trainer's callback; made when it is first needed, since the Trainer loads torch."""
    return type("RecorderCallback", (Recorder, need("transformers", "models").TrainerCallback), {})


class Recorder:
    """Keeps checkpoints and tells of each step; `trainer` holds what it needs of the model and the losses."""

    def __init__(self, trainer: Any, job: Job, each_step: EachStep) -> None:
        self.trainer, self.job, self.each_step = trainer, job, each_step
        self.began = self.saved = self.asked = time.monotonic()
        self.before, self.cost = 0.0, 0.0  # seconds of runs that were cut off; of the last save

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Take up what was noted before a kill."""
        self.began = self.saved = time.monotonic()
        if state.global_step:
            folder = self._folder(state)
            self.trainer.visits = resuming.read_visits(folder) if args.process_index == 0 else []
            self.before = resuming.said_at(folder)["seconds"]
            if self.job.chooser is not None:
                state_then, rates = choosing.read_state(folder)
                self.job.chooser.restore(state_then)
                self.trainer.rates = rates.tolist()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Keep a checkpoint where one is asked, say whether one to go on from is due, and tell."""
        step, plan, trainer, chooser = state.global_step, self.job.plan, self.trainer, self.job.chooser
        ended = self.job.ended(step)
        kept = step in plan.checkpoints or ended or (chooser is not None and chooser.keep)
        if kept and args.should_save:
            path = self.job.work / CHECKPOINTS / step_name(step)
            write_checkpoint(path, self.job.spec, trainer.model, trainer.optimizer.optimizer, step)
        control.should_save = self._due() and not ended
        control.should_training_stop = control.should_training_stop or ended
        if args.process_index == 0:
            self.each_step(step, step if ended else plan.run, trainer.loss)

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Complete a checkpoint to go on from, which the Trainer has just written."""
        resuming.write_visits(self._folder(state), args.process_index, self.trainer.visits)
        self._write_chooser(self._folder(state))
        self.trainer.accelerator.wait_for_everyone()
        if args.should_save:
            resuming.complete(self._folder(state), {"seconds": self.seconds})
        self.cost, self.saved = time.monotonic() - self.asked, time.monotonic()

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Leave what was noted."""
        resuming.write_visits(self.job.work, args.process_index, self.trainer.visits)
        self._write_chooser(self.job.work)
        self.trainer.accelerator.wait_for_everyone()
        if args.should_save:
            gpu = need("torch", "models").cuda.max_memory_allocated() if args.device.type == "cuda" else 0
            resuming.write_trained(self.job.work, {"seconds": self.seconds, "gpu_bytes": gpu})

    @property
    def seconds(self) -> float:
        """What the training has taken, also before a kill."""
        return self.before + time.monotonic() - self.began

    def _write_chooser(self, folder: Path) -> None:
        if self.job.chooser is not None:
            choosing.write_state(folder, self.job.chooser, self.trainer.rates)

    def _folder(self, state: Any) -> Path:
        return self.job.work / f"checkpoint-{state.global_step}"

    def _due(self) -> bool:
        """Whether a checkpoint to go on from is to be written now; the first process decides for all."""
        self.asked = time.monotonic()
        due = self.asked - self.saved >= max(RESUME_SECONDS, RESUME_SHARE * self.cost)
        if self.trainer.args.world_size > 1:
            torch = need("torch", "models")
            said = torch.tensor([float(due)], device=self.trainer.args.device)
            torch.distributed.broadcast(said, 0)
            due = bool(said.item())
        return due
