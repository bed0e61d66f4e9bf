"""One vector an example: the gradient of its loss by the weights of linear layers, which are never formed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

from coretune.errors import ModelError, need
from coretune.features import Measure, Measured, place
from coretune.features._adam import read_moments
from coretune.features._answers import Answers
from coretune.features._batches import Batch
from coretune.features._causal import refuse_looking_ahead
from coretune.features._conversations import conversations
from coretune.features._gradients import WatchedModel
from coretune.features._settled import refuse_odd, settled
from coretune.features._sketch import CountSketch
from coretune.features._two_sided import Sides, WeightWatch, sides_of
from coretune.features._unit_rows import Source, unit_rows
from coretune.models import best_device, find_model, load_causal_lm
from coretune.pool import Example


@dataclass(frozen=True)
class WeightGradient:
    """Gradients of each example's mean answer loss by the weights of linear layers: unit rows float16, and `norm`.

    Each layer's gradient is projected from both sides to `side` x `side` numbers, which are sketched to `d` together,
    or joined where `d` is none: `(n, layers * side * side)`. NaN and marks as in a LoRA gradient, and values depend on
    their own row alone in the same way. Biases, norms, embeddings and the output layer are left out.
    """

    version: ClassVar[int] = 1

    model: str = field(metadata=place())
    """The language model: the one to be tuned, or a checkpoint of a tuning of all its weights."""
    direction: Literal["none", "adafactor"] = "none"
    """The gradient itself, or divided by the root of Adam's second moments as Adafactor keeps them: one number a row
    and a column of each weight. They are read from the model's folder, a tuning's checkpoint."""
    side: int = 8
    """Rows and columns that a layer's gradient is projected to."""
    d: int | None = 512
    """Numbers a row; none joins the layers' own."""
    layers: tuple[str, ...] | None = None
    """The linear layers, by the end of their names (q_proj v_proj); none is all but the output layer."""
    seed: int = 0
    """Of projections and sketch: vectors can be compared if side, d and seed are the same."""
    template: str | None = field(default=None, metadata=place())
    """Jinja text in place of the tokenizer's own chat template; it is part of the tokenizer's digest."""
    max_tokens: int | None = None
    """Longer conversations are cut, the answer last; none is 2,048 tokens, or the model's window if that is less."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the model computes in; none is bfloat16 where the hardware has it. Gradients are added up in float32."""
    batch_tokens: int | None = None
    """About how many tokens a batch has; none is what suits the hardware."""
    digest: str | None = None
    """Content hash of the model's weights, configuration and optimizer state; `resolved` finds it."""
    tokenizer: str | None = None
    """Content hash of tokenizer and template; `resolved` finds it."""

    @property
    def shard_rows(self) -> int:
        """Rows between two writes: enough that few batches are part-filled, few enough to share among workers."""
        return max(128, (self.batch_tokens or 0) // 2)

    @property
    def row_bytes(self) -> int:
        """Bytes a row takes on the disk, as far as is known without the model: float16 values, norm, key and marks."""
        return 2 * (self.d or self.side**2) + 32

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing."""
        refuse_odd(self, direction=("none", "adafactor"))
        if self.side < 1:
            raise ValueError(f"side {self.side} asked of a gradient; give 1 or more")

    def resolved(self) -> Self:
        """The same with model, tokenizer, window, precision and batches settled. Raises `ModelError`."""
        if self.digest is not None:
            return self
        return replace(self, **settled(self))

    def load(self) -> Measure:
        """Load the model and its state. Raises `ModelError` where they are not what was resolved."""
        spec, device = self.resolved(), best_device()
        tokens, longest = spec.batch_tokens or 1, spec.max_tokens or 1
        reader = conversations(spec.model, spec.template, spec.digest, spec.tokenizer)
        model = load_causal_lm(spec.model, dtype=spec.precision or "float32", device=device)
        refuse_looking_ahead(model, spec.model, device)
        sides = projections(spec, model)
        watched = WatchedModel(model, sides, device, max(16, tokens // 4))
        out, of_batch = projected(spec, watched, sides)

        def measure(examples: Sequence[Example]) -> Measured:
            found = reader.read(examples, longest)
            return unit_rows([Source(1.0, of_batch)], out, found, tokens, watched.positions)

        return measure


def projections(spec: WeightGradient, model: Any) -> dict[str, Sides]:
    """The projections of every layer that is asked for. Raises `ModelError` where there is none of a name."""
    torch = need("torch", "models")
    head = model.get_output_embeddings()
    linear = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head and _asked(name, spec.layers)
    }
    for end in spec.layers or ("",):
        if not any(_asked(name, (end,)) for name in linear):
            raise ModelError(f"the model {spec.model} has no linear layer whose name ends in {end!r}")
    if spec.direction == "none":
        return {name: sides_of(name, layer.weight, spec.side, spec.seed) for name, layer in linear.items()}
    moments = read_moments(find_model(spec.model).path, [f"{name}.weight" for name in linear], means=False)
    correction = 1 - moments.beta2**moments.step
    squares = {name: moments.square[f"{name}.weight"] / correction for name in linear}
    return {
        name: sides_of(name, layer.weight, spec.side, spec.seed, squares[name], moments.eps)
        for name, layer in linear.items()
    }


def _asked(name: str, ends: tuple[str, ...] | None) -> bool:
    return ends is None or any(f".{name}".endswith(f".{end}") or not end for end in ends)


def projected(
    spec: WeightGradient, watched: WatchedModel, sides: Mapping[str, Sides]
) -> tuple[int, Callable[[Batch, Answers], Any]]:
    """The width of a row, and a function from a batch to its rows: all layers joined, or sketched to d."""
    torch = need("torch", "models")
    each = spec.side**2
    starts = {name: number * each for number, name in enumerate(sides)}
    sketch = None if spec.d is None else CountSketch(dict.fromkeys(sides, each), spec.d, spec.seed, watched.device)
    width = spec.d or each * len(sides)

    def of_batch(batch: Batch, answers: Answers) -> Any:
        out = torch.zeros(len(batch.ids), width, device=watched.device)

        def take(name: str, entries: Any) -> None:
            if sketch is None:
                out[:, starts[name] : starts[name] + each] += entries
            else:
                sketch.add(out, name, entries)

        watched.backward(batch, answers, WeightWatch(sides, take))
        return out

    return width, of_batch
