"""Examples that a feature measures others against, as data: anchors, a target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from coretune.features import place
from coretune.pool import Example, Message, content_key


@dataclass(frozen=True)
class ReferencePool:
    """Some hundred examples at most, which a spec carries along; its address holds their digest alone.

    `ReferencePool.of(pool.examples(rows))` makes one. The order counts: column j of a feature is example j.
    """

    digest: str
    """Content hash of what the examples say, in order."""
    records: tuple[str, ...] = field(metadata=place())
    """Each example as JSON: its turns, `[role, content, extra]` each, and its tool definitions."""

    def __post_init__(self) -> None:
        """Refuse a digest of other examples."""
        if self.digest != (found := _digest(self.examples())):
            raise ValueError(f"digest {self.digest!r} asked for examples with {found!r}; make it with ReferencePool.of")

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Self:
        """These examples, in this order."""
        said = [([[each.role, each.content, each.extra] for each in one.messages], one.tools) for one in examples]
        return cls(_digest(examples), tuple(json.dumps(each) for each in said))

    def __len__(self) -> int:
        return len(self.records)

    def examples(self) -> list[Example]:
        """The examples; they have their numbers for ids."""
        made = []
        for number, record in enumerate(self.records):
            turns, tools = json.loads(record)
            messages = tuple(Message(*turn) for turn in turns)
            made.append(Example(f"{number}", messages, content_key(messages, tools), tools=tools))
        return made


def _digest(examples: Sequence[Example]) -> str:
    return hashlib.blake2b(
        b"".join(content_key(each.messages, each.tools) for each in examples), digest_size=16
    ).hexdigest()
