"""What a training step says by itself: the loss of each of its rows, and its gradient."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from coretune.errors import CoretuneError, need
from coretune.integrations._loader import NOTHING
from coretune.orders import Gradient

LAYER = re.compile(r"\.(\d+)\.")


def row_losses(output: Any, labels: Any) -> Any:
    """Mean negative log-likelihood of each row's learned tokens `(b,)`, float32, NaN for a row without any.

    `output` is what the model gave in training: log-probabilities of the labels (the fused head of TRL), or logits
    `(b, t, vocabulary)`; `labels` `(b, t)`, -100 where nothing is learned. Raises `CoretuneError` where it is neither.
    """
    torch = need("torch", "models")
    with torch.no_grad():
        log_probs, logits = getattr(output, "log_probs", None), getattr(output, "logits", None)
        if log_probs is not None:  # zero where nothing is learned
            return -log_probs.float().sum(1) / output.label_mask.sum(1)
        if logits is None or logits.shape[:2] != labels.shape:
            found = "none" if logits is None else f"logits of shape {tuple(logits.shape)}"
            raise CoretuneError(
                f"losses of rows are read from the logits of the training's forward pass, for labels of shape "
                f"{tuple(labels.shape)}; found {found}. Turn off losses fused into the model (liger: "
                "liger_kernel_config={'fused_linear_cross_entropy': False}), or use trl.SFTTrainer"
            )
        learned = labels.to(logits.device)[:, 1:]
        means = [_mean_loss(torch, each[:-1], mine) for each, mine in zip(logits, learned, strict=True)]
        return torch.stack(means)


def _mean_loss(torch: Any, logits: Any, labels: Any) -> Any:
    """The mean loss of one row, over the places that are learned alone: a row at a time, since logits are large."""
    places = labels != NOTHING
    return torch.nn.functional.cross_entropy(logits[places].float(), labels[places])


def gradient_of(trainer: Any, watched: list[Any]) -> Gradient:
    """The gradient of the step that has just gone backward, before it is clipped. `watched`: see `last_layer`."""
    torch = need("torch", "models")
    gradients = [each.grad for each in trainer.model.parameters() if each.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients)).double()
    parts = [torch.zeros_like(each) if each.grad is None else each.grad for each in watched]
    vector = torch.cat([part.detach().flatten().float() for part in parts])
    if trainer.args.world_size > 1:  # to the last bit the same for all, or their choosers would part
        for each in (norms, vector):
            torch.distributed.broadcast(each, src=0)
    return Gradient(
        squared_norm=float((norms**2).sum()),
        vector=vector.cpu().numpy().astype(np.float32, copy=False),
        learning_rate=float(trainer.optimizer.param_groups[0]["lr"]),
    )


def last_layer(model: Any) -> list[Any]:
    """The parameters whose gradient stands for the direction of a step: the LoRA factors of the last adapted layer.

    Where a model is tuned whole it is the last matrix that is trained in the layer of the highest number, so that the
    vector stays small. Raises `ValueError` where nothing is trained.
    """
    trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad and each.ndim > 1]
    if not trained:
        raise ValueError("an order that looks at gradients asked of a model in which no matrix is trained")
    factors = [(name, each) for name, each in trained if "lora_" in name]
    among = factors or trained
    last = max(_layer(name) for name, _ in among)
    chosen = [each for name, each in among if _layer(name) == last]
    return chosen if factors else chosen[-1:]


def _layer(name: str) -> int:
    """The number of the layer that a parameter is in, -1 outside of all."""
    found = LAYER.search(name)
    return int(found.group(1)) if found else -1
