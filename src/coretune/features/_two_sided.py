"""Two-sided projection of a linear layer's gradient, which is never formed: full weights are too large for that.

For a row with inputs X (t, in) and output gradients G (t, out) the gradient is Gᵀ X (out, in), and with random signs
P_out (k, out) and P_in (in, k)

    P_out (Gᵀ X) P_in / k = (G P_outᵀ)ᵀ (X P_in) / k

which keeps inner products on average. For a gradient M with S = MᵀM and ρ = tr(S²) / tr(S)², the variance of its
squared length, relative to its square, is at most 2/k² + 2ρ (2/k + 1/k²): rows with few tokens, of low rank, have most.

Adam's second moments enter as Adafactor keeps them: v of rank one, from the means of its rows and columns. Its root
then divides G and X, and so P_out and P_in, at no cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from coretune.errors import ModelError, need
from coretune.features._sketch import places_of


@dataclass(frozen=True)
class Sides:
    """The projections of one layer, tensors in the model's type: `inner` `(in, k)` and `outer` `(out, k)`."""

    inner: Any
    outer: Any


def signs(name: str, rows: int, k: int, seed: int) -> np.ndarray:
    """Random signs `(rows, k)` float32 that follow from a name and a seed alone."""
    return places_of(name, rows * k, rows * k, seed).signs.reshape(rows, k).astype(np.float32)


def sides_of(name: str, weight: Any, k: int, seed: int, square: Any | None = None, eps: float = 0.0) -> Sides:
    """The projections of a layer with a weight `(out, in)`; `square` are its second moments, corrected for the start.

    Their product is divided by k. With second moments, and eps² added to them, the gradient is divided by their root.
    """
    torch = need("torch", "models")
    out, inside = weight.shape
    inner, outer = (
        torch.from_numpy(signs(f"{name} {side}", size, k, seed)) for side, size in (("inner", inside), ("outer", out))
    )
    outer = outer / k
    if square is not None:
        square = square.double() + eps**2
        by_row, by_column = square.mean(1), square.mean(0)
        outer = outer * (by_row.mean() / by_row).sqrt().float()[:, None]
        inner = inner * by_column.rsqrt().float()[:, None]
    return Sides(inner.to(weight.device, weight.dtype), outer.to(weight.device, weight.dtype))


class WeightWatch:
    """Gives every layer's projected gradients, `(b, k * k)` by the layer's name, to `take` in the backward pass."""

    def __init__(self, sides: Mapping[str, Sides], take: Callable[[str, Any], None]) -> None:
        torch = need("torch", "models")
        self.sides, self.take = sides, take
        self._start = torch.zeros((), requires_grad=True)  # lets the backward pass reach the first layer

    def __call__(self, name: str, x: Any, y: Any) -> Any:
        """The layer's output as it is. Only the projected inputs are kept for the backward pass."""
        if x.ndim != 3:
            raise ModelError(f"layer {name} sees tokens apart from their rows (a mixture of experts); leave it out")
        return _tap().apply(
            y, self._start, x.detach() @ self.sides[name].inner, self.sides[name].outer, name, self.take
        )


@cache
def _tap() -> Any:
    """A function that changes nothing and sees the gradient, as autograd knows it."""
    torch = need("torch", "models")

    class Tap(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, y: Any, start: Any, inputs: Any, outer: Any, name: str, take: Any) -> Any:
            ctx.save_for_backward(inputs, outer)
            ctx.name, ctx.take = name, take
            return y.view_as(y)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            inputs, outer = ctx.saved_tensors
            ctx.take(ctx.name, torch.bmm((g @ outer).float().mT, inputs.float()).flatten(1))
            return g if ctx.needs_input_grad[0] else None, None, None, None, None, None

    return Tap
