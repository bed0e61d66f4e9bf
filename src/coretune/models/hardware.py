"""What this machine computes on, and in which precision it is fast."""

from __future__ import annotations

from typing import Literal

from coretune.errors import need

Precision = Literal["float32", "bfloat16"]


def best_device() -> str:
    """`cuda`, `mps` or `cpu`: the first that there is. Raises `MissingExtra` without torch."""
    torch = need("torch", "models")
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def best_precision(device: str) -> Precision:
    """`bfloat16` where the hardware computes in it (CPUs: AMX or AVX-512-BF16), else `float32`."""
    torch = need("torch", "models")
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device == "cpu":
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    else:
        native = False
    return "bfloat16" if native else "float32"
