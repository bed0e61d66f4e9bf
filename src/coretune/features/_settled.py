"""What the spec of a measurement by a model leaves open, settled: digests, window, precision and size of batches."""

from __future__ import annotations

import re
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
            raise ValueError(f"{name} {getattr(spec, name)!r} asked of {_named(spec)}; known are {words}")
    for name in ("d", "max_tokens", "batch_tokens"):
        if (number := getattr(spec, name, None)) is not None and number < 1:
            raise ValueError(f"{name} {number} asked of {_named(spec)}; give 1 or more")


def _named(spec: Any) -> str:
    """A spec's class in words, with its article."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(spec).__name__).lower()
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
