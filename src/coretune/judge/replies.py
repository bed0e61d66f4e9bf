"""Replies: what a server sent, reduced to what is read from it; and numbers, tags and choices read from their text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

EXCERPT = 200  # characters of a bad body that an error shows


class Malformed(Exception):
    """A body that is no chat completion; the text says what is wrong."""


@dataclass(frozen=True)
class Reply:
    """One answer of a judge.

    `first` holds tokens and natural log-probabilities at the first position of the answer, where the server gives
    them. `refused` and `too_long` say why there is no text. `input_tokens` and `output_tokens` are the server's count;
    `estimated` where it gave none, and they are the most that the request can have had.
    """

    text: str = ""
    finish: str = ""
    refused: bool = False
    too_long: bool = False
    first: tuple[tuple[str, float], ...] | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False

    def as_json(self) -> str:
        """How it is stored."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def of_json(said: str) -> Reply:
        """What was stored."""
        fields = json.loads(said)
        if fields["first"] is not None:
            fields["first"] = tuple((token, float(number)) for token, number in fields["first"])
        return Reply(**fields)


def read_reply(body: str, most: tuple[int, int]) -> Reply:
    """The reply in a response's body; `most` are the tokens counted where the server counts none.

    Raises `Malformed` for anything that is no chat completion.
    """
    try:
        whole = json.loads(body)
    except ValueError as error:
        raise Malformed(f"no whole JSON ({error}): {body[:EXCERPT]!r}") from None
    try:
        choice = whole["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        if text is not None and not isinstance(text, str):
            raise TypeError(f"content is a {type(text).__name__}")
        finish = choice.get("finish_reason")
        usage = whole.get("usage") or {}
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        counted = [each for each in counts if isinstance(each, int) and each >= 0]
        inputs, outputs = counted if len(counted) == 2 else most
        return Reply(
            text or "",
            str(finish or ""),
            refused=bool(refusal) or finish == "content_filter",
            first=_first_position(choice.get("logprobs")),
            input_tokens=inputs,
            output_tokens=outputs,
            estimated=len(counted) < 2,
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise Malformed(f"no chat completion ({what}): {body[:EXCERPT]!r}") from None


def _first_position(logprobs: Any) -> tuple[tuple[str, float], ...] | None:
    """Tokens and log-probabilities at the first position, none where the server gives none."""
    if not logprobs or logprobs.get("content") is None:
        return None
    if not logprobs["content"]:
        return ()
    found = logprobs["content"][0].get("top_logprobs") or []
    return tuple((str(each["token"]), float(each["logprob"])) for each in found)


def expected_score(first: Sequence[tuple[str, float]], low: int, high: int) -> tuple[float, float]:
    """The mean of the scale under the first token's probabilities, and the mass that scale tokens have.

    `sum_v v p_v / sum_v p_v` over the scale's tokens seen (DEITA, utility 7.3); tokens that differ in blanks only count
    together. NaN where none is seen.
    """
    weights = dict.fromkeys(range(low, high + 1), 0.0)
    for token, log_probability in first:
        stripped = token.strip().lstrip("\u2581\u0120")  # markers of a blank in raw vocabularies
        if re.fullmatch(r"[0-9]", stripped) and int(stripped) in weights:
            weights[int(stripped)] += math.exp(min(0.0, log_probability))
    mass = math.fsum(weights.values())
    if mass <= 0:
        return math.nan, 0.0
    return math.fsum(value * weight for value, weight in weights.items()) / mass, mass


NUMBER = r"[-+]?\d+(?:\.\d+)?"
ALONE = re.compile(rf"({NUMBER})\s*(?:/\s*(\d+))?\s*\.?")
STATED = re.compile(
    rf"\bscore\s*[:=]\s*({NUMBER})(?![\d,]*\d|\.\d|\s*[-\u2013]\s*\d)(?:\s*(?:/|out of)\s*(\d+))?", re.IGNORECASE
)


def stated_number(text: str, high: int) -> float | None:
    """The number a reply states: the whole reply, or the last `Score: N`; none where it states none in that form.

    `N/M` counts only where M is the scale's most.
    """
    plain = re.sub(r"[*_`]", "", text).strip()
    alone = ALONE.fullmatch(plain)
    if alone is not None:
        found = alone
    else:
        stated = list(STATED.finditer(plain))
        if not stated:
            return None
        found = stated[-1]
    return None if found[2] is not None and int(found[2]) != high else float(found[1])


def stated_choice(text: str) -> str | None:
    """`a`, `b` or `tie`: the whole reply, or the last `Better: ...`; none where it states none in that form."""
    plain = re.sub(r"[*_`]", "", text).strip()
    alone = re.fullmatch(r"(a|b|tie)\.?", plain, re.IGNORECASE)
    stated = re.findall(r"\bbetter\s*[:=]\s*(a|b|tie)\b", plain, re.IGNORECASE)
    if alone is not None:
        return alone[1].lower()
    return str(stated[-1]).lower() if stated else None


def stated_tags(text: str) -> list[str] | None:
    """The last JSON list of strings in a reply, in lower case, blanks single, none twice; none where there is none."""
    decoder, found = json.JSONDecoder(), None
    at = text.find("[")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError:
            end = at + 1
        else:
            if isinstance(value, list) and all(isinstance(each, str) for each in value):
                found = value
        at = text.find("[", end)
    if found is None:
        return None
    plain = (" ".join(each.lower().split()) for each in found)
    return list(dict.fromkeys(each for each in plain if each))
