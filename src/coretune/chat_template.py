"""What one tokenizer's chat template does with each kind of turn, found by rendering small probes of it."""

from __future__ import annotations

import json
import logging
import re
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from coretune.errors import ModelError

log = logging.getLogger(__name__)

PLAIN = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ (message['content'] | trim) ~ eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim }}{% endif %}"
    "{% if message['role'] != 'assistant' or not loop.last %}{{ '\n\n' }}{% endif %}{% endfor %}"
)
"""A template for base models, which have none: the turns as they are, an empty line after each, the end token after an
answer. It is used only where it is asked for: `chat_tokenizer(model, PLAIN)`, or `tokenizer.chat_template = PLAIN`."""

KINDS = {
    "no_answer": "no answer text",
    "template_error": "refused by the chat template",
    "tools": "tool calls, results or definitions that the chat template does not show",
    "turn_dropped": "a turn that the chat template leaves out",
    "answer_dropped": "an answer that the chat template leaves out in part",
    "unclear": "answers whose place in the chat template's text is not certain",
}

OPEN, CLOSE = "\ue0f0", "\ue0f1"  # stand in the text where a template's own generation marks stand
HOLE = "c0retune4hole"  # stands where a turn's text would
_MARK = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")
# Templates that print today's date print this one (the day that Llama's own template falls back to), so that a row has
# the same tokens on any day.
_PINNED = {"Y": "2024", "y": "24", "m": "07", "d": "26", "b": "Jul", "B": "July", "a": "Fri", "A": "Friday"}
_CLOCK = {**_PINNED, "H": "00", "M": "00", "S": "00", "j": "208", "-d": "26", "-m": "7"}
_DATE = (
    "{% macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{field}', '{value}')" for field, value in _CLOCK.items())
    + " }}{%- endmacro %}{{ '' }}"
)


def read_template(asked: str, folder: Path | None = None) -> str:
    """The chat template that is meant by `plain`, by a file (looked for in `folder` too), or by the Jinja text itself.

    Raises `ValueError` for a file that cannot be read.
    """
    if asked == "plain":
        return PLAIN
    if "{" in asked:
        return asked
    file = Path(asked)
    if folder is not None and (folder / file).is_file():
        file = folder / file
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"template {asked!r} is neither `plain` nor a file that can be read: {error}") from error


@cache
def _say_plain() -> None:
    """Say once in a process that the template is not the model's."""
    log.warning("conversations are written with the plain template, as was asked, not with one of the model's")


class Refused(ModelError):
    """One conversation that this template cannot be trusted with. `kind` is a key of `KINDS`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Ending:
    """What follows an answer's text at the end of the rendered chat; `stop` is its beginning up to the stop token."""

    whole: str
    stop: str


@dataclass(frozen=True)
class Template:
    """What the template of one tokenizer does.

    `text` is what is rendered: dates pinned, generation marks (`marked`) as the characters `OPEN` and `CLOSE`. `cue` is
    what the generation prompt adds; where that is nothing, `header` is what stands between a prompt and its answer
    (None where not even that is certain). `final` and `middle` end a text answer in the last and in an earlier turn,
    `call` ends tool calls (None where those are not shown), `eos` ends sequences. The booleans say which turns are
    shown.
    """

    text: str
    marked: bool
    cue: str
    header: str | None
    final: Ending
    middle: str
    call: Ending | None
    call_text: bool
    parallel: bool
    results: bool
    definitions: bool
    system: bool
    developer: bool
    eos: str

    @property
    def stops(self) -> tuple[str, ...]:
        """The tokens that stop an answer, without the white space before them."""
        found = (self.final.stop, self.middle, self.call.stop if self.call else "", self.eos)
        return tuple(dict.fromkeys(stop.strip() for stop in found if stop.strip()))


_known: weakref.WeakKeyDictionary[Any, dict[tuple[str, ...], Template]] = weakref.WeakKeyDictionary()


def template_of(tokenizer: Any, tools: Sequence[Mapping[str, Any]] | None = None) -> Template:
    """The tokenizer's template, probed once. Raises `ModelError` where there is none, or it cannot show a chat."""
    if tokenizer.chat_template is None:
        raise ModelError(
            "the tokenizer has no chat template, as those of base models do not; name the model that was tuned to "
            "chat, or give a template: `plain` (coretune.chat.PLAIN) writes prompt, empty line, answer, end token"
        )
    try:
        written = tokenizer.get_chat_template(tools=tools)
    except ValueError as error:  # several templates, none of them the default
        raise ModelError(f"the tokenizer has several chat templates, but no default: {error}") from error
    known, key = _known.setdefault(tokenizer, {}), (written, str(tokenizer.bos_token), str(tokenizer.eos_token))
    if key not in known:
        known[key] = _probed(tokenizer, written)
        if written == PLAIN:
            _say_plain()
    return known[key]


def draw(
    tokenizer: Any,
    text: str,
    turns: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    prompt: bool = False,
) -> str:
    """Render turns; `prompt` adds the cue for the next answer. Raises `Refused` with the template's own reason."""
    try:
        drawn = tokenizer.apply_chat_template(
            list(turns), tools=tools, chat_template=text, add_generation_prompt=prompt, tokenize=False
        )
    except MemoryError:
        raise
    except Exception as error:  # a template is a program: it may fail in any way, and says why
        said = str(error).strip() or type(error).__name__
        raise Refused("template_error", f"the chat template refuses the conversation: {said}") from error
    return str(drawn)


def _probed(tokenizer: Any, written: str) -> Template:
    """Render probes and read off what the template does. Raises `ModelError` where it cannot show a plain exchange."""
    text = _MARK.sub(_shown_mark, written)
    text = _DATE + text if "strftime_now" in text else text
    specials = _specials(tokenizer)

    def show(*turns: Mapping[str, Any], prompt: bool = False, tools: Any = None) -> str:
        try:
            return draw(tokenizer, text, turns, tools, prompt).replace(OPEN, "").replace(CLOSE, "")
        except Refused:
            return ""

    asked, answered = _turn("user", "c0retune4asked"), _turn("assistant", HOLE)
    try:
        exchange = draw(tokenizer, text, [asked, answered])
    except Refused as error:
        raise ModelError(f"the chat template cannot show even one prompt and its answer: {error}") from error
    if exchange.count(HOLE) != 1 or "c0retune4asked" not in exchange:
        raise ModelError("the chat template does not show a plain prompt and its answer, once each; it may want images")
    before, whole = exchange.replace(OPEN, "").replace(CLOSE, "").split(HOLE)
    bare, cued = show(asked), show(asked, prompt=True)
    cue = cued[_common(bare, cued) :]
    again = show(asked, answered, _turn("user", "c0retune4next"), _turn("assistant", "c0retune4last"))
    following = again.partition(HOLE)[2].partition("c0retune4next")[0]
    final = Ending(whole, _stop(whole, following, specials))
    system = [show(_turn(role, HOLE), asked, answered).count(HOLE) == 2 for role in ("system", "developer")]
    return Template(
        text=text,
        marked=OPEN in exchange,
        cue=cue,
        header=before.removeprefix(cued) if before.startswith(cued) and not cue else None,
        final=final,
        middle=_middle(final.stop, following, specials, tokenizer.eos_token or ""),
        **_tool_support(show, asked, final, specials),
        system=system[0],
        developer=system[1] and "developer" in written,
        eos=tokenizer.eos_token or "",
    )


def _tool_support(show: Any, asked: Mapping[str, Any], final: Ending, specials: Sequence[str]) -> dict[str, Any]:
    """Whether tool calls, several at once, tool results and tool definitions are shown, and how calls end."""

    def calling(as_text: bool, *names: str) -> dict[str, Any]:
        argument = {"c0retune4key": HOLE}
        given = json.dumps(argument) if as_text else argument
        calls = [{"type": "function", "function": {"name": name, "arguments": given}} for name in names]
        return {**_turn("assistant", ""), "tool_calls": calls}

    shown = [(as_text, show(asked, calling(as_text, "c0retune4name"))) for as_text in (False, True)]
    works = [(as_text, drawn) for as_text, drawn in shown if "c0retune4name" in drawn and "c0retune4key" in drawn]
    works = [(as_text, drawn) for as_text, drawn in works if HOLE in drawn]
    definition = {"name": HOLE, "description": "A probe.", "parameters": {"type": "object", "properties": {}}}
    defined = show(asked, _turn("assistant", "c0retune4last"), tools=[{"type": "function", "function": definition}])
    as_text, drawn = works[0] if works else (False, "")
    caller = calling(as_text, "c0retune4name") if works else _turn("assistant", "c0retune4call")
    result = {**_turn("tool", "c0retune4result"), "name": "c0retune4name", "tool_call_id": "0"}
    told = show(asked, caller, result, _turn("assistant", "c0retune4last"))
    both = show(asked, calling(as_text, "c0retune4name", "c0retune4other"))
    tail = drawn[drawn.rfind(HOLE) :] if works else ""
    usual = final.stop.strip()
    last = usual if usual and usual in tail else max((s for s in specials if s in tail), key=tail.rfind, default="")
    return {
        "call": Ending(tail[tail.rfind(last) :] if last else "", last) if works else None,
        "call_text": as_text,
        "parallel": "c0retune4name" in both and "c0retune4other" in both,
        "results": "c0retune4result" in told,
        "definitions": HOLE in defined,
    }


def _stop(whole: str, following: str, specials: Sequence[str]) -> str:
    """The stop of a final answer: its first special token, and those right behind it that earlier turns have too."""
    run = _leading(whole, specials)
    shared = [stop for stop in run if following.startswith(stop)]
    return shared[-1] if shared else (run[0] if run else "")


def _middle(final: str, following: str, specials: Sequence[str], eos: str) -> str:
    """The stop of an earlier answer, where `following` stands between it and the next prompt's text.

    Where final answers have a stop token, the special token in the same place, which may be another; where they have
    none, only the end-of-sequence token, as any other may open the next turn.
    """
    if final and following.startswith(final):
        return final
    gap = "".join(takewhile(str.isspace, final))
    first = next(iter(_leading(following, specials)), "")
    if final:
        return first if first.startswith(gap) and first.removeprefix(gap) in specials else ""
    return first if eos and first.strip() == eos else ""


def _leading(text: str, specials: Sequence[str]) -> list[str]:
    """Beginnings of `text` that end after the first, second, ... of the special tokens it opens with."""
    found, place = [], len(text) - len(text.lstrip())
    while token := max((s for s in specials if text.startswith(s, place)), key=len, default=""):
        place += len(token)
        found.append(text[:place])
    return found


def _specials(tokenizer: Any) -> list[str]:
    """All added tokens that are more than white space."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
    return sorted(token for token in added if token.strip())


def _shown_mark(tag: re.Match[str]) -> str:
    """A generation tag as a block that prints a character, with the tag's own trimming of white space."""
    left, end, right = tag.groups()
    return f"{{%{left} if true %}}{{{{ '{CLOSE if end else OPEN}' }}}}{{% endif {right}%}}"


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
