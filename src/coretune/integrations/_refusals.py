"""What an order cannot work with: each setting of a Trainer, and what to set in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def refuse(trainer: Any) -> None:
    """Raise `ValueError`, naming every setting under which an order could not be followed exactly."""
    found = [*_of_rows(trainer), *_of_losses(trainer), *_of_machines(trainer)]
    if found:
        raise ValueError("an order cannot be followed by this trainer: " + "; ".join(found))


def _of_rows(trainer: Any) -> Iterator[str]:
    """Settings under which it is not certain which rows a step trains, or when they are fetched."""
    args, data = trainer.args, trainer.train_dataset
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        yield f"rows are chosen by number, and {_named(data)} has none; give a dataset with a length"
    if getattr(args, "packing", False):
        yield "packing=True joins rows, so that their losses cannot be told apart; set packing=False"
    elif getattr(trainer, "padding_free", False):
        yield "padding_free=True joins the rows of a batch into one; set padding_free=False"
    if getattr(args, "shuffle_dataset", False):
        yield "shuffle_dataset=True renumbers the rows; set shuffle_dataset=False, the order says what comes when"
    if args.dataloader_num_workers:
        yield (
            f"dataloader_num_workers={args.dataloader_num_workers} fetches rows of steps that are not yet decided; "
            "set dataloader_num_workers=0"
        )
    strategy = str(getattr(args, "train_sampling_strategy", "random"))
    if strategy != "random":
        yield f"train_sampling_strategy={strategy!r} chooses rows too; leave it at 'random'"
    if args.auto_find_batch_size:
        yield "auto_find_batch_size=True starts a training again with smaller steps; set per_device_train_batch_size"
    if getattr(args, "restore_callback_states_from_checkpoint", False):
        yield (
            "restore_callback_states_from_checkpoint=True makes callbacks anew; set it to False, "
            "the order restores itself"
        )


def _of_losses(trainer: Any) -> Iterator[str]:
    """Settings under which the training's own forward pass does not say what each row's loss is."""
    args = trainer.args
    liger = getattr(args, "liger_kernel_config", None) or {}
    if getattr(args, "use_liger_kernel", False) and liger.get("fused_linear_cross_entropy", True):
        yield (
            "use_liger_kernel=True gives one loss a batch and no logits; set "
            "liger_kernel_config={'fused_linear_cross_entropy': False}, or use trl.SFTTrainer, whose fused head gives "
            "log-probabilities"
        )
    if args.torch_compile:
        yield "torch_compile=True compiles the outputs away that losses are read from; set torch_compile=False"


def _of_machines(trainer: Any) -> Iterator[str]:
    """Ways of sharing the work among machines other than a whole model on each."""
    args, config = trainer.args, trainer.args.accelerator_config
    if args.n_gpu > 1:
        yield f"{args.n_gpu} GPUs in one process split a batch unseen; start a process a GPU with accelerate launch"
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        yield "FSDP and DeepSpeed shard gradients and batches; use plain data parallelism (accelerate launch)"
    if getattr(trainer.accelerator, "parallelism_config", None) is not None:
        yield "tensor, context and sequence parallelism share a batch in other ways; use plain data parallelism"
    if args.world_size > 1 and (config.split_batches or config.dispatch_batches):
        yield "accelerator_config deals batches out by itself; set split_batches=False and dispatch_batches=None"


def _named(thing: Any) -> str:
    return "None" if thing is None else f"a {type(thing).__name__}"
