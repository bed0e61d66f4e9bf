"""Results of arithmetic that is dear, kept by what went in: numbers, text, arrays, and frozen dataclasses of them.

    value.json    the result as JSON; an array in it is the number of a file
    N.npy         that array
    done.json     complete

Nothing in the store is code: a dataclass comes back by its name only if its module is loaded already, which it is
after the function that returns it was imported. Otherwise the result is not known and is computed again.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coretune.store import folders
from coretune.store.digests import KINDS, class_name
from coretune.store.npy import open_array, save_array

log = logging.getLogger(__name__)

VALUE = "value.json"


def write_result(place: Path, result: Any) -> Path:
    """Store a result at its address; returns its folder.

    Raises `ValueError` where it holds what cannot be stored without code, `FolderError` where the disk refuses.
    """
    arrays: list[np.ndarray] = []
    said = _encode(result, arrays)
    with folders.new_folder(place, "result", {"arrays": len(arrays)}) as folder:
        (folder / VALUE).write_text(json.dumps(said), encoding="utf-8")
        for number, array in enumerate(arrays):
            save_array(folder / f"{number}.npy", array.dtype, array.shape, [array])
    return place / folder.name.removeprefix(".")


def read_result(place: Path) -> tuple[Any] | None:
    """The result stored at an address, in a tuple of one; None where there is none that can be read."""
    for folder in folders.finished(place):
        try:
            folders.read_done(folder)
            return (_decode(json.loads((folder / VALUE).read_text(encoding="utf-8")), folder),)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if folder.exists():
                log.warning("kept result %s cannot be read and is computed again (%s)", folder, error)
    return None


def _encode(value: Any, arrays: list[np.ndarray]) -> Any:
    """A result as JSON, its arrays appended to `arrays` and named by number."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in KINDS:
            raise ValueError(f"an array of {value.dtype} cannot be kept: give numbers or fixed-width text")
        arrays.append(np.asarray(value))
        return {"scalar" if isinstance(value, np.generic) else "array": len(arrays) - 1}
    if isinstance(value, float):
        return {"float": value.hex()}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_encode(item, arrays) for item in value]}
    if isinstance(value, Mapping):
        return {"mapping": [[_encode(key, arrays), _encode(item, arrays)] for key, item in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [each.name for each in dataclasses.fields(value) if each.init]
        name = {"module": type(value).__module__, "class": type(value).__qualname__}
        return {**name, "fields": {field: _encode(getattr(value, field), arrays) for field in fields}}
    raise ValueError(
        f"a result holds a {class_name(type(value))}, which cannot be kept: "
        "return arrays, numbers, text, lists, dicts or frozen dataclasses of them"
    )


def _decode(said: Any, folder: Path) -> Any:
    """What `_encode` has said, with its arrays mapped as private copies."""
    if not isinstance(said, dict):
        return said
    if "class" in said:
        kind: Any = sys.modules[said["module"]]
        for name in said["class"].split("."):
            kind = getattr(kind, name)
        if not dataclasses.is_dataclass(kind):
            raise ValueError(f"{said['class']} is no dataclass")
        make: Any = kind
        return make(**{name: _decode(item, folder) for name, item in said["fields"].items()})
    ((form, value),) = said.items()
    if form in ("array", "scalar"):
        array = open_array(folder / f"{value}.npy", "c")
        return array[()] if form == "scalar" else array
    if form == "float":
        return float.fromhex(value)
    if form == "mapping":
        return {_decode(key, folder): _decode(item, folder) for key, item in value}
    items = [_decode(item, folder) for item in value]
    return tuple(items) if form == "tuple" else items
