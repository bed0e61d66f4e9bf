"""Conversations as a model is tuned on them: token ids, and the mask of the tokens that are answers.

The text is the tokenizer's own chat template (`chat_spans.py` finds the answers in it), tokenized once and whole, with
nothing added: a beginning-of-sequence token is there where the template writes one, and once. A token is an answer
token if it holds at least one character of an answer, so no character of an answer is ever left out of the loss; a
token that straddles a boundary (an emoji whose bytes are merged with the line break before it) counts as answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.chat_spans import NOTES, Rendered, render
from coretune.chat_template import KINDS, PLAIN, Refused, read_template, template_of
from coretune.errors import ModelError
from coretune.pool import Example, Message
from coretune.shapes import Bool, Int32

__all__ = [
    "KINDS", "NOTES", "PLAIN", "Encoded", "Refused", "TokenCounts", "chat_tokenizer", "count_tokens", "encode",
    "read_template", "tokenizer_digest",
]  # fmt: skip

BATCH = 512  # conversations tokenized at once


@dataclass(frozen=True)
class Encoded:
    """A conversation in tokens. Loss is taken where `answer_mask` is true.

    `cut_context` and `cut_answer` count tokens that did not fit into `max_tokens`; `notes` are of `chat_spans.NOTES`;
    `stopped` says of each answer whether a stop token ends it.
    """

    ids: Int32[np.ndarray, " t"]
    answer_mask: Bool[np.ndarray, " t"]
    cut_context: int
    cut_answer: int
    notes: tuple[str, ...]
    stopped: tuple[bool, ...]


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of some conversations: `total` and `answer`, `(m,)`, 0 where `refused` says why there are none."""

    total: Int32[np.ndarray, " m"]
    answer: Int32[np.ndarray, " m"]
    refused: Mapping[int, Refused]
    notes: Mapping[str, Bool[np.ndarray, " m"]]
    unstopped: Bool[np.ndarray, " m"]


def chat_tokenizer(model: str, template: str | None = None) -> Any:
    """The tokenizer of a model, sure to be able to write a conversation and to find the answers in it.

    `template` is Jinja text used in place of the tokenizer's own, such as `PLAIN` for base models. Raises `ModelError`,
    naming the model, where there is no tokenizer, no template, or none that shows a prompt and its answer.
    """
    from coretune.models import load_tokenizer

    tokenizer = load_tokenizer(model)
    if template is not None:
        tokenizer.chat_template = template
    try:
        _need_offsets(tokenizer)
        template_of(tokenizer)
    except ModelError as error:
        raise ModelError(f"model {model!r}: {error}") from error
    return tokenizer


def encode(
    tokenizer: Any, messages: Sequence[Message], *, tools: str | None = None, max_tokens: int | None = None
) -> Encoded:
    """Token ids of a conversation and the mask of its answer tokens; every assistant turn is an answer.

    Above `max_tokens` context goes, the answers stay: first what follows the last answer, then the oldest tokens of the
    prompts; the cues that open the answers only after those, and the head (BOS, system turn, the first user header)
    last. Where the answers alone are too long nothing else is left and their end is cut: `cut_answer` counts it.

    Raises `Refused` (a `ModelError`) where the chat template refuses or misrepresents the conversation or an answer's
    place is not certain, `ModelError` where the tokenizer has no template or no offsets, `ValueError` for a limit < 1.
    """
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; give at least 1, or None for no limit")
    rendered = render(tokenizer, messages, tools)
    ids, spans = next(_tokenized(tokenizer, [rendered.text]))
    mask = _mask(spans, rendered)
    keep = np.ones(len(ids), dtype=bool)
    if max_tokens is not None and len(ids) > max_tokens:
        keep = _fitting(spans, mask, rendered, max_tokens)
    cut = ~keep
    return Encoded(
        ids=ids[keep],
        answer_mask=mask[keep],
        cut_context=int((cut & ~mask).sum()),
        cut_answer=int((cut & mask).sum()),
        notes=rendered.notes,
        stopped=rendered.stopped,
    )


def count_tokens(tokenizer: Any, examples: Sequence[Example]) -> TokenCounts:
    """Tokens and answer tokens of each example, as `encode` without a limit has them, in batches.

    Raises `ModelError` where the tokenizer has no template or no offsets; a conversation that is refused is told in
    `refused`, by its place.
    """
    total, answer = np.zeros((2, len(examples)), dtype=np.int32)
    notes = {note: np.zeros(len(examples), dtype=bool) for note in NOTES}
    unstopped = np.zeros(len(examples), dtype=bool)
    refused: dict[int, Refused] = {}
    for start in range(0, len(examples), BATCH):
        written: dict[int, Rendered] = {}
        for place, example in enumerate(examples[start : start + BATCH], start):
            try:
                written[place] = render(tokenizer, example.messages, example.tools)
            except Refused as error:
                refused[place] = error
        texts = [rendered.text for rendered in written.values()]
        for (place, rendered), (ids, spans) in zip(written.items(), _tokenized(tokenizer, texts), strict=True):
            try:
                answer[place] = _mask(spans, rendered).sum()
            except Refused as error:
                refused[place] = error
                continue
            total[place], unstopped[place] = len(ids), not all(rendered.stopped)
            for note in rendered.notes:
                notes[note][place] = True
    return TokenCounts(total, answer, refused, notes, unstopped)


def tokenizer_digest(tokenizer: Any) -> str:
    """Content hash of what turns a conversation into tokens: vocabulary, rules, special tokens and chat template."""
    _need_offsets(tokenizer)
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    rules = {key: value for key, value in rules.items() if key not in ("truncation", "padding")}  # state, not rules
    said = [rules, tokenizer.chat_template, {name: str(token) for name, token in tokenizer.special_tokens_map.items()}]
    text = json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _tokenized(tokenizer: Any, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids `(t,)` and character spans `(t, 2)` of each text, special tokens only where the text has them."""
    _need_offsets(tokenizer)
    if not texts:
        return
    batch = tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    for encoding in batch.encodings:
        yield np.array(encoding.ids, dtype=np.int32), np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)


def _need_offsets(tokenizer: Any) -> None:
    """Raise `ModelError` unless the tokenizer tells which characters each token stands for."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"the tokenizer is a {type(tokenizer).__name__}, which does not say which characters its tokens stand for, "
            "so answers cannot be told from prompts; use a model that has a tokenizer.json"
        )


def _owners(spans: np.ndarray, stretches: Sequence[tuple[int, int]]) -> np.ndarray:
    """Which stretch of the text each token holds a character of, -1 for none; stretches are disjoint and in order.

    Tokenizers that trim white space off offsets give a token of spaces an empty span at its end: it is where it ends.
    """
    starts, ends = np.array(stretches, dtype=np.int64).reshape(-1, 2).T
    nearest = (
        np.searchsorted(starts, spans[:, 1], side="left") - 1
    )  # the last stretch that starts before the token ends
    until = ends[np.maximum(nearest, 0)]
    empty = spans[:, 0] == spans[:, 1]
    return np.where(np.where(empty, spans[:, 1] <= until, spans[:, 0] < until), nearest, -1)


def _mask(spans: np.ndarray, rendered: Rendered) -> Bool[np.ndarray, " t"]:
    """Which tokens are answer. Raises `Refused` for an answer that has characters but no tokens."""
    owners = _owners(spans, rendered.answers)
    without = set(range(len(rendered.answers))) - set(owners.tolist())
    for each in sorted(without):
        start, end = rendered.answers[each]
        if end > start:
            raise Refused("unclear", f"the tokenizer gives no token for the answer {rendered.text[start:end]!r:.80}")
    mask: np.ndarray = owners >= 0
    return mask


def _fitting(spans: np.ndarray, mask: np.ndarray, rendered: Rendered, most: int) -> Bool[np.ndarray, " t"]:
    """Which tokens stay where only `most` may, in the order that `encode` states."""
    answers = np.flatnonzero(mask)
    if len(answers) >= most:
        keep = np.zeros(len(mask), dtype=bool)
        keep[answers[:most]] = True
        return keep
    cues = [(start - len(rendered.cue), start) for start, _ in rendered.answers]
    cues = [(start, end) for start, end in cues if rendered.cue and rendered.text[start:end] == rendered.cue]
    places = np.arange(len(mask))
    rank = np.ones(len(mask), dtype=np.int64)
    if cues:
        rank[_owners(spans, cues) >= 0] = 2
    rank[spans[:, 1] <= rendered.kept] = 3
    rank[0] = 3 if rendered.kept or _is_first(rendered) else rank[0]
    rank[places > answers[-1]] = 0
    rank[mask] = 4
    order = np.lexsort((np.where(rank == 0, -places, places), rank))
    keep = np.ones(len(mask), dtype=bool)
    keep[order[: len(mask) - most]] = False
    return keep


def _is_first(rendered: Rendered) -> bool:
    """Whether the text opens with the beginning-of-sequence token."""
    bos = rendered.chat.tokenizer.bos_token
    return bool(bos) and rendered.text.startswith(bos)
