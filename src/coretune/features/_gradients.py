"""One backward pass for many examples: a frozen model hands each layer's inputs and output gradients, row by row.

The loss of a batch is the sum over its rows of each row's mean over its own answer tokens, so what reaches a layer for
a row is what it would get were the row alone. Weights get no gradients, and nothing is computed below the first layer
that is watched. Only positions that carry loss go through the output layer.

Padding is on the right, where no token of a causal model sees it, and has no loss; so no attention mask is given.
Batches have fixed shapes, and the output layer takes a fixed number of positions at a time: a row's gradient does not
depend on its neighbours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from coretune.errors import ModelError, need
from coretune.features._answers import Answers
from coretune.features._batches import Batch

LOSS_BYTES = {"cpu": 1 << 24, "cuda": 1 << 28}  # of float32 logits that the loss reads at a time; caches hold the first

Watch = Callable[[str, Any, Any], Any]
"""Called in the forward pass with a layer's name, its input `(b, w, in)` and its output `(b, w, out)`; gives the output
on, perhaps changed, through a function that gets the gradient in the backward pass."""


class WatchedModel:
    """A causal language model all of whose weights are frozen, and some of whose layers are watched.

    Several threads may call `backward` at once: each has its own watch. The model must not be used otherwise.
    """

    def __init__(self, model: Any, layers: Iterable[str], device: str, positions: int) -> None:
        self.model, self.device, self.positions = model.requires_grad_(False), device, positions
        self._now = threading.local()
        for name in layers:
            model.get_submodule(name).register_forward_hook(self._hook(name))
        head = model.get_output_embeddings()
        if head is None:
            raise ModelError(f"{type(model).__name__} does not say which is its output layer, so no loss can be taken")
        head.forward = self._some_positions(head.forward)

    def backward(self, batch: Batch, answers: Answers, watch: Watch) -> None:
        """Run a batch forward and backward; `watch` sees every watched layer."""
        torch = need("torch", "models")
        ids, places = (torch.from_numpy(each).to(self.device) for each in (batch.ids, answers.places))
        self._now.watch, self._now.places = watch, places
        try:
            with torch.enable_grad():
                logits = self.model(input_ids=ids, use_cache=False).logits
        finally:
            self._now.watch = self._now.places = None
        if logits.shape[:2] != (1, len(places)):
            raise ModelError(
                f"{type(self.model).__name__} gives logits of shape {tuple(logits.shape)} where its output layer was "
                f"given {len(places)} positions; gradients of such a model cannot be taken here"
            )
        torch.autograd.backward([logits], [_loss_gradient(logits.detach()[0], answers)[None]])

    def _hook(self, name: str) -> Callable[[Any, Any, Any], Any]:
        def hook(module: Any, inputs: Any, output: Any) -> Any:
            watch = getattr(self._now, "watch", None)
            return None if watch is None else watch(name, inputs[0], output)

        return hook

    def _some_positions(self, forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The output layer on the positions that carry loss, as one row; a fixed number of them at a time."""
        torch = need("torch", "models")

        def wrapped(states: Any) -> Any:
            places = getattr(self._now, "places", None)
            if places is None:
                return forward(states)
            chosen = states.reshape(-1, states.shape[-1]).index_select(0, places)
            parts = [forward(part) for part in chosen.split(self.positions)]
            return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]

        return wrapped


def _loss_gradient(logits: Any, answers: Answers) -> Any:
    """The gradient of the weighted sum of cross-entropies by `logits` `(a, vocabulary)`, computed in float32."""
    torch = need("torch", "models")
    gradient = torch.empty_like(logits)
    labels, weights = (torch.from_numpy(each).to(logits.device) for each in (answers.labels, answers.weights))
    step = max(1, LOSS_BYTES.get(logits.device.type, 1 << 28) // (4 * logits.shape[1]))
    for start in range(0, len(logits), step):
        part = slice(start, start + step)
        likely = torch.softmax(logits[part], dim=1, dtype=torch.float32)
        likely.scatter_add_(1, labels[part, None], torch.full_like(likely[:, :1], -1))
        gradient[part] = likely.mul_(weights[part, None])
    return gradient
