"""One vector an example: by a sentence encoder, or the pooled last hidden states of a causal language model."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import numpy as np

from coretune.errors import ModelError
from coretune.features import Measure, Measured, place
from coretune.features._batches import batches, chunk_sizes
from coretune.features._encoders import Encoder, causal_encoder, sentence_encoder
from coretune.features._texts import TEXTS
from coretune.models import Found, best_device, default_prompt, find_model, longest_input
from coretune.pool import Example
from coretune.shapes import Float32, Int64

BATCH_TOKENS = {"cpu": 1024, "mps": 4096, "cuda": 8192}
CAUSAL_BATCH_TOKENS = {**BATCH_TOKENS, "cpu": 512}  # larger models: as fast in small batches, which waste less


@dataclass(frozen=True)
class Embedding:
    """Embeddings `(n, d)` float32, of unit length unless `normalize` is off; NaN where the text is empty.

    A value depends on its own text alone, to the last bit on one kind of hardware: batches have fixed shapes. Padding
    is never part of a mean. Marks: `empty`, and `in_chunks` or `truncated` for texts longer than the window.
    """

    version: ClassVar[int] = 1

    model: str = field(default="minilm", metadata=place())
    """The encoder: a hub id, a folder, `minilm`, or any causal language model."""
    text: Literal["conversation", "prompt", "answer"] = "conversation"
    """What is read: all turns, all before the last answer, or the last answer; turns are joined by an empty line."""
    pooling: Literal["mean", "last", "weighted"] | None = None
    """Token states to one vector; none is the encoder's own, and the mean for models that have none of their own."""
    long: Literal["chunks", "cut"] = "chunks"
    """Texts longer than the window: the mean over the fewest chunks, of nearly equal length, or the beginning alone."""
    normalize: bool = True
    """Scale to unit length. Encoders whose own pooling does so give unit vectors for texts in one piece in any case."""
    prefix: str | None = None
    """Words before every text; none is what the encoder itself puts there (its default prompt), if anything."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the transformer computes in; none is bfloat16 where the hardware is fast in it and the vectors agree."""
    max_tokens: int | None = None
    """The window in tokens, special tokens counted; none is the model's."""
    batch_tokens: int | None = None
    """About how many tokens a batch has; none is what suits the hardware."""
    remote_code: bool = False
    """Let code that comes with the model run."""
    digest: str | None = None
    """Content hash of weights, tokenizer and configuration; `resolved` finds it."""
    path: str | None = field(default=None, metadata=place())
    """Where the model lies; `resolved` finds it."""

    @property
    def shard_rows(self) -> int:
        """Rows between two writes: enough that few batches are part-filled, few enough to show progress often."""
        return max(512, (self.batch_tokens or 0) // 2)

    def __post_init__(self) -> None:
        """Refuse words and numbers that mean nothing."""
        for name, known in (
            ("text", tuple(TEXTS)),
            ("pooling", ("mean", "last", "weighted", None)),
            ("long", ("chunks", "cut")),
            ("precision", ("float32", "bfloat16", None)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} asked of an embedding; known are {known}")
        for name in ("max_tokens", "batch_tokens"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ValueError(f"{name} {number} asked of an embedding; give 1 or more")

    def resolved(self) -> Self:
        """The same with model, pooling, window, precision and batches settled. Raises `ModelError`."""
        from coretune.features._precision import agreeing_precision

        if self.digest is not None:
            return self
        found, device = find_model(self.model), best_device()
        causal = found.kind == "causal-lm"
        open_precision = replace(
            self,
            digest=found.digest,
            path=str(found.path),
            pooling=self.pooling or (None if found.kind == "sentence-encoder" else "mean"),
            prefix=default_prompt(found) if self.prefix is None else self.prefix,
            max_tokens=_window(found, self.max_tokens),
            batch_tokens=self.batch_tokens or (CAUSAL_BATCH_TOKENS if causal else BATCH_TOKENS)[device],
        )
        if self.precision is not None:
            return open_precision
        return replace(open_precision, precision=agreeing_precision(open_precision, device))

    def load(self) -> Measure:
        """Load the model. Raises `ModelError` where it is not the one that was resolved, or cannot be loaded."""
        spec = self.resolved()
        encoder = load_into(spec, best_device())
        read, room = TEXTS[spec.text], room_for(spec, encoder)

        def measure(examples: Sequence[Example]) -> Measured:
            return embed(spec, encoder, room, [read(example) for example in examples])

        return measure


def load_into(spec: Embedding, device: str) -> Encoder:
    """The encoder of a resolved spec on a device. Raises `ModelError` where the model has changed since."""
    name = spec.path or spec.model
    found = find_model(name)
    if found.digest != spec.digest:
        raise ModelError(
            f"the model {spec.model} in {found.path} was {spec.digest} when the run began and is {found.digest} now; "
            "run again to embed with the new one"
        )
    dtype, prefix = spec.precision or "float32", spec.prefix or ""
    if found.kind == "causal-lm":
        pooling = spec.pooling or "mean"
        return causal_encoder(name, pooling, prefix=prefix, dtype=dtype, device=device, remote_code=spec.remote_code)
    return sentence_encoder(name, spec.pooling, prefix=prefix, dtype=dtype, device=device, remote_code=spec.remote_code)


def room_for(spec: Embedding, encoder: Encoder) -> int:
    """How many tokens of a text go into one piece. Raises `ModelError` where special tokens and prefix leave none."""
    around = len(encoder.head) + len(encoder.tail)
    if spec.max_tokens is None or spec.max_tokens <= around:
        raise ModelError(f"a window of {spec.max_tokens} tokens is too short: {around} go to special tokens and prefix")
    return spec.max_tokens - around


def embed(spec: Embedding, encoder: Encoder, room: int, texts: Sequence[str]) -> Measured:
    """Vectors and marks of texts: tokens, pieces, batches, vectors of pieces, vectors of texts."""
    tokens = encoder.tokenise(texts)
    pieces, ends = pieces_of(tokens, encoder, room, cut=spec.long == "cut")
    vectors = np.empty((len(pieces), encoder.width), dtype=np.float32)
    for batch in batches(pieces, spec.max_tokens or room, spec.batch_tokens or BATCH_TOKENS["cpu"], encoder.pad):
        vectors[batch.pieces] = encoder.encode(batch)[: len(batch.pieces)]
    values = _mean_by_row(vectors, ends)
    if spec.normalize:
        with np.errstate(invalid="ignore", divide="ignore"):
            values /= np.linalg.norm(values, axis=1, keepdims=True)
    lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
    longer = "truncated" if spec.long == "cut" else "in_chunks"
    return Measured(values, {"empty": lengths == 0, longer: lengths > room})


def pieces_of(
    tokens: Sequence[Sequence[int]], encoder: Encoder, room: int, *, cut: bool
) -> tuple[list[list[int]], Int64[np.ndarray, " n"]]:
    """Texts in pieces of at most `room` tokens with special tokens around; row i's end before `ends[i]`."""
    pieces: list[list[int]] = []
    ends = np.zeros(len(tokens), dtype=np.int64)
    for row, ids in enumerate(tokens):
        start = 0
        for size in chunk_sizes(min(len(ids), room) if cut else len(ids), room):
            pieces.append([*encoder.head, *ids[start : start + size], *encoder.tail])
            start += size
        ends[row] = len(pieces)
    return pieces, ends


def _mean_by_row(vectors: Float32[np.ndarray, "p d"], ends: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
    """The mean of each row's pieces, which lie one after the other; NaN for a row without any."""
    starts = np.concatenate([[0], ends[:-1]])
    values = np.full((len(ends), vectors.shape[1]), np.nan, dtype=np.float32)
    single = ends - starts == 1
    values[single] = vectors[starts[single]]
    for row in np.flatnonzero(ends - starts > 1):
        values[row] = vectors[starts[row] : ends[row]].mean(axis=0, dtype=np.float64)
    return values


def _window(found: Found, asked: int | None) -> int:
    """The window: the model's, or a shorter one that is asked. Raises `ValueError` for a longer one."""
    if asked is None:
        return longest_input(found)
    with contextlib.suppress(ModelError):  # some models do not say
        if asked > (most := longest_input(found)):
            raise ValueError(f"max_tokens {asked} asked, but {found.name} takes {most} tokens at once")
    return asked
