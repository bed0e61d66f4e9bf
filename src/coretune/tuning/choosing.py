"""A training whose rows are chosen while it runs: its plan, what the chooser is told of a step, what stays of it.

work/checkpoint-STEP/chooser.npz    the chooser's state and the learning rates so far, to go on from
order/NAME.npy                      in a finished folder: the chooser's last state
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coretune.errors import need
from coretune.orders import Chooser, Gradient
from coretune.shapes import Float, Int64
from coretune.tuning.schedule import Plan
from coretune.tuning.spec import Tuning

STATE, ORDER, RATES = "chooser.npz", "order", "learning_rates"
FACTOR = ".lora_"  # in the name of a LoRA factor, behind that of its layer


def online_plan(spec: Tuning, rows: int, chooser: Chooser) -> Plan:
    """The plan of the most steps that a chooser may ask for.

    Raises `ValueError` for what such a training cannot have: checkpoints at shares of a number of steps that is not
    known, and gradients of LoRA factors where all weights are tuned.
    """
    shares = [each for each in spec.checkpoints if isinstance(each, float)]
    if shares:
        raise ValueError(
            f"a checkpoint at {shares[0]:g} of the run asked of a training that chooses its rows; how many steps it "
            "will have is not known: give steps, as 10"
        )
    if chooser.wants_gradient and spec.rank is None:
        raise ValueError("this order follows the gradient of LoRA factors, and rank none tunes all weights; give rank")
    return Plan.of(spec, rows, chooser.most_steps)


def last_factors(model: Any) -> list[Any]:
    """The LoRA factors of the last adapted layer of a model with an adapter."""
    tuned = [(name.split(FACTOR)[0], each) for name, each in model.named_parameters() if each.requires_grad]
    return [each for layer, each in tuned if layer == tuned[-1][0]]


def gradient_of(model: Any, factors: Sequence[Any], learning_rate: float) -> Gradient:
    """The gradient that a step's backward passes have left, not yet clipped: one pass over it and a small copy."""
    torch = need("torch", "models")
    held = [each.grad for each in model.parameters() if each.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(held))
    vector = torch.cat([each.grad.detach().float().flatten() for each in factors]).cpu().numpy()
    return Gradient(norm**2, vector, learning_rate)


def losses_in_order(rows: Int64[np.ndarray, " b"], visits: Sequence[np.ndarray]) -> Float[np.ndarray, " b"]:
    """The losses of a step's rows, in the rows' order, from its visits in whatever order they were computed."""
    noted = np.concatenate(visits)
    at = np.argsort(noted["row"], kind="stable")
    losses: np.ndarray = noted["loss"][at][np.searchsorted(noted["row"][at], rows)].astype(np.float64)
    return losses


def write_state(folder: Path, chooser: Chooser, rates: Sequence[float]) -> None:
    """Write where a chooser stands, and the learning rates of the steps made."""
    state = {f"{ORDER}.{name}": values for name, values in chooser.state().items()}
    np.savez(folder / STATE, **state, **{RATES: np.array(rates, dtype=np.float64)})  # type: ignore[arg-type]


def read_state(folder: Path) -> tuple[dict[str, np.ndarray], Float[np.ndarray, " steps"]]:
    """What `write_state` was given."""
    with np.load(folder / STATE, allow_pickle=False) as held:
        state = {name.removeprefix(f"{ORDER}."): held[name] for name in held.files if name != RATES}
        return state, held[RATES]


def write_order(folder: Path, state: Mapping[str, np.ndarray]) -> None:
    """Write a chooser's last state into a finished folder, an array a file; nothing where no rows were chosen."""
    for name, values in state.items():
        (folder / ORDER).mkdir(exist_ok=True)
        np.save(folder / ORDER / f"{name}.npy", values, allow_pickle=False)


def read_order(folder: Path) -> dict[str, np.ndarray]:
    """What `write_order` has written."""
    return {each.stem: np.load(each, allow_pickle=False) for each in sorted((folder / ORDER).glob("*.npy"))}
