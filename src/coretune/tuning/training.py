"""The training itself: a leaf of transformers' Trainer that takes a step's rows in micro-batches.

Precision: what is tuned is kept in float32 (LoRA factors, or all weights), so that small updates are not lost to
rounding; in bfloat16 the frozen weights are stored so, and autocast computes every matrix product in it. On a CPU with
bfloat16 that is about twice as fast as float32.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import random
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from coretune.errors import CoretuneError, ModelError, need
from coretune.models import find_model, load_causal_lm
from coretune.tuning.choosing import gradient_of, last_factors, losses_in_order
from coretune.tuning.job import EachStep, Job, parts, tensors
from coretune.tuning.recording import recorder_class
from coretune.tuning.resuming import last_resumable
from coretune.tuning.saving import CONFIG, WEIGHTS, checkpoint_digest
from coretune.tuning.spec import ALL_LINEAR, Tuning
from coretune.tuning.tokens import MicroBatch
from coretune.tuning.tuned import VISIT


def train(job: Job, each_step: EachStep) -> None:
    """Train, and leave checkpoints and visits in the job's folder; goes on from what a killed run has left there.

    The random states of this process are as before afterwards, and its memory is given back.
    """
    transformers = need("transformers", "models")
    with _states_kept(), _quiet(transformers):
        transformers.set_seed(job.spec.seed)
        trainer = trainer_class()(job, load(job), _arguments(job), each_step)
        try:
            trainer.train(resume_from_checkpoint=last_resumable(job.work))
        finally:
            trainer.model = trainer.model_wrapped = trainer.optimizer = trainer.lr_scheduler = None
            trainer.callback_handler.model = trainer.callback_handler.optimizer = None
            trainer.accelerator.free_memory()
            del trainer
            _give_back(job.device)


def _give_back(device: str) -> None:
    """Free what a training has held: the models, the GPU's cache, and heap that malloc would keep for later."""
    gc.collect()
    if device == "cuda":
        need("torch", "models").cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # there with glibc alone
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def load(job: Job) -> Any:
    """The model with what is to be tuned in it. Raises `ModelError` where it is not the one that was resolved."""
    spec, found = job.spec, find_model(job.spec.model)
    if found.digest != spec.digest:
        raise ModelError(
            f"the model {spec.model} was {spec.digest} when the tuning was asked and is {found.digest} now; run again"
        )
    stored = "float32" if spec.rank is None else spec.precision or "float32"
    model = load_causal_lm(spec.model, dtype=stored, device="cpu")
    whole = model.requires_grad_(True) if spec.rank is None else _with_adapter(spec, model)
    if spec.gradient_checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return whole


def _with_adapter(spec: Tuning, model: Any) -> Any:
    """The model with LoRA factors in its layers, in float32, and everything else frozen."""
    peft = need("peft", "models")
    config = peft.LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=ALL_LINEAR if spec.targets == (ALL_LINEAR,) else list(spec.targets),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by names that are on their way out
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # which PEFT sets by itself, for GPT-2's layers
        tuned = peft.get_peft_model(model, config)
    if spec.start is not None:
        go_on_from(tuned, spec)
    return tuned


def go_on_from(tuned: Any, spec: Tuning) -> None:
    """Give a fresh adapter the weights of the one to start from. Raises `ModelError` where it is another or unlike."""
    assert spec.start is not None
    folder = Path(spec.start.path)
    if not (folder / WEIGHTS).is_file() or checkpoint_digest(folder) != spec.start.digest:
        raise ModelError(f"the adapter to start from is not in {folder}, or is not the one that was meant; run again")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    shape, wanted = (config["r"], float(config["lora_alpha"])), (spec.rank, spec.alpha)
    weights = need("safetensors.torch", "models").load_file(folder / WEIGHTS)
    own = need("peft", "models").get_peft_model_state_dict(tuned)
    odd = sorted(set(weights) ^ set(own))
    if shape != wanted or odd:
        what = f"layer {odd[0]} is only in one of them" if odd else f"rank and alpha are {shape}, not {wanted}"
        raise ModelError(
            f"a tuning cannot start from the adapter in {folder}: {what}; ask for the same rank and targets"
        )
    need("peft", "models").set_peft_model_state_dict(tuned, weights)


def _arguments(job: Job) -> Any:
    """The Trainer's settings: one pass over a list of steps, everything else is the job's own."""
    spec = job.spec
    arguments = need("transformers", "models").TrainingArguments(
        output_dir=str(job.work),
        max_steps=job.plan.run,
        per_device_train_batch_size=1,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_norm or 0.0,
        optim="adamw_torch",
        seed=spec.seed,
        use_cpu=job.device == "cpu",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        log_level="error",
        log_level_replica="error",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if job.device == "cpu" and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs: a process each, never one that copies itself about
    return arguments


@cache
def trainer_class() -> type:
    """`Steps` as a leaf of the Trainer; made when it is first needed, since the Trainer loads torch."""
    return type("StepTrainer", (Steps, need("transformers", "models").Trainer), {})


class Steps:
    """What is our own in a Trainer whose dataset is a list of steps: item i is step i // processes + 1, for process
    i % processes. `visits` are the rows' losses as this process has seen them, `loss` is that of the last step.
    """

    args: Any
    model: Any
    accelerator: Any
    optimizer: Any
    lr_scheduler: Any
    train_dataset: Any
    loss_is_scaled_for_ga = True  # by what each row counts in the whole step

    def __init__(self, job: Job, model: Any, arguments: Any, each_step: EachStep) -> None:
        transformers = need("transformers", "models")
        self.job = job
        self.visits: list[np.ndarray] = []
        self.rates: list[float] = []  # of the steps made, where rows are chosen in the training
        self.loss = float("nan")  # with several processes, what this one makes of it
        self._places: Any = None
        self._losses: Any = None
        recorder = recorder_class()(self, job, each_step)
        steps = [{"step": i} for i in range(job.plan.run * arguments.world_size)]
        super().__init__(model, arguments, _first, steps, callbacks=[recorder])  # type: ignore[call-arg]
        self.remove_callback(transformers.PrinterCallback)  # type: ignore[attr-defined]
        wants_gradient = job.chooser is not None and job.chooser.wants_gradient
        self._factors = last_factors(model) if wants_gradient else []
        base = model.get_base_model() if job.spec.rank is not None else model
        self._head = base.get_output_embeddings()
        if self._head is not None:
            self._head.register_forward_pre_hook(self._answers_alone)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return need("torch", "models").utils.data.SequentialSampler(self.train_dataset)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rates of the plan, or of the chooser where it has any."""
        shares = [*(self.job.plan.rates / self.job.spec.learning_rate).tolist(), 0.0]
        chooser = self.job.chooser

        def share(made: int) -> float:
            chosen = None if chooser is None else chooser.rate(made + 1)
            return float(shares[made] if chosen is None else chosen)

        schedules = need("torch", "models").optim.lr_scheduler
        self.lr_scheduler = schedules.LambdaLR(optimizer or self.optimizer, share)
        return self.lr_scheduler

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the items are steps, not tokens."""
        return 0

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """The gradient of a whole optimizer step, micro-batch by micro-batch."""
        step, part = divmod(inputs["step"], self.args.world_size)
        rows, shares = self.job.batch(step + 1)
        batches = list(parts(self.job, rows, part, self.args.world_size))
        loss: Any = 0.0
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                loss = loss + super().training_step(model, tensors(batch, shares))  # type: ignore[misc]
                self._note(step + 1, batch)
        self.loss = float(loss)
        if self.job.chooser is not None:
            self._tell(step + 1, rows, self.visits[-len(batches) :])
        return loss

    def _tell(self, step: int, rows: np.ndarray, visits: list[np.ndarray]) -> None:
        """Tell the chooser what was seen in a step, whose gradient is there and not yet clipped."""
        chooser, rate = self.job.chooser, float(self.optimizer.param_groups[0]["lr"])
        assert chooser is not None
        self.rates.append(rate)
        seen = gradient_of(self.model, self._factors, rate) if self._factors else None
        chooser.seen(step, rows, losses_in_order(rows, visits), seen)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """What a micro-batch adds to the loss of its step."""
        torch = need("torch", "models")
        self._places = inputs["places"]
        bfloat16 = self.job.spec.precision == "bfloat16"
        with torch.autocast(self.args.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            logits = model(input_ids=inputs["ids"], use_cache=False).logits.flatten(0, 1)
        logits = logits if self._head is not None else logits[self._places]
        losses = torch.nn.functional.cross_entropy(logits.float(), inputs["labels"], reduction="none")
        self._losses = losses.detach()
        return (losses * inputs["shares"]).sum() * self.args.world_size  # processes' gradients are averaged

    def _answers_alone(self, module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Give the head only the states whose next token is learned: less work, and far less memory."""
        return (inputs[0].flatten(0, 1)[self._places].unsqueeze(0), *inputs[1:])

    def _note(self, step: int, batch: MicroBatch) -> None:
        """Keep the mean loss of each row of a batch. Raises `CoretuneError` where one is not finite."""
        losses = self._losses[: len(batch.owner)].cpu().double().numpy()
        means = np.bincount(batch.owner, losses, len(batch.rows)) / np.bincount(batch.owner, None, len(batch.rows))
        if not np.isfinite(means).all():
            raise CoretuneError(
                f"the loss of step {step} is not finite; try a lower learning_rate than "
                f"{self.job.spec.learning_rate:g}, or precision float32"
            )
        visits = np.empty(len(means), dtype=VISIT)
        visits["step"], visits["row"], visits["loss"] = step, batch.rows, means
        self.visits.append(visits)


def _first(items: list[dict[str, int]]) -> dict[str, int]:
    """The one item of a batch of the Trainer: a step."""
    return items[0]


@contextlib.contextmanager
def _states_kept() -> Iterator[None]:
    """The random states of Python, numpy and torch as they were, whatever is seeded inside."""
    torch = need("torch", "models")
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the state that the Trainer sets
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without messages and bars of transformers, which are as they were afterwards."""
    logs = transformers.utils.logging
    before, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(before)
        if bars:
            logs.enable_progress_bar()
