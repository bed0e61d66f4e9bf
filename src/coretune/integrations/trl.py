"""Let an order decide what a `trl.SFTTrainer` or a `transformers.Trainer` learns next, while it trains.

    from coretune.integrations.trl import attach

    trainer = SFTTrainer(model, args, train_dataset=dataset, ...)   # as ever
    following = attach(trainer, HighestLoss(...))                   # an order, or a chooser of your own
    trainer.train()                                                 # or resume_from_checkpoint=...
    following.visits                                                # step, row and loss of everything learned

Nothing is subclassed: `attach` puts its own batches and a note-taker in place on this one trainer, and adds a callback.
Before each optimizer step the chooser is asked for its rows (numbers of the trainer's dataset); after it, told each
row's mean loss as the step's own forward pass computed it, and where it wants that, the gradient before clipping. No
pass is added. What is decided for a step rests on the losses of the step right before it: batches are not fetched
ahead, as accelerate does, which would cost a delay of one batch.

A step holds at most per_device_train_batch_size x gradient_accumulation_steps x processes rows. `num_train_epochs`
means as many steps as passes over the whole dataset would take; `max_steps` is clearer, and the order may end earlier.
Checkpoints hold the chooser (`coretune_order.npz`), so that `resume_from_checkpoint` goes on with the same rows.

Losses are what the model says of a row's learned tokens (labels other than -100: completion-only, assistant-only and
padding as the trainer has them), whatever is minimised: label smoothing and `loss_type="dft"` change the training, not
what the chooser is told. Refused, each with what to do: packing, padding-free batches, dataloader workers, fused losses
without logits (liger), shuffled datasets, sharded training.

`SFTTrainer` drops examples that have no tokens left to learn after `max_length`, which renumbers the rows; an order
made for another number of rows says so when it is started. Drop such examples beforehand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coretune.errors import need
from coretune.integrations._following import Following, callback_class, pass_batches, step_rows
from coretune.integrations._loader import NOTHING, ordered_loader
from coretune.integrations._refusals import refuse
from coretune.orders import Chooser, Order
from coretune.shapes import Bool

__all__ = ["Following", "attach", "learned_rows", "step_rows"]


def attach(trainer: Any, order: Order | Chooser) -> Following:
    """Make a trainer follow an order from its next `train()` on; the order's rates, where it has any, are followed too.

    An `Order` is started with the rows of the dataset that have tokens to learn, the trainer's rows a step and its
    seed; a `Chooser` is taken as it is. Raises `ValueError`, naming what to change, where the trainer has settings that
    an order cannot work with, or an order already.
    """
    refuse(trainer)
    if any(isinstance(each, callback_class()) for each in trainer.callback_handler.callbacks):
        raise ValueError("the trainer follows an order already; make a trainer for each")
    if isinstance(order, Chooser):
        chooser = order
    else:
        chooser = order.start(learned_rows(trainer), batch_rows=step_rows(trainer), seed=trainer.args.seed)
    if trainer.args.fp16 and chooser.wants_gradient:
        raise ValueError("the order looks at gradients, which fp16=True scales and skips; set bf16=True instead")
    following = Following(trainer, chooser)
    _take_over_batches(trainer, following)
    _take_over_rates(trainer, chooser)
    trainer.add_callback(callback_class()(following))
    return following


def learned_rows(trainer: Any) -> Bool[np.ndarray, " n"]:
    """Which rows of a trainer's dataset have tokens to learn; all, where the collator makes the labels."""
    data = trainer.train_dataset
    if "labels" not in (getattr(data, "column_names", None) or ()):
        return np.ones(len(data), dtype=bool)
    labels = data.select_columns("labels")
    return np.array([any(each != NOTHING for each in row["labels"][1:]) for row in labels], dtype=bool)


def _take_over_batches(trainer: Any, following: Following) -> None:
    """Give the trainer the order's batches, and note what its training steps say of them."""
    ordinary, step, whole, args = trainer.get_train_dataloader, trainer.training_step, trainer.train, trainer.args

    def get_train_dataloader() -> Any:
        return ordered_loader(
            ordinary(),
            following,
            parts=args.gradient_accumulation_steps,
            process=args.process_index,
            processes=args.world_size,
            length=pass_batches(trainer),
        )

    def training_step(model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        return following.trained(step, model, inputs, num_items_in_batch)

    def train(resume_from_checkpoint: str | bool | None = None, *rest: Any, **more: Any) -> Any:
        following.resumed = _checkpoint(resume_from_checkpoint, args.output_dir)
        return whole(resume_from_checkpoint, *rest, **more)

    trainer.get_train_dataloader, trainer.training_step, trainer.train = get_train_dataloader, training_step, train


def _checkpoint(asked: str | bool | None, output: str) -> Path | None:
    """The checkpoint to go on from, as the Trainer finds it: True is the last one; None where none is asked."""
    found = need("transformers.trainer_utils", "models").get_last_checkpoint(output) if asked is True else asked
    return Path(found) if found else None


def _take_over_rates(trainer: Any, chooser: Chooser) -> None:
    """Let the order's learning rates be the trainer's, where it has any. Raises `ValueError` where both have."""
    if chooser.rate(1) is None:
        return
    if trainer.lr_scheduler is not None:
        raise ValueError("the order has learning rates of its own; leave the scheduler out of `optimizers`")

    def create_scheduler(num_training_steps: int, optimizer: Any = None) -> Any:
        schedules = need("torch", "models").optim.lr_scheduler
        last = chooser.most_steps
        trainer.lr_scheduler = schedules.LambdaLR(
            optimizer or trainer.optimizer, lambda done: chooser.rate(min(done + 1, last))
        )
        return trainer.lr_scheduler

    trainer.create_scheduler = create_scheduler
