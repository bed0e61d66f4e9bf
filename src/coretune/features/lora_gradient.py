"""One vector an example: the gradient of its loss by the factors of a LoRA adapter, sketched to d numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from coretune.errors import ModelError, need
from coretune.features import Measure, Measured, place
from coretune.features._adam import DIRECTIONS, Direction, read_moments
from coretune.features._answers import Answers
from coretune.features._batches import Batch
from coretune.features._causal import refuse_looking_ahead
from coretune.features._conversations import conversations
from coretune.features._gradients import WatchedModel
from coretune.features._lora import Adapter, LoraWatch, parameter, read_adapters
from coretune.features._settled import refuse_odd, settled
from coretune.features._sketch import CountSketch
from coretune.features._unit_rows import Source, unit_rows
from coretune.models import best_device, load_causal_lm
from coretune.pool import Example


@dataclass(frozen=True)
class AdapterAt:
    """A checkpoint of an adapter: a folder in PEFT's format, with `optimizer.safetensors` for Adam's directions."""

    version: ClassVar[int] = 1  # of how a model is read with it

    digest: str
    """Content hash of the folder, as a tuning gives it."""
    path: str = field(metadata=place())
    """Where the folder lies."""
    weight: float = 1.0
    """What the checkpoint counts in the mean over several: its mean learning rate."""


@dataclass(frozen=True)
class LoraGradient:
    """Gradients of each example's mean answer loss by the LoRA factors: unit rows `(n, d)` float16, and `norm` `(n,)`.

    With several adapters, the mean of their unit rows with their weights: `values` its direction, `norm` its length. So
    `values * norm` is the sketched gradient, or that mean. NaN where the chat template refuses the conversation, where
    there is no answer token to learn or the gradient is not finite; a mark says which.

    A value depends on its own row alone: to the last bit on a CPU; on a GPU attention's backward pass may add in any
    order. Dropout is off.
    """

    version: ClassVar[int] = 1

    model: str = field(metadata=place())
    """The language model under the adapter."""
    adapters: tuple[AdapterAt, ...] = ()
    """Checkpoints at which gradients are taken; one at least."""
    direction: Literal["none", "adam", "less"] = "none"
    """The gradient itself, or the step that Adam would take with it: the textbook's, or LESS's form of it."""
    d: int = 512
    """Numbers a row; the error of a cosine near 0 is about 1/sqrt(d)."""
    seed: int = 0
    """Of the sketch: vectors can be compared if d and seed are the same."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the tokenizer's digest."""
    max_tokens: int | None = None
    """Longer conversations are cut, the answer last; none is 2,048 tokens, or the model's window if that is less."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the model computes in; none is bfloat16 where the hardware has it. Gradients are added up in float32."""
    batch_tokens: int | None = None
    """About how many tokens a batch has; none is what suits the hardware."""
    digest: str | None = None
    """Content hash of the model's weights and configuration; `resolved` finds it."""
    tokenizer: str | None = None
    """Content hash of tokenizer and template; `resolved` finds it."""

    @property
    def shard_rows(self) -> int:
        """Rows between two writes: enough that few batches are part-filled, few enough to share among workers."""
        return max(128, (self.batch_tokens or 0) // 2)

    @property
    def row_bytes(self) -> int:
        """Bytes a row takes on the disk: float16 values, the norm, key and marks."""
        return 2 * self.d + 32

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing."""
        refuse_odd(self, direction=("none", *DIRECTIONS))
        if any(not each.weight >= 0 for each in self.adapters) or (
            self.adapters and not sum(each.weight for each in self.adapters) > 0
        ):
            raise ValueError(f"adapters weigh {[each.weight for each in self.adapters]}; give 0 or more, not all 0")

    def resolved(self) -> Self:
        """The same with model, tokenizer, window, precision and batches settled. Raises `ModelError`."""
        if self.digest is not None:
            return self
        if not self.adapters:
            raise ModelError(f"a LoRA gradient of {self.model} needs an adapter: give a tuning's checkpoint")
        return replace(self, **settled(self))

    def load(self) -> Measure:
        """Load model, adapters and state. Raises `ModelError` where they are not what was resolved, or do not fit."""
        spec, device = self.resolved(), best_device()
        tokens, longest = spec.batch_tokens or 1, spec.max_tokens or 1
        reader = conversations(spec.model, spec.template, spec.digest, spec.tokenizer)
        model = load_causal_lm(spec.model, dtype=spec.precision or "float32", device=device)
        refuse_looking_ahead(model, spec.model, device)
        adapters = read_adapters(model, [Path(each.path) for each in spec.adapters])
        layers = list(dict.fromkeys(name for adapter in adapters for name in adapter))
        watched = WatchedModel(model, layers, device, max(16, tokens // 4))
        sketch = CountSketch(sizes(adapters), spec.d, spec.seed, device)
        sources = [
            Source(at.weight, gradients(watched, adapter, sketch, directions(spec, at, adapter, device)))
            for at, adapter in zip(spec.adapters, adapters, strict=True)
        ]

        def measure(examples: Sequence[Example]) -> Measured:
            return unit_rows(sources, spec.d, reader.read(examples, longest), tokens, watched.positions)

        return measure


def sizes(adapters: Sequence[Adapter]) -> dict[str, int]:
    """Entries of every factor of any of the adapters. Raises `ModelError` where two give one another size."""
    found: dict[str, int] = {}
    for adapter in adapters:
        for layer, factors in adapter.items():
            for side, factor in (("A", factors.a), ("B", factors.b)):
                name = parameter(layer, side)
                if found.setdefault(name, factor.numel()) != factor.numel():
                    raise ModelError(f"the adapters differ in rank at {layer}; give checkpoints of one tuning")
    return found


def directions(spec: LoraGradient, at: AdapterAt, adapter: Adapter, device: str) -> dict[str, Direction]:
    """Adam's step for every factor, in the order of the gradients' entries: A's rows, and B's columns."""
    if spec.direction == "none":
        return {}
    names = {side: [parameter(layer, side) for layer in adapter] for side in "AB"}
    moments = read_moments(Path(at.path), [*names["A"], *names["B"]])
    step = DIRECTIONS[spec.direction]
    steps = {name: step(moments, name, lambda state: state.flatten().to(device)) for name in names["A"]}
    return steps | {name: step(moments, name, lambda state: state.T.flatten().to(device)) for name in names["B"]}


def gradients(
    watched: WatchedModel, adapter: Adapter, sketch: CountSketch, steps: Mapping[str, Direction]
) -> Callable[[Batch, Answers], Any]:
    """A function from a batch to the sketches of its rows' gradients at an adapter, a float32 tensor `(b, d)`."""
    torch = need("torch", "models")

    def of_batch(batch: Batch, answers: Answers) -> Any:
        out = torch.zeros(len(batch.ids), sketch.d, device=watched.device)
        watch = LoraWatch(adapter, lambda name, entries: sketch.add(out, name, entries, steps.get(name)))
        watched.backward(batch, answers, watch)
        return out

    return of_batch
