"""LoRA adapters over a frozen model: read by PEFT, applied here, so that every row's gradients come out by themselves.

For a layer y = x Wᵀ + s (x Aᵀ) Bᵀ with A (r, in), B (out, r), inputs X (t, in) of a row and G (t, out) = ∂loss/∂y:

    ∂loss/∂A = s (G B)ᵀ X        ∂loss/∂B = s Gᵀ (X Aᵀ)

both as one batched product over the rows. B's gradient is given transposed, (r, out).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from coretune.errors import ModelError, need

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # before a layer's name in PEFT's files


@dataclass(frozen=True)
class Factors:
    """Of one layer, in the model's type: `a` `(r, in)`, `b` `(out, r)`, and what their product is scaled by."""

    a: Any
    b: Any
    scale: float


Adapter = Mapping[str, Factors]
"""Factors by the layer's name in the model."""

Take = Callable[[str, Any], None]
"""Called with a parameter's name and its gradients `(b, p)`, one a row."""


def parameter(layer: str, side: str) -> str:
    """A factor's name as PEFT's files have it; `side` is A or B."""
    return f"{PREFIX}{layer}.lora_{side}.weight"


def read_adapters(model: Any, folders: Sequence[Path]) -> list[Adapter]:
    """The adapters in PEFT's folders, as they apply to `model`, which is left as it was.

    Raises `ModelError` where a folder holds none, or one that is more than LoRA factors of linear layers.
    """
    peft = need("peft", "models")
    adapters: list[Adapter] = []
    for folder in folders:
        if not (folder / WEIGHTS).is_file():
            raise ModelError(f"{folder} holds no adapter in PEFT's format ({WEIGHTS} and adapter_config.json)")
        config = peft.PeftConfig.from_pretrained(str(folder))
        _refuse_more(config, folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that some of what it was tuned with is not here
            tuned = peft.PeftModel(model, config, autocast_adapter_dtype=False)
            found = tuned.load_adapter(str(folder), "default", autocast_adapter_dtype=False, torch_device="cpu")
        wrong = [*found.missing_keys, *found.unexpected_keys]
        layers = {name: each for name, each in tuned.base_model.model.named_modules() if hasattr(each, "lora_A")}
        adapter = {name: _factors(name, each, folder) for name, each in layers.items()}
        tuned.unload()
        if wrong or not adapter:
            what = f"{wrong[0]} is missing or has no place" if wrong else "no layer of it is in the model"
            raise ModelError(f"the adapter in {folder} does not fit the model {type(model).__name__}: {what}")
        adapters.append(adapter)
    return adapters


def _refuse_more(config: Any, folder: Path) -> None:
    """Raise `ModelError` for adapters that train something else than two factors a layer."""
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        raise ModelError(f"the adapter in {folder} is {config.peft_type}; gradients are taken of LoRA factors")
    odd = [
        each
        for each in ("use_dora", "lora_bias", "modules_to_save", "target_parameters", "trainable_token_indices")
        if getattr(config, each, None)
    ]
    odd += ["bias"] if config.bias != "none" else []
    if odd:
        raise ModelError(
            f"the adapter in {folder} has {', '.join(odd)}; gradients are taken of plain LoRA factors only"
        )


def _factors(name: str, layer: Any, folder: Path) -> Factors:
    """One layer's factors, copied off PEFT's layer in the type of its base layer."""
    (key,) = layer.lora_A.keys() or [None]
    if key is None or layer.lora_variant or layer.lora_A[key].weight.ndim != 2:
        raise ModelError(
            f"the adapter in {folder} is not plain LoRA at {name}; gradients are taken of two factors a layer"
        )
    weight = layer.get_base_layer().weight
    dtype = weight.dtype if weight.dtype.is_floating_point else layer.lora_A[key].weight.dtype
    a, b = (each[key].weight.detach().to(weight.device, dtype).clone() for each in (layer.lora_A, layer.lora_B))
    return Factors(a, b, float(layer.scaling[key]))


class LoraWatch:
    """Applies an adapter in the forward pass and gives every factor's gradients to `take` in the backward pass."""

    def __init__(self, adapter: Adapter, take: Take) -> None:
        torch = need("torch", "models")
        self.adapter, self.take = adapter, take
        self._start = torch.zeros((), requires_grad=True)  # lets the backward pass reach the first adapted layer

    def __call__(self, name: str, x: Any, y: Any) -> Any:
        """The layer's output with the adapter's part added."""
        if (factors := self.adapter.get(name)) is None:
            return y
        if x.ndim != 3:
            raise ModelError(
                f"layer {name} sees tokens apart from their rows (a mixture of experts); leave it out of LoRA"
            )
        return _branch().apply(x, y, self._start, factors, name, self.take)


@cache
def _branch() -> Any:
    """The adapter's part of a layer, as a function that autograd knows."""
    torch = need("torch", "models")

    class Branch(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any, start: Any, factors: Factors, name: str, take: Take) -> Any:
            h = x @ factors.a.T
            ctx.save_for_backward(x, h)
            ctx.factors, ctx.name, ctx.take = factors, name, take
            return torch.addmm(y.flatten(0, 1), h.flatten(0, 1), factors.b.T, alpha=factors.scale).view_as(y)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x, h), factors = ctx.saved_tensors, ctx.factors
            by_h = (g @ factors.b).mul_(factors.scale)
            ctx.take(parameter(ctx.name, "A"), torch.bmm(by_h.mT, x).flatten(1))
            ctx.take(parameter(ctx.name, "B"), torch.bmm(h.mul(factors.scale).mT, g).flatten(1))
            below = by_h @ factors.a if ctx.needs_input_grad[0] else None
            return below, g if ctx.needs_input_grad[1] else None, None, None, None, None

    return Branch
