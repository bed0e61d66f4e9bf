"""What a tuning is, as data: a frozen dataclass whose fields are its options and its address."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

from coretune.features import later, place
from coretune.features.lora_gradient import AdapterAt
from coretune.models import Precision, best_device, best_precision, find_model, longest_input

ALL_LINEAR = "all-linear"
DECIMALS = ("alpha", "dropout", "learning_rate", "warmup", "weight_decay", "epochs", "max_norm")
OPEN = ("digest", "tokenizer", "max_tokens", "precision", "batch_tokens")  # what `resolved` settles
BATCH_TOKENS = {"cpu": 1024, "mps": 4096, "cuda": 8192}


@dataclass(frozen=True)
class Tuning:
    """Supervised tuning of a causal language model on answers, with LoRA or of all weights; AdamW.

    Loss is taken on answer tokens alone. The same spec, rows and weights give the same weights, bit for bit on one kind
    of hardware; another `seed` is another tuning.
    """

    version: ClassVar[int] = 1

    model: str = field(metadata=place())
    """The model to be tuned: a hub id, a folder, a GGUF file, or an embedded default."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the tokenizer's digest."""
    rank: int | None = 16
    """Rank of the LoRA factors; none tunes all weights."""
    alpha: float = 32.0
    """LoRA's scale: the factors' product is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Share of LoRA's inputs that are dropped while tuning."""
    targets: tuple[str, ...] = (ALL_LINEAR,)
    """The linear layers that get LoRA factors, by the end of their names (q_proj v_proj), or all-linear."""
    learning_rate: float = 2e-4
    """The highest learning rate, reached when the warm-up ends; for all weights 1e-5 to 2e-5 is usual."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on after the warm-up: down to 0 in a line or a half wave, or not at all."""
    warmup: float = 0.03
    """Share of the planned steps in which the learning rate rises to its highest."""
    weight_decay: float = 0.0
    """AdamW's decay of all weights but norms and biases."""
    max_norm: float | None = 1.0
    """Gradients longer than this are scaled down to it, over all parameters; none leaves them."""
    batch_rows: int = 16
    """Rows of a pool between two optimizer steps, over all devices together."""
    epochs: float = 3.0
    """How often every row is seen; with the rows this makes the plan of steps that the schedule follows."""
    stop_after: int | None = None
    """Stop at this optimizer step; the schedule stays that of the whole plan."""
    checkpoints: tuple[int | float, ...] = ()
    """When weights and optimizer state are kept: whole numbers are steps, fractions (0.33, 1.0) shares of the steps
    run. The last step always is."""
    average: Literal["tokens", "rows"] = "tokens"
    """A batch's loss: the mean over its answer tokens, or over its rows of each row's own mean."""
    seed: int = 0
    """Adapter initialisation, order of the rows and dropout follow from it."""
    max_tokens: int | None = None
    """Longer conversations are cut: context goes first, then the end of the answers; none is the model's window."""
    precision: Precision | None = None
    """What matrix products are computed in; what is tuned is kept in float32. None is bfloat16 where it is fast."""
    batch_tokens: int | None = None
    """About how many tokens, padding counted, are computed at once on a device; none is what suits the hardware."""
    gradient_checkpointing: bool = False
    """Compute layers again in the backward pass instead of keeping what they gave: less memory, a third more time."""
    start: AdapterAt | None = field(default=None, metadata=later())
    """A checkpoint of an adapter of the same shape, whose weights tuning goes on from; the optimizer starts anew."""
    digest: str | None = None
    """Content hash of weights and configuration; `resolved` finds it."""
    tokenizer: str | None = None
    """Content hash of tokenizer and template; `resolved` finds it."""

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing; a whole number is the same tuning as that number with a point."""
        for name in DECIMALS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float(getattr(self, name)))
        _known(self, "schedule", ("linear", "cosine", "constant"))
        _known(self, "average", ("tokens", "rows"))
        _known(self, "precision", ("float32", "bfloat16", None))
        _refuse_numbers(self)
        if self.start is not None and self.rank is None:
            raise ValueError("a start from an adapter asked of a tuning of all weights; give rank, or no start")
        if not self.targets or (ALL_LINEAR in self.targets and len(self.targets) > 1):
            raise ValueError(f"targets {self.targets} asked; give names of linear layers, or {ALL_LINEAR} alone")
        for each in self.checkpoints:
            if each <= 0 or (isinstance(each, float) and each > 1):
                raise ValueError(f"a checkpoint at {each} asked; give steps (10) or shares of the run (0.5, 1.0)")

    def resolved(self) -> Self:
        """The same with nothing left open: digests, precision, window and batches. Raises `ModelError`."""
        from coretune.chat import chat_tokenizer, tokenizer_digest

        if all(getattr(self, name) is not None for name in OPEN):
            return self
        found, device = find_model(self.model), best_device()
        window = longest_input(found) if self.max_tokens is None else self.max_tokens
        return replace(
            self,
            digest=found.digest,
            tokenizer=tokenizer_digest(chat_tokenizer(self.model, self.template)),
            max_tokens=window,
            precision=self.precision or best_precision(device),
            batch_tokens=self.batch_tokens or BATCH_TOKENS[device],
            start=None if self.start is None else replace(self.start, weight=1.0),
        )


def _known(spec: Tuning, name: str, known: tuple[Any, ...]) -> None:
    if getattr(spec, name) not in known:
        raise ValueError(f"{name} {getattr(spec, name)!r} asked of a tuning; known are {known}")


def _refuse_numbers(spec: Tuning) -> None:
    for name in ("batch_rows", "rank", "stop_after", "max_tokens", "batch_tokens"):
        if getattr(spec, name) is not None and getattr(spec, name) < 1:
            raise ValueError(f"{name} {getattr(spec, name)} asked of a tuning; give 1 or more")
    for name in ("alpha", "learning_rate", "epochs", "max_norm"):
        number = getattr(spec, name)
        if number is not None and not (math.isfinite(number) and number > 0):
            raise ValueError(f"{name} {number} asked of a tuning; give a number above 0")
    for name, ends in (("dropout", 1.0), ("warmup", 1.0), ("weight_decay", math.inf)):
        if not 0 <= getattr(spec, name) < ends:
            raise ValueError(f"{name} {getattr(spec, name)} asked of a tuning; give 0 or more, below {ends}")
