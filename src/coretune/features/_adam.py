"""Adam's direction for one example: the step that the optimizer would take were the example its next batch.

Two forms, on the state m, v that a tuning saved after step t (g the example's gradient):

- `adam`, the textbook's: mhat / (sqrt(vhat) + eps) with mhat = (b1 m + (1 - b1) g) / (1 - b1^(t+1)), and vhat likewise
  from v and g².
- `less`, that of the code of LESS and TAGCOS: (0.9 m + 0.1 g) / sqrt(0.999 v + 0.001 g² + 1e-8), without correction
  for the start and with eps inside the root, where it outweighs any v far below 1e-8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coretune.errors import ModelError, need

STATE = "optimizer.safetensors"  # tensors exp_avg.NAME and exp_avg_sq.NAME; metadata step, beta1, beta2, eps


@dataclass(frozen=True)
class Direction:
    """Adam's step from one parameter's state, tensors `mean` and `square` `(p,)` float32, and six constants:

    (kept * mean + new * g) / (sqrt(kept_square * square + new_square * g² + inside) + outside)
    """

    mean: Any
    square: Any
    constants: tuple[float, float, float, float, float, float]

    def of(self, g: Any) -> Any:
        """The direction of gradients `(b, p)` float32."""
        kept, new, kept_square, new_square, inside, outside = self.constants
        root = (kept_square * self.square + new_square * g * g + inside).sqrt_()
        return (kept * self.mean + new * g).div_(root.add_(outside))


@dataclass(frozen=True)
class Moments:
    """What an optimizer keeps of parameters, by name: `mean` and `square` float32, after `step` steps."""

    mean: Mapping[str, Any]
    square: Mapping[str, Any]
    step: int
    beta1: float
    beta2: float
    eps: float


def adam(moments: Moments, name: str, shaped: Callable[[Any], Any]) -> Direction:
    """The textbook's direction for a parameter; `shaped` brings its state into the order of the gradient's entries."""
    b1, b2, t = moments.beta1, moments.beta2, moments.step + 1
    first, second = 1 / (1 - b1**t), 1 / (1 - b2**t)
    constants = (b1 * first, (1 - b1) * first, b2 * second, (1 - b2) * second, 0.0, moments.eps)
    return Direction(shaped(moments.mean[name]), shaped(moments.square[name]), constants)


def less(moments: Moments, name: str, shaped: Callable[[Any], Any]) -> Direction:
    """LESS's own direction for a parameter, with LESS's constants."""
    constants = (0.9, 0.1, 0.999, 0.001, 1e-8, 0.0)
    return Direction(shaped(moments.mean[name]), shaped(moments.square[name]), constants)


DIRECTIONS: dict[str, Callable[[Moments, str, Callable[[Any], Any]], Direction]] = {"adam": adam, "less": less}


def read_moments(folder: Path, names: list[str], *, means: bool = True) -> Moments:
    """The optimizer state in a checkpoint's folder, without `means` the second moments alone.

    Raises `ModelError` where there is none, or none for one of `names`.
    """
    need("torch", "models")
    from safetensors import safe_open

    path = folder / STATE
    if not path.is_file():
        raise ModelError(
            f"Adam's direction needs the optimizer's state, and {folder} has no {STATE}; give a checkpoint of a "
            "coretune tuning, or direction none"
        )
    with safe_open(path, framework="pt") as file:
        said, known = file.metadata() or {}, set(file.keys())
        lacking = [name for name in names if f"exp_avg.{name}" not in known or f"exp_avg_sq.{name}" not in known]
        if lacking or not {"step", "beta1", "beta2", "eps"} <= set(said):
            what = f"of {len(lacking)} parameters, as {lacking[0]}" if lacking else "of its step and constants"
            raise ModelError(f"{path} lacks the state {what}; it is not of this adapter's tuning, or not complete")
        mean = {name: file.get_tensor(f"exp_avg.{name}").float() for name in names if means}
        square = {name: file.get_tensor(f"exp_avg_sq.{name}").float() for name in names}
    return Moments(mean, square, int(said["step"]), float(said["beta1"]), float(said["beta2"]), float(said["eps"]))
