"""Encoders: token ids in batches -> one float32 vector a row, by sentence encoders and causal language models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.errors import ModelError, need
from coretune.features._batches import Batch
from coretune.models import load_causal_lm, load_encoder, load_tokenizer
from coretune.shapes import Float32


@dataclass(frozen=True)
class Encoder:
    """A loaded model: `tokenise` texts, put `head` and `tail` around pieces of them, `encode` batches of pieces.

    Words that go before every text (an encoder's prompt) are tokenised with it; their tokens are in `head`.
    """

    tokenise: Callable[[Sequence[str]], list[list[int]]]
    head: list[int]
    tail: list[int]
    pad: int
    width: int
    encode: Callable[[Batch], Float32[np.ndarray, "b d"]]


def sentence_encoder(
    name: str, pooling: str | None, *, prefix: str, dtype: str, device: str, remote_code: bool
) -> Encoder:
    """A sentence-transformers model; `pooling` None is its own, with all that follows (projections, normalising)."""
    torch = need("torch", "models")
    model = load_encoder(name, dtype=dtype, device=device, remote_code=remote_code)
    first, rest = model[0], list(model)[1:]
    if getattr(first, "tokenizer", None) is None or not hasattr(first, "auto_model"):
        raise ModelError(f"model {name!r} begins with a {type(first).__name__}; it must begin with a Transformer")
    pool = None if pooling is None else POOLINGS[pooling]
    text = _text(first.tokenizer, prefix)

    def encode(batch: Batch) -> np.ndarray:
        with torch.inference_mode():
            mask = torch.from_numpy(batch.mask).to(device)
            features = {"input_ids": torch.from_numpy(batch.ids).to(device), "attention_mask": mask.long()}
            features = first(features)
            features["token_embeddings"] = features["token_embeddings"].float()
            if pool is not None:
                return _array(pool(features["token_embeddings"], mask))
            if prefix:
                features["prompt_length"] = len(text.head)  # for encoders that leave it out of their mean
            for module in rest:
                alone = "sentence_embedding" in features and next(module.parameters(), None) is not None
                features = _row_by_row(module, features) if alone else module(features)
            return _array(features["sentence_embedding"])

    width = model.get_embedding_dimension() if pool is None else first.get_embedding_dimension()
    return Encoder(text.tokenise, text.head, text.tail, text.pad, width, encode)


def causal_encoder(name: str, pooling: str, *, prefix: str, dtype: str, device: str, remote_code: bool) -> Encoder:
    """The last hidden states of a causal language model, pooled.

    Padding is on the right, where no token sees it, so no attention mask is given: with one, the kernel that is taken,
    and so the last bits, would depend on whether any row of the batch is padded.
    """
    torch = need("torch", "models")
    model = load_causal_lm(name, dtype=dtype, device=device, remote_code=remote_code)
    body, pool = model.base_model, POOLINGS[pooling]

    def encode(batch: Batch) -> np.ndarray:
        with torch.inference_mode():
            ids = torch.from_numpy(batch.ids).to(device)
            states = body(input_ids=ids, use_cache=False).last_hidden_state
            return _array(pool(states.float(), torch.from_numpy(batch.mask).to(device)))

    text = _text(load_tokenizer(name, remote_code=remote_code), prefix)
    width = model.config.get_text_config().hidden_size
    return Encoder(text.tokenise, text.head, text.tail, text.pad, width, encode)


def _row_by_row(module: Any, features: dict[str, Any]) -> dict[str, Any]:
    """A projection of pooled vectors, one at a time: for few rows, threads take their rows by different kernels."""
    torch = need("torch", "models")
    rows = [
        module({"sentence_embedding": row})["sentence_embedding"] for row in features["sentence_embedding"].split(1)
    ]
    return {**features, "sentence_embedding": torch.cat(rows)}


@dataclass(frozen=True)
class _Text:
    """How texts become tokens: see `Encoder`."""

    tokenise: Callable[[Sequence[str]], list[list[int]]]
    head: list[int]
    tail: list[int]
    pad: int


def _text(tokenizer: Any, prefix: str) -> _Text:
    """Texts to ids, uncut; `prefix` is tokenised together with each text, and its tokens become part of the head."""
    plain = _tokeniser(tokenizer)
    head, tail = around(tokenizer)
    (before,) = plain([prefix.rstrip()])
    pad = tokenizer.pad_token_id

    def tokenise(texts: Sequence[str]) -> list[list[int]]:
        found = plain([prefix + text for text in texts])
        apart = [row for row, ids in enumerate(found) if ids[: len(before)] != before]  # a token across the border
        for row, ids in zip(apart, plain([texts[row] for row in apart]), strict=True):
            found[row] = before + ids
        return [ids[len(before) :] for ids in found]

    return _Text(tokenise, head + before, tail, 0 if pad is None else pad)


def _tokeniser(tokenizer: Any) -> Callable[[Sequence[str]], list[list[int]]]:
    """Texts -> token ids without special tokens, uncut. The tokenizer is not changed by it, so threads may share it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda texts: [tokenizer.encode(text, add_special_tokens=False, verbose=False) for text in texts]
    backend.no_truncation()
    backend.no_padding()
    return lambda texts: [each.ids for each in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text."""
    bare = tokenizer.encode("a", add_special_tokens=False)
    full = tokenizer.encode("a")
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise ModelError(f"the tokenizer of {tokenizer.name_or_path} does not put its special tokens around a text")


def _array(vectors: Any) -> np.ndarray:
    return np.asarray(vectors.float().cpu().numpy())


def _mean(states: Any, mask: Any) -> Any:
    """Mean over tokens `(b, w, d)`, `(b, w)` -> `(b, d)`."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def _last(states: Any, mask: Any) -> Any:
    """The state of the last token."""
    torch = need("torch", "models")
    rows = torch.arange(len(states), device=states.device)
    return states[rows, mask.sum(1) - 1]


def _weighted(states: Any, mask: Any) -> Any:
    """Mean with weight i / (1 + ... + l) for the i-th of l tokens, from 1 (SGPT, arXiv 2202.08904)."""
    places = mask.cumsum(1) * mask
    weights = (places / places.sum(1, keepdim=True)).unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1)


POOLINGS: dict[str, Callable[[Any, Any], Any]] = {"mean": _mean, "last": _last, "weighted": _weighted}
