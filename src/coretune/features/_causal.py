"""A causal language model in two steps, tokens to states and states to logits, so that logits are made in small parts.

What a model makes of a state (its output layer, and what it does with the logits: scales, caps) is the model's own
forward pass over states that are put in place of its body's.

Padding is on the right, where no token of a causal model sees it, so no attention mask is given.
"""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np

from coretune.errors import ModelError, need
from coretune.shapes import Int64

SEES_AHEAD = 0.05  # largest change of a logit, against their spread, by tokens that come later: 0 but for rounding
LOGIT_BYTES = {"cpu": 1 << 26, "cuda": 1 << 28}  # of logits at a time, in float32
CACHE_BYTES = 1 << 21  # of float32 logits that a CPU reads at a time
AT_ONCE = 16  # most rows of logits that a CPU reads at a time


class Causal:
    """A causal language model, read without its cache or a gradient. Several threads may read at once.

    `positions` is how many states go through the output layer at a time: as many as a fixed number of bytes hold, so
    that memory does not grow with the batch. Raises `ModelError` for a model that cannot be read in two steps.
    """

    def __init__(self, model: Any, name: str, device: str) -> None:
        refuse_looking_ahead(model, name, device)
        self.model, self.body, self.device = model.requires_grad_(False), model.base_model, device
        self._now = threading.local()
        head = model.get_output_embeddings()
        if head is None or self.body is model:
            raise ModelError(f"{type(model).__name__} does not say which is its output layer, so no loss can be taken")
        bytes_each = 4 * head.weight.shape[0]
        self.positions = max(AT_ONCE, LOGIT_BYTES.get(device, 1 << 26) // bytes_each // AT_ONCE * AT_ONCE)
        forward = self.body.forward

        def or_given(*args: Any, **kwargs: Any) -> Any:
            given = getattr(self._now, "output", None)
            return forward(*args, **kwargs) if given is None else given

        self.body.forward = or_given
        self._output = self.read(np.arange(16)[None] + 1)
        self._refuse_other_logits(name)

    def read(self, ids: Int64[np.ndarray, "b w"], **options: Any) -> Any:
        """What the model's body gives for token ids: `last_hidden_state` `(b, w, d)` and, if asked, its cache."""
        torch = need("torch", "models")
        with torch.inference_mode():
            return self.body(input_ids=torch.from_numpy(ids).to(self.device), **{"use_cache": False, **options})

    def logits(self, states: Any) -> Any:
        """Logits `(a, vocabulary)` of states `(a, d)`."""
        torch = need("torch", "models")
        output = copy.copy(self._output)
        output.last_hidden_state = states[None]
        self._now.output = output
        try:
            with torch.inference_mode():
                ids = torch.zeros(1, len(states), dtype=torch.int64, device=self.device)
                return self.model(input_ids=ids, use_cache=False).logits[0]
        finally:
            self._now.output = None

    def _refuse_other_logits(self, name: str) -> None:
        """Raise `ModelError` unless two steps give the logits that one gives."""
        torch = need("torch", "models")
        with torch.inference_mode():
            ids = torch.arange(16, device=self.device)[None] + 1
            whole = self.model(input_ids=ids, use_cache=False).logits[0].float()
        if not (self.logits(self._output.last_hidden_state[0]) - whole).abs().max() <= SEES_AHEAD * whole.std():
            raise ModelError(
                f"model {name!r} (a {type(self.model).__name__}) gives other logits when its output layer is given its "
                "body's states, so its losses cannot be taken in parts; ask for another model"
            )


def losses_of(logits: Any, labels: Any) -> tuple[Any, Any]:
    """Of each row of logits `(a, vocabulary)`, in nats, float32: the label's negative log-probability, and the entropy.

    A CPU takes a few rows at a time, which its cache holds. The logits may be overwritten.
    """
    torch = need("torch", "models")
    step = len(logits)
    if logits.device.type == "cpu":
        fitting = max(1, CACHE_BYTES // (4 * logits.shape[1]))
        step = min(AT_ONCE, 1 << (fitting.bit_length() - 1))
    losses, entropies = [], []
    with torch.inference_mode():
        for part, there in zip(logits.split(step), labels.split(step), strict=True):
            x = part.float()
            x -= x.amax(1, keepdim=True)
            likely = torch.softmax(x, 1)
            total = -likely.amax(1).log()  # of the exponentials: the likeliest token's own is 1
            losses.append(total - x.gather(1, there[:, None])[:, 0])
            entropies.append(total - likely.mul_(x).sum(1))
    return torch.cat(losses), torch.cat(entropies)


def refuse_looking_ahead(model: Any, name: str, device: str) -> None:
    """Raise `ModelError` where later tokens change what a model says of earlier ones, as padding would then do."""
    torch = need("torch", "models")
    ids = torch.arange(32, device=device).view(2, 16) % 16 + 1
    ids[1, 8:] += 16
    with torch.inference_mode():
        one, other = model(input_ids=ids, use_cache=False).logits[:, :8].float()
    if not (one - other).abs().max() <= SEES_AHEAD * one.std():
        raise ModelError(
            f"in model {name!r} tokens see later ones, so what it says of an example would depend on padding; "
            "a causal language model is needed"
        )
