"""Small LoRA adapters with random factors, and optimizer states for them, saved as a tuning saves them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj")


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without the warnings that PEFT gives about its own use of transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def adapter_folder(folder: Path, model: Path, *, rank: int = 3, seed: int = 0, **more: Any) -> Path:
    """An adapter of a causal model in PEFT's format, both factors random."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    from tests.made_models import no_bars

    config = {"r": rank, "lora_alpha": 2 * rank, "target_modules": list(TARGETS), **more}
    with quiet_peft(), no_bars():
        base = AutoModelForCausalLM.from_pretrained(model)
        tuned = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **config))
        generator = torch.Generator().manual_seed(seed)
        for name, weight in tuned.named_parameters():
            if "lora_" in name:
                weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
        tuned.save_pretrained(folder)
    return folder


def optimizer_file(adapter: Path, *, seed: int = 0, size: float = 1e-2, step: int = 3) -> dict[str, Any]:
    """An optimizer state beside an adapter, first moments of about `size`; also given back, by tensor name."""
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, weight in load_file(adapter / "adapter_model.safetensors").items():
        state[f"exp_avg.{name}"] = size * torch.randn(weight.shape, generator=generator)
        state[f"exp_avg_sq.{name}"] = (size * torch.randn(weight.shape, generator=generator)) ** 2
    said = {"step": str(step), "beta1": "0.9", "beta2": "0.999", "eps": "1e-08"}
    save_file(state, adapter / "optimizer.safetensors", metadata=said)
    return state
