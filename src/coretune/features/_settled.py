"""What a gradient's spec leaves open, settled: digests, the window, the precision and the size of batches."""

from __future__ import annotations

from typing import Any

from coretune.models import best_device, best_precision, find_model, longest_input

BATCH_TOKENS = {"cpu": 256, "mps": 2048, "cuda": 4096}  # on CPUs as fast as more, and fewer dummies fill batches
LONGEST = 2048  # tokens of a conversation unless told otherwise, as in LESS and TAGCOS


def settled(spec: Any) -> dict[str, Any]:
    """The fields that `resolved` fills. Raises `ModelError` where model, tokenizer or template are not there."""
    from coretune.chat import chat_tokenizer, tokenizer_digest

    found, device = find_model(spec.model), best_device()
    return {
        "digest": found.digest,
        "tokenizer": tokenizer_digest(chat_tokenizer(spec.model, spec.template)),
        "max_tokens": spec.max_tokens or min(longest_input(found), LONGEST),
        "precision": spec.precision or best_precision(device),
        "batch_tokens": spec.batch_tokens or BATCH_TOKENS[device],
    }


def refuse_odd(spec: Any, **known: tuple[str | None, ...]) -> None:
    """Raise `ValueError` for words that are not among the known ones, and for numbers below 1."""
    for name, words in {"precision": ("float32", "bfloat16", None), **known}.items():
        if getattr(spec, name) not in words:
            raise ValueError(f"{name} {getattr(spec, name)!r} asked of a gradient; known are {words}")
    for name in ("d", "max_tokens", "batch_tokens"):
        if (number := getattr(spec, name)) is not None and number < 1:
            raise ValueError(f"{name} {number} asked of a gradient; give 1 or more")
