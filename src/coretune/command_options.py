"""The options of a method as flags of the command line, and the other words that a command line is made of."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from coretune import methods
from coretune.runs import FOR_COUNTING, GIVEN, file_options


def asked_method(tokens: Sequence[str]) -> str | None:
    """The value of `--method`, None where it is not there. Raises `ValueError` for an unknown one."""
    for place, token in enumerate(tokens):
        value = token.removeprefix("--method=") if token.startswith("--method=") else None
        if token == "--method" and place + 1 < len(tokens):
            value = tokens[place + 1]
        if value is not None:
            methods.find(value)
            return value
    return None


def options_class(name: str) -> type | None:
    """The method's fields as a class for the command line: pools are files, a field's docstring is its help."""
    kind = methods.find(name)
    hints, help_of, files = typing.get_type_hints(kind), field_docs(kind), file_options(name)
    fields: list[Any] = []
    for each in dataclasses.fields(kind):  # type: ignore[arg-type]
        said = Parameter(help=help_of.get(each.name), consume_multiple=True, negative_iterable="")
        hint: Any = Annotated[(str | None) if each.name in files else hints[each.name], said]
        required = each.default is dataclasses.MISSING
        if required and each.name in GIVEN:  # a flag of its own fills it
            fields.append((each.name, hint | None, None))
            continue
        fields.append((each.name, hint) if required else (each.name, hint, each.default))
    fields.sort(key=len)  # those without a default first
    # cyclopts takes classes of the standard library's modules for plain values, and make_dataclass says "types"
    namespace = {"__module__": kind.__module__}
    return dataclasses.make_dataclass(kind.__name__, fields, frozen=True, namespace=namespace) if fields else None


def tuning_class() -> type:
    """The options of a tuning as a class for the command line; what other flags say is left out."""
    from coretune.tuning import Tuning

    hints, help_of = typing.get_type_hints(Tuning), field_docs(Tuning)
    fields: list[Any] = []
    for each in dataclasses.fields(Tuning):
        if each.name not in ("model", "template", "seed", "digest", "tokenizer"):
            said = Parameter(help=help_of.get(each.name), consume_multiple=True, negative="", negative_iterable="")
            hint = tuple[str, ...] if each.name == "checkpoints" else hints[each.name]  # 1 is a step, 1.0 a share
            fields.append((each.name, Annotated[hint, said], each.default))
    return dataclasses.make_dataclass("TuningOptions", fields, frozen=True, namespace={"__module__": Tuning.__module__})


def tuning_options(given: Any) -> dict[str, Any]:
    """A tuning's options as given. Raises `ValueError` for a checkpoint that is no number."""
    options = {each.name: getattr(given, each.name) for each in dataclasses.fields(given)}
    try:
        options["checkpoints"] = tuple(int(each) if each.isdigit() else float(each) for each in options["checkpoints"])
    except ValueError as error:
        raise ValueError(f"checkpoints {options['checkpoints']} asked; give steps (10) or shares (0.5, 1.0)") from error
    return options


def field_docs(kind: type) -> dict[str, str]:
    """The string that follows each field in the source of a dataclass."""
    (body,) = [
        node for node in ast.parse(inspect.cleandoc(inspect.getsource(kind))).body if isinstance(node, ast.ClassDef)
    ]
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def flag_of(name: str) -> str:
    """What stands before the options of a method: its name, or its class's for one from outside."""
    return name.rpartition(":")[2].lower() if ":" in name else name


def options_of(name: str, given: Any, flags: dict[str, str | None]) -> dict[str, Any]:
    """The method's options as given, with `--model`, `--embedder`, `--target` and so on in their fields.

    `--select-model` goes into the method's field `model` in place of `--model`. Raises `ValueError` for a flag that
    the method has no field for.
    """
    options = {} if given is None else {each.name: getattr(given, each.name) for each in dataclasses.fields(given)}
    kind = methods.find(name)
    known = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    needed = [each.name for each in dataclasses.fields(kind) if each.default is dataclasses.MISSING]  # type: ignore[arg-type]
    options = {key: value for key, value in options.items() if value is not None or key not in needed}
    for flag, value in flags.items():
        field = "model" if flag == "select-model" else flag
        if value is None or (flag in FOR_COUNTING and field not in known):
            continue
        if field not in known:
            raise ValueError(f"method {name} takes no --{flag}; see coretune select --method {name} --help")
        options[field] = value
    return options


def parse_columns(pairs: Sequence[str] | None) -> dict[str, str]:
    """`FIELD=COLUMN` pairs, several in one separated by commas. Raises `ValueError` for anything else."""
    columns = {}
    for pair in (part for given in pairs or () for part in given.split(",")):
        name, equals, column = pair.partition("=")
        if not (name and equals and column):
            raise ValueError(f"column {pair!r} is not understood; give FIELD=COLUMN, such as prompt=Question")
        columns[name.strip()] = column.strip()
    return columns


def template_text(asked: str | None) -> str | None:
    """The chat template that `--template` names, if any. Raises `ValueError` for a file that cannot be read."""
    if asked is None:
        return None
    from coretune.chat import read_template

    return read_template(asked)
