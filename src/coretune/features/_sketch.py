"""A seeded count sketch: the gradients of many parameters, example by example, added into d numbers each.

Entry e of a parameter, block e // d of it, is added with its own random sign to place (e + offset of the block) % d.
So inner products are kept on average, with the variance of a dense random sign matrix, at a cost of one pass. Signs
and offsets follow from the parameter's name and the seed alone: not from the device, the batch or the other parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coretune.errors import need
from coretune.features._adam import Direction
from coretune.features._sketch_loop import compiled_loop
from coretune.shapes import Int64

NOTHING = np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class Places:
    """Where the entries of one parameter go: `signs` int8 `(p,)`, +1 or -1, and `offsets` `(blocks,)`, below d."""

    signs: np.ndarray
    offsets: Int64[np.ndarray, " blocks"]


def places_of(name: str, size: int, d: int, seed: int) -> Places:
    """Signs and offsets of a parameter of `size` entries; the first entries have the same signs whatever the size."""
    bits = _random(f"signs of {name}", seed, -(-size // 64)).view(np.uint8)
    signs = np.unpackbits(bits, count=size, bitorder="little").astype(np.int8) * 2 - 1
    offsets = _random(f"offsets of {name}", seed, -(-size // d)) % np.uint64(d)
    return Places(signs, offsets.astype(np.int64))


def _random(words: str, seed: int, count: int) -> np.ndarray:
    """Random 64-bit numbers, little-endian, that follow from words and seed on any machine."""
    key = hashlib.blake2b(f"{seed} {words}".encode(), digest_size=16).digest()
    raw = np.random.Philox(key=np.frombuffer(key, dtype="<u8")).random_raw(count)
    return np.asarray(raw, dtype="<u8")


class CountSketch:
    """The sketch of parameters of known sizes, by name, on one device. `add` may be called by several threads."""

    def __init__(self, sizes: Mapping[str, int], d: int, seed: int, device: str) -> None:
        self.d = d
        places = {name: places_of(name, size, d, seed) for name, size in sizes.items()}
        if device == "cpu":
            self._places = places
        else:
            self._gathers = {name: gather_of(each, d, device) for name, each in places.items()}
        self._on_cpu = device == "cpu"

    def add(self, out: Any, name: str, entries: Any, direction: Direction | None = None) -> None:
        """Add the sketch of tensors `entries` `(b, p)`, float32 or bfloat16, into float32 `out` `(b, d)`.

        With a direction, it is what is sketched: Adam's step in place of the gradient.
        """
        if self._on_cpu:
            add_by_blocks(out, entries, self._places[name], direction)
        else:
            add_by_gather(out, entries, self._gathers[name], direction)


def add_by_blocks(out: Any, entries: Any, places: Places, direction: Direction | None) -> None:
    """One pass over the entries, compiled: for tensors on the CPU."""
    torch = need("torch", "models")
    entries = entries.contiguous()
    if half := entries.dtype == torch.bfloat16:  # numpy has no such type: its bits are the upper half of a float32's
        entries = entries.view(torch.uint16)
    state = (NOTHING,) * 2 if direction is None else (direction.mean.numpy(), direction.square.numpy())
    constants = np.array((0.0,) * 6 if direction is None else direction.constants, dtype=np.float32)
    arrays = out.numpy(), entries.numpy(), half, places.signs, places.offsets
    compiled_loop()(*arrays, direction is not None, (*state, constants))


@dataclass(frozen=True)
class Gather:
    """The same as `Places` for a gather: entry `source[i, j]`, times `signs[i, j]`, goes to place j. Padded with 0."""

    source: Any
    signs: Any


def gather_of(places: Places, d: int, device: str) -> Gather:
    """Tensors `(blocks * d,)`, int32 and int8."""
    torch = need("torch", "models")
    size, blocks = len(places.signs), len(places.offsets)
    within = (np.arange(d)[None, :] - places.offsets[:, None]) % d
    source = within + np.arange(blocks)[:, None] * d
    there = source < size
    source = np.where(there, source, 0)
    signs = np.where(there, places.signs[source], 0).astype(np.int8)
    return Gather(
        torch.from_numpy(source.reshape(-1).astype(np.int32)).to(device),
        torch.from_numpy(signs.reshape(-1)).to(device),
    )


def add_by_gather(out: Any, entries: Any, gather: Gather, direction: Direction | None) -> None:
    """The same by whole tensors: for other devices. No two additions race, so that the result is always the same."""
    if direction is not None:
        entries = direction.of(entries.float())
    found = entries.index_select(1, gather.source).float().mul_(gather.signs)
    out += found.view(len(out), -1, out.shape[1]).sum(1)
