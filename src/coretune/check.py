"""What to know of a pool before anything is spent: counts, rejects, lengths, copies, and the masks a model gets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coretune.check_report import CheckReport, ModelCheck, Reason, Spread, Stretch
from coretune.errors import ModelError
from coretune.pool import Example, Pool
from coretune.scripts_of_text import JAPANESE, SCRIPTS
from coretune.shapes import Int64

Progress = Callable[[str, int, int | None], None]

BLOCK = 4096  # rows tokenized between two reports of progress
FIRST = 3  # places named for each reason
PLACE_CHARACTERS = 200
UNSAID = 1 << 30  # tokenizers that know no limit state a larger one


def check(
    pool: Pool, *, model: str | None = None, template: str | None = None, progress: Progress | None = None
) -> CheckReport:
    """Look at every row of a pool; with a `model` (a name as everywhere), also at what its tokenizer makes of it.

    `template` is Jinja text in place of the model's own chat template. No weights are loaded. Raises `ModelError` where
    the model has no usable tokenizer or chat template.
    """
    said = _said(pool)
    return CheckReport(
        inputs=pool.inputs,
        rows=len(pool),
        rejected=pool.rejected.num_rows,
        rejects=_rejects(pool.rejected),
        formats=pool.formats,
        sources=_counted(pool, "source"),
        languages={_language(name): count for name, count in _counted(pool, "lang").items()},
        columns=tuple(name for name in pool.fields if name not in ("id", "file", "line", "source", "lang")),
        duplicates=int((pool.duplicate_of >= 0).sum()),
        turns=_turns(pool, said),
        prompt=Spread.of(said["prompt"]),
        answer=Spread.of(said["answer"]),
        raw_bytes=_raw_bytes(pool),
        model=None if model is None else _with_model(pool, said["assistant"], model, template, progress),
    )


def _said(pool: Pool) -> dict[str, Int64[np.ndarray, " n"]]:
    """Of every row: characters of its prompts and of its answers, and how many turns it has of each role."""
    parts: dict[str, list[np.ndarray]] = {}
    for chunk in pool.take(("messages",)).column(0).chunks:
        turns, cuts = chunk.flatten(), np.asarray(chunk.offsets)
        cuts = cuts - cuts[0]
        roles, texts = turns.field("role"), turns.field("content")
        characters = np.asarray(pc.fill_null(pc.utf8_length(texts), 0), dtype=np.int64)
        answers = np.asarray(pc.equal(roles, "assistant"), dtype=bool)
        counted = {"prompt": characters * ~answers, "answer": characters * answers, "assistant": answers}
        counted |= {role: np.asarray(pc.equal(roles, role), dtype=bool) for role in ("system", "developer", "tool")}
        for name, values in counted.items():
            sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
            parts.setdefault(name, []).append(sums[cuts[1:]] - sums[cuts[:-1]])
    names = ("prompt", "answer", "assistant", "system", "developer", "tool")
    return {name: np.concatenate(parts.get(name, [np.empty(0, dtype=np.int64)])) for name in names}


def _turns(pool: Pool, said: dict[str, np.ndarray]) -> dict[str, int]:
    """How many rows have several answers, system turns, tool results and tool definitions."""
    found = {
        "one answer": said["assistant"] == 1,
        "several answers": said["assistant"] > 1,
        "with a system turn": said["system"] + said["developer"] > 0,
        "with tool results": said["tool"] > 0,
        "with tool definitions": np.asarray(pc.is_valid(pool.take(("tools",)).column(0))),
    }
    return {name: int(rows.sum()) for name, rows in found.items() if rows.any()}


def _raw_bytes(pool: Pool) -> int:
    return int(pc.sum(pc.binary_length(pool.take(("raw",)).column(0))).as_py() or 0)


def _counted(pool: Pool, name: str) -> dict[str, int]:
    """How many rows have each value of a column; `not said` for those with none."""
    values = pc.value_counts(pool.take((name,)).column(0)).to_pylist()
    return {each["values"] or "not said": int(each["counts"]) for each in values}


def _language(name: str) -> str:
    """A language as the data say it, or a script that stands for one, labelled as such."""
    return f"{name} script" if name in SCRIPTS or name == JAPANESE else name


def _rejects(rejected: pa.Table) -> tuple[Reason, ...]:
    """Rejected records by the kind of reason, most frequent first, with the first places of each."""
    found = rejected.select(["file", "line", "reason"]).to_pylist()
    places = ((each["reason"].partition(":")[0], f"{each['file']}:{each['line']}: {each['reason']}") for each in found)
    return _grouped(places)


def _grouped(places: Iterable[tuple[str, str]]) -> tuple[Reason, ...]:
    """Places by name, names by how many they are."""
    counts: Counter[str] = Counter()
    first: dict[str, list[str]] = {}
    for name, place in places:
        counts[name] += 1
        if len(first.setdefault(name, [])) < FIRST:
            first[name].append(place[:PLACE_CHARACTERS])
    return tuple(Reason(name, count, tuple(first[name])) for name, count in counts.most_common())


def _with_model(
    pool: Pool, answers: Int64[np.ndarray, " n"], model: str, template: str | None, progress: Progress | None
) -> ModelCheck:
    """Tokens of every row (of `answers` assistant turns) under the model's template, and one row with its mask."""
    from coretune.chat import KINDS, NOTES, chat_tokenizer, count_tokens

    tokenizer = chat_tokenizer(model, template)
    context = _context(tokenizer, model)
    total, answer = np.zeros((2, len(pool)), dtype=np.int64)
    notes, refused = dict.fromkeys(NOTES, 0), []
    unstopped = markers = 0
    special = _special(tokenizer)
    for start in range(0, len(pool), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(pool)))
        examples = pool.examples(rows)
        counts = count_tokens(tokenizer, examples)
        total[rows], answer[rows] = counts.total, counts.answer
        notes = {note: before + int(counts.notes[note].sum()) for note, before in notes.items()}
        unstopped += int(counts.unstopped.sum())
        markers += sum(_has(special, example) for example in examples)
        refused += [(KINDS[e.kind], f"row {start + i}, {examples[i].id}: {e}") for i, e in counts.refused.items()]
        if progress:
            progress("count tokens", int(rows[-1]) + 1, len(pool))
    taken = total > 0
    shown_id, bos, shown = _shown(pool, tokenizer, total, answers)
    return ModelCheck(
        model=model,
        tokens=Spread.of(total[taken]),
        prompt=Spread.of((total - answer)[taken]),
        answer=Spread.of(answer[taken]),
        refused=_grouped(refused),
        context=context,
        lose_context=0 if context is None else int((total > context).sum()),
        lose_answer=0 if context is None else int((answer > context).sum()),
        bos=bos,
        unstopped=unstopped,
        markers=markers,
        notes=notes,
        shown=shown,
        shown_id=shown_id,
    )


def _special(tokenizer: Any) -> re.Pattern[str]:
    """Matches any special token of the tokenizer."""
    tokens = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")


def _has(special: re.Pattern[str], example: Example) -> bool:
    return any(special.search(message.content) for message in example.messages)


def _shown(
    pool: Pool, tokenizer: Any, total: np.ndarray, answers: np.ndarray
) -> tuple[str | None, str, tuple[Stretch, ...]]:
    """The id of a row that shows much in little, how BOS opens it, and its stretches in and out of the loss.

    It is the shortest row with several answers where that is at most twice the median row, else the median row.
    """
    from coretune.chat import encode

    rows = np.flatnonzero(total > 0)
    if not len(rows):
        return None, "no row was taken", ()
    ordered = rows[np.argsort(total[rows], kind="stable")]
    middle = ordered[(len(ordered) - 1) // 2]
    several = ordered[(answers[ordered] > 1) & (total[ordered] <= 2 * total[middle])]
    example = pool[int(several[0] if len(several) else middle)]
    encoded = encode(tokenizer, example.messages, tools=example.tools)
    cuts = np.flatnonzero(np.diff(encoded.answer_mask.astype(np.int8))) + 1
    pieces: Sequence[np.ndarray] = np.split(np.arange(len(encoded.ids)), cuts)
    stretches = tuple(
        Stretch(
            tokenizer.decode(encoded.ids[piece].tolist(), clean_up_tokenization_spaces=False),
            bool(encoded.answer_mask[piece[0]]),
        )
        for piece in pieces
    )
    return example.id, _bos(tokenizer, encoded.ids), stretches


def _bos(tokenizer: Any, ids: np.ndarray) -> str:
    """Whether conversations open with a beginning-of-sequence token, in words."""
    if tokenizer.bos_token_id is None:
        return "the tokenizer has none"
    opening = int(np.argmin(np.append(ids == tokenizer.bos_token_id, False)))
    if opening == 0:
        return f"none: the template writes no {tokenizer.bos_token}, and none is added"
    return "once" if opening == 1 else f"{opening} times in a row: the template writes it more than once"


def _context(tokenizer: Any, model: str) -> int | None:
    """The model's context length in tokens, read off the tokenizer's folder; None where nothing there says it."""
    from coretune.models import Found, longest_input

    folder = Path(tokenizer.name_or_path)
    if tokenizer.name_or_path and folder.is_dir():
        with suppress(ModelError):
            return longest_input(Found(model, folder, "", "tokenizer"))  # its digest would read the weights
    stated = int(tokenizer.model_max_length)
    return stated if stated < UNSAID else None
