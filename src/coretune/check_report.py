"""What a check of a pool found, as data and as plain text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

SHOWN_CHARACTERS = 400  # of each stretch of the example whose mask is shown
SHOWN_NAMES = 8  # of sources and languages
MIB = 1 << 20


@dataclass(frozen=True)
class Spread:
    """How a count is spread over rows: total, mean and quantiles."""

    total: int
    mean: float
    least: int
    tenth: int
    median: int
    nine_tenths: int
    most: int

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """The spread of `(n,)` counts; all 0 where there are none."""
        if not len(values):
            return cls(0, 0.0, 0, 0, 0, 0, 0)
        cuts = np.quantile(values, [0.0, 0.1, 0.5, 0.9, 1.0], method="lower")
        return cls(int(values.sum()), float(values.mean()), *(int(cut) for cut in cuts))

    def __str__(self) -> str:
        cuts = f"least {self.least:,}, 10% {self.tenth:,}, half {self.median:,}, 90% {self.nine_tenths:,}"
        return f"{self.total:,} in all, {self.mean:,.1f} a row; {cuts}, most {self.most:,}"


@dataclass(frozen=True)
class Reason:
    """Why some records or rows cannot be used, how many they are, and where the first of them lie."""

    name: str
    count: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class Stretch:
    """A piece of a conversation in the model's own format; `answer` where loss is taken."""

    text: str
    answer: bool


@dataclass(frozen=True)
class ModelCheck:
    """What a model's tokenizer and chat template make of the pool; no weights are needed to know it.

    `tokens`, `prompt` and `answer` are spreads over the rows that the template takes, in tokens; `context` is the
    model's context length (None: not known), `lose_context` counts rows above it, which lose prompt tokens, and
    `lose_answer` those of them that lose answer tokens too. `bos` says how often a beginning-of-sequence token opens a
    conversation, `unstopped` counts rows with an answer that no special token ends, `markers` rows whose own text holds
    special tokens, `notes` what else was done to rows.
    """

    model: str
    tokens: Spread
    prompt: Spread
    answer: Spread
    refused: tuple[Reason, ...]
    context: int | None
    lose_context: int
    lose_answer: int
    bos: str
    unstopped: int
    markers: int
    notes: Mapping[str, int]
    shown: tuple[Stretch, ...]
    shown_id: str | None


@dataclass(frozen=True)
class CheckReport:
    """What to know of a pool before anything is spent. Lengths are in characters."""

    inputs: tuple[str, ...]
    rows: int
    rejected: int
    rejects: tuple[Reason, ...]
    formats: Mapping[str, int]
    sources: Mapping[str, int]
    languages: Mapping[str, int]
    columns: tuple[str, ...]
    duplicates: int
    turns: Mapping[str, int]
    prompt: Spread
    answer: Spread
    raw_bytes: int
    model: ModelCheck | None

    def as_dict(self) -> dict[str, Any]:
        """The report in numbers, texts, lists and mappings alone, as JSON takes them."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """The report as lines of plain text; record text in it has no control characters."""
        return "\n".join([*_pool_lines(self), *(_model_lines(self.model, self.rows) if self.model else ())])


def _pool_lines(report: CheckReport) -> Iterator[str]:
    yield f"{report.rows + report.rejected:,} records read from {', '.join(report.inputs) or 'memory'}"
    yield f"  usable      {report.rows:,} ({report.raw_bytes / MIB:,.1f} MiB)"
    yield f"  rejected    {report.rejected:,}"
    yield from _reason_lines(report.rejects)
    yield f"  duplicates  {report.duplicates:,} rows say what an earlier row says (--dedup excludes them)"
    yield f"  formats     {_counts(report.formats)}"
    yield f"  sources     {_counts(report.sources)}"
    yield f"  languages   {_counts(report.languages)}"
    yield f"  columns     {', '.join(report.columns)}"
    yield f"  turns       {_counts(report.turns)}"
    yield "Characters"
    yield f"  prompts     {report.prompt}"
    yield f"  answers     {report.answer}"


def _model_lines(model: ModelCheck, rows: int) -> Iterator[str]:
    refused = sum(reason.count for reason in model.refused)
    yield f"Under the chat template of {model.model}"
    yield f"  tokens      {model.tokens}"
    yield f"  prompts     {model.prompt}"
    yield f"  answers     {model.answer}"
    if model.context is None:
        yield "  context     the model does not say how long it is"
    else:
        yield f"  context     {model.context:,} tokens; above it {model.lose_context:,} rows, which lose prompt tokens,"
        yield f"              and the answers alone of {model.lose_answer:,} rows, which lose answer tokens"
    yield f"  refused     {refused:,} of {rows:,} rows"
    yield from _reason_lines(model.refused)
    yield f"  BOS         {model.bos}"
    yield f"  stop token  {_stopped(model, rows - refused)}"
    if model.markers:
        yield f"  markers     {model.markers:,} rows hold special tokens of the model in their own text"
    for note, count in model.notes.items():
        if count:
            yield f"  {note.replace('_', ' ')}: {count:,} rows"
    if model.shown:
        yield f"Row {model.shown_id}, loss is taken on what stands between ⟦ and ⟧"
        yield _bracketed(model.shown)


def _stopped(model: ModelCheck, rows: int) -> str:
    if not model.unstopped:
        return "in the loss, behind every answer"
    return f"not in the loss in {model.unstopped:,} of {rows:,} rows: the template closes answers with no special token"


def _reason_lines(reasons: Iterable[Reason]) -> Iterator[str]:
    for reason in reasons:
        yield f"    {reason.count:,} {printable(reason.name)}"
        yield from (f"      {printable(place)}" for place in reason.first)


def _counts(counts: Mapping[str, int]) -> str:
    """`dolly 3,000, gsm8k 12, and 4 more`, largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    said = [f"{printable(name)} {count:,}" for name, count in ordered[:SHOWN_NAMES]]
    rest = len(ordered) - SHOWN_NAMES
    return ", ".join(said + ([f"and {rest:,} more"] if rest > 0 else [])) or "none"


def _bracketed(stretches: Iterable[Stretch]) -> str:
    said = []
    for stretch in stretches:
        text = stretch.text
        if len(text) > SHOWN_CHARACTERS + SHOWN_CHARACTERS // 4:
            half = SHOWN_CHARACTERS // 2
            text = f"{text[:half]} […{len(text) - 2 * half:,} characters…] {text[-half:]}"
        said.append(f"⟦{printable(text)}⟧" if stretch.answer else printable(text))
    return "\n".join(f"  │ {line}" for line in "".join(said).split("\n"))


def printable(text: str) -> str:
    """Text of records without characters that would steer a terminal: they are written as escapes; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
