"""What a language model would say first when it is asked about a record: probabilities of answers at one position.

Answers are groups of tokens, one for each spelling. Only the position before the answer goes through the output layer,
row by row, and sums over the vocabulary are float64 on the processor: a value depends on its own row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.errors import ModelError, need
from coretune.features._batches import Batch, batches
from coretune.features._causal import Causal
from coretune.features._questions import Asker, asker
from coretune.features._settled import LONGEST
from coretune.features.embedding import CAUSAL_BATCH_TOKENS
from coretune.models import (
    Found,
    best_device,
    best_precision,
    find_model,
    is_seq2seq,
    load_causal_lm,
    load_seq2seq_lm,
    load_tokenizer,
    longest_input,
)
from coretune.pool import Example
from coretune.shapes import Bool, Float

Groups = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Heard:
    """What was said first: `masses` `(n, g + 1)`, the logarithm of each group's sum of exp(logit) and of all others'.

    NaN where nothing was asked. Marks `(n,)`: `empty` records, `truncated` ones, those in which a `special token` was
    spelled, and those where the likeliest token was in no group.
    """

    masses: Float[np.ndarray, "n g1"]
    marks: dict[str, Bool[np.ndarray, " n"]]


@dataclass(frozen=True)
class Listener:
    """A loaded model that says first tokens: `logits(batch)` are `(p, v)` float32, a row for each row that is asked."""

    asker: Asker
    logits: Callable[[Batch], np.ndarray]
    longest: int
    batch_tokens: int

    def hear(self, question: str, examples: Sequence[Example], groups: Groups) -> Heard:
        """Ask one question about every example."""
        asked = self.asker.ask(question, examples, self.longest)
        rows = np.array([row for row, one in enumerate(asked) if one is not None], dtype=np.int64)
        masses = np.full((len(examples), len(groups) + 1), np.nan)
        otherwise = np.zeros(len(examples), dtype=bool)
        pieces = [one.ids for one in asked if one is not None]
        answers = np.array([token for group in groups for token in group], dtype=np.int64)
        for batch in batches(pieces, self.longest, self.batch_tokens, pad=0):
            logits = self.logits(batch)
            masses[rows[batch.pieces]] = log_masses(logits, groups)
            otherwise[rows[batch.pieces]] = ~np.isin(logits.argmax(axis=1), answers)
        marks = {
            "empty": np.array([one is None for one in asked], dtype=bool),
            "truncated": np.array([one is not None and one.cut for one in asked], dtype=bool),
            "special_token_spelled": np.array([one is not None and one.broken for one in asked], dtype=bool),
            "answered_otherwise": otherwise,
        }
        return Heard(masses, marks)


def log_masses(logits: Float[np.ndarray, "p v"], groups: Groups) -> Float[np.ndarray, "p g1"]:
    """Log of the sum of exp(logit) over each group of tokens, and last over all tokens in none, `(p, g + 1)`."""
    rest = np.ones(logits.shape[1], dtype=bool)
    for group in groups:
        rest[list(group)] = False
    columns = [np.array(group, dtype=np.int64) for group in groups] + [np.flatnonzero(rest)]
    masses = np.full((len(logits), len(columns)), -np.inf)
    for number, column in enumerate(columns):
        if len(column):
            part = logits[:, column].astype(np.float64)
            top = part.max(axis=1, keepdims=True)
            masses[:, number] = top[:, 0] + np.log(np.exp(part - top).sum(axis=1))
    return masses


def log_probability(masses: Float[np.ndarray, "n g1"], group: int) -> Float[np.ndarray, " n"]:
    """Log of the softmax over the whole vocabulary, summed over a group; exact near probability 1, too."""
    with np.errstate(invalid="ignore"):  # rows that nothing was asked of
        others = np.logaddexp.reduce(np.delete(masses, group, axis=1), axis=1)
        return np.asarray(-np.logaddexp(0, others - masses[:, group]))


def settled(spec: Any) -> dict[str, Any]:
    """The fields that `resolved` fills. Raises `ModelError` where model or tokenizer are not there."""
    from coretune.chat import tokenizer_digest

    found, device = find_model(spec.model), best_device()
    return {
        "digest": found.digest,
        "tokenizer": tokenizer_digest(asker_of(spec).tokenizer),
        "max_tokens": spec.max_tokens or min(longest_input(found), LONGEST),
        "precision": spec.precision or best_precision(device),
        "batch_tokens": spec.batch_tokens or CAUSAL_BATCH_TOKENS[device],
    }


def asker_of(spec: Any) -> Asker:
    """How a spec's questions are put to its model. Raises `ModelError`."""
    tokenizer, decodes = load_tokenizer(spec.model), is_seq2seq(_writer(spec.model))
    if spec.template is not None:
        if decodes:
            raise ModelError(f"model {spec.model!r} has a decoder of its own and is asked in plain text; no template")
        tokenizer.chat_template = spec.template
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"the tokenizer of {spec.model!r} is a {type(tokenizer).__name__}; it must have tokenizer.json"
        )
    return asker(tokenizer, spec.cue, decodes=decodes)


def listener(spec: Any) -> Listener:
    """The loaded model of a resolved spec. Raises `ModelError` where it is not the one that was resolved."""
    from coretune.chat import tokenizer_digest

    asks, found, device = asker_of(spec), find_model(spec.model), best_device()
    for what, then, now in (
        ("model", spec.digest, found.digest),
        ("tokenizer", spec.tokenizer, tokenizer_digest(asks.tokenizer)),
    ):
        if then != now:
            raise ModelError(f"the {what} of {spec.model} was {then} when the run began and is {now} now; run again")
    load = load_seq2seq_lm if asks.decodes else load_causal_lm
    model = load(spec.model, dtype=spec.precision or "float32", device=device)
    logits = _decoder_logits(model, device) if asks.decodes else _causal_logits(model, spec.model, device)
    return Listener(asks, logits, spec.max_tokens or LONGEST, spec.batch_tokens or 1)


def answer_tokens(spec: Any, questions: Iterable[str], answers: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
    """The tokens of each answer, from its spellings, where they are asked for: those spellings that are one token.

    Raises `ModelError` for an answer of which no spelling is one token, and for two answers with a token in common.
    """
    asks, questions = asker_of(spec), list(questions)
    found: list[tuple[int, ...]] = []
    for spellings in answers:
        tokens = {asks.follows(question, each) for question in questions for each in spellings}
        known = sorted(token for token in tokens if token is not None)
        if not known:
            raise ModelError(
                f"the answer {spellings[0]!r} is not one token of {spec.model!r} after the question, however it is "
                f"written ({', '.join(map(repr, spellings))}); ask for answers in other words"
            )
        for before, others in enumerate(found):
            if shared := set(others) & set(known):
                raise ModelError(
                    f"the answers {answers[before][0]!r} and {spellings[0]!r} share the token "
                    f"{asks.tokenizer.convert_ids_to_tokens(min(shared))!r}; ask for answers that differ"
                )
        found.append(tuple(known))
    return found


def _causal_logits(model: Any, name: str, device: str) -> Callable[[Batch], np.ndarray]:
    """Logits of a causal model after the last token of each row; row by row: few at once may take other kernels."""
    torch = need("torch", "models")
    _compute_head_exactly(model)
    causal = Causal(model, name, device)

    def logits(batch: Batch) -> np.ndarray:
        states = causal.read(batch.ids).last_hidden_state
        last = (batch.mask.sum(axis=1) - 1)[: len(batch.pieces)].tolist()
        rows = [causal.logits(states[row, place][None]) for row, place in enumerate(last)]
        return np.asarray(torch.cat(rows).float().cpu().numpy())

    return logits


def _compute_head_exactly(model: Any) -> None:
    """Let the output layer compute in float32, whatever the rest does: bfloat16 logits come in steps of 1/16 or so."""
    torch = need("torch", "models")
    head = model.get_output_embeddings()
    if isinstance(head, torch.nn.Linear) and head.weight.dtype != torch.float32:
        weight, bias = head.weight.detach().float(), None if head.bias is None else head.bias.detach().float()
        head.forward = lambda states: torch.nn.functional.linear(states.float(), weight, bias)


def _decoder_logits(model: Any, device: str) -> Callable[[Batch], np.ndarray]:
    """Logits at a decoder's first position, where it has read nothing but its start token; row by row, see above."""
    torch = need("torch", "models")
    start = model.config.decoder_start_token_id
    if start is None:
        raise ModelError(f"{type(model).__name__} does not say which token its decoder starts with")
    first = torch.tensor([[start]], device=device)
    _compute_head_exactly(model)

    def logits(batch: Batch) -> np.ndarray:
        with torch.inference_mode():
            ids, mask = (torch.from_numpy(each).to(device) for each in (batch.ids, batch.mask.astype(np.int64)))
            states = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
            rows = [
                model(
                    encoder_outputs=(states[row : row + 1],),
                    attention_mask=mask[row : row + 1],
                    decoder_input_ids=first,
                    use_cache=False,
                ).logits[0]
                for row in range(len(batch.pieces))
            ]
            return np.asarray(torch.cat(rows).float().cpu().numpy())

    return logits


def _writer(name: str) -> Found:
    """The model of this name. Raises `ModelError` where it is none that writes."""
    found = find_model(name)
    if found.kind != "causal-lm" and not is_seq2seq(found):
        raise ModelError(f"model {name!r} is a {found.kind}; a language model that can answer is needed")
    return found
