"""Addresses: what a value is, in words and as a digest, so that the same work is found again wherever it was done.

The words are JSON in which different values differ: a tuple is not a list, 1 is not 1.0. Only what a value *says*
counts, never where it lies, the order of its keys, the process or the hash seed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

KINDS = "biufcSU"  # array kinds whose bytes are their content: booleans, numbers, fixed-width text
CHUNK_BYTES = 1 << 26


def address(spec: object) -> str:
    """The address of a resolved feature: 32 hexadecimal digits. Raises `ValueError` for what cannot be an address."""
    return digest(spec_words(spec))


def digest(said: Any) -> str:
    """The blake2b digest of words as canonical JSON: 32 hexadecimal digits."""
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def spec_words(spec: object) -> dict[str, Any]:
    """A feature in words: class, version and all fields but places. Raises `ValueError` where it is no frozen data.

    A field may hold None, a boolean, number, text, bytes, tuple, frozen dataclass, a pool (by its fingerprint) or a
    module-level function; a list, array or open file is refused, as nobody could tell whether it changed.
    """
    name = class_name(type(spec))
    if not _is_data(spec) or not spec.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ValueError(f"{name} is asked as a feature, but it is no frozen dataclass: add @dataclass(frozen=True)")
    if not isinstance(getattr(type(spec), "version", None), int):
        raise ValueError(f"{name} is asked as a feature, but has no version: add `version: ClassVar[int] = 1`")
    for each in dataclasses.fields(spec):  # type: ignore[arg-type]
        try:
            hash(getattr(spec, each.name))
        except TypeError as error:
            found = type(getattr(spec, each.name)).__name__
            raise ValueError(f"field {each.name!r} of {name} holds a {found}, which may change: use a tuple") from error
    said: dict[str, Any] = words(spec)
    return said


def words(value: Any) -> Any:
    """Any value that has a content as JSON. Raises `ValueError` naming the type of one that has none."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, np.generic):
        return words(value.item())
    if isinstance(value, np.ndarray):
        return {"array": array_digest(value)}
    if isinstance(value, np.random.Generator):
        return {"rng": rng_words(value)}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [words(item) for item in value]}
    if isinstance(value, Mapping):
        return {"mapping": sorted(([words(key), words(item)] for key, item in value.items()), key=json.dumps)}
    return _object_words(value)


def _is_default(value: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a field of a dataclass holds its default."""
    return bool(getattr(value, field.name) == field.default)


def _object_words(value: Any) -> dict[str, Any]:
    """A dataclass, a function, or anything with a `fingerprint` (a pool, a feature), in words."""
    if _is_data(value):
        fields = {
            each.name: words(getattr(value, each.name))
            for each in dataclasses.fields(value)
            if not each.metadata.get("place") and not (each.metadata.get("later") and _is_default(value, each))
        }
        return {"class": class_name(type(value)), "version": getattr(type(value), "version", None), "fields": fields}
    if isinstance(getattr(value, "fingerprint", None), str):
        said = {"class": class_name(type(value)), "fingerprint": value.fingerprint}
        barred = getattr(value, "candidates", None)  # the same pool with other rows barred is another input
        return said if barred is None or barred.all() else {**said, "candidates": array_digest(barred)}
    if callable(value):
        return {"function": function_name(value), "version": getattr(value, "version", None)}
    raise ValueError(
        f"a {class_name(type(value))} cannot be part of an address: nothing says what it holds; "
        "give a number, text, tuple, array, frozen dataclass, or an object with a `fingerprint`"
    )


def function_name(fn: Any) -> str:
    """`module.name` of a module-level function. Raises `ValueError` for a lambda, a closure or a bound method."""
    name = getattr(fn, "__qualname__", "<unnamed>")
    if "<" in name or not isinstance(getattr(fn, "__self__", None), ModuleType | None):
        raise ValueError(f"{name!r} has no lasting name, so its results cannot be found again: define it in a module")
    return f"{fn.__module__}.{name}"


def class_name(cls: type) -> str:
    """`module.Name` of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def array_digest(array: np.ndarray) -> str:
    """The content hash of an array: its type, shape and bytes, whatever its layout in memory."""
    if array.dtype.kind not in KINDS:
        raise ValueError(f"an array of {array.dtype} cannot be part of an address: give numbers or fixed-width text")
    hashed = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    flat = array.reshape(1) if array.ndim == 0 else array
    step = max(1, CHUNK_BYTES // max(1, flat.nbytes // max(1, len(flat))))
    for start in range(0, len(flat), step):
        part = np.ascontiguousarray(flat[start : start + step])
        if part.size:
            hashed.update(part.reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()


def rng_words(rng: np.random.Generator) -> dict[str, Any]:
    """Where a generator stands: what it will draw next, and what generators it will spawn next."""
    seed = rng.bit_generator.seed_seq
    said: dict[str, Any] = {"state": words(dict(rng.bit_generator.state))}
    if isinstance(seed, np.random.SeedSequence):
        entropy = list(seed.entropy) if isinstance(seed.entropy, list | tuple) else seed.entropy
        said["seed"] = words([entropy, list(seed.spawn_key), seed.n_children_spawned])
    return said


def _is_data(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
