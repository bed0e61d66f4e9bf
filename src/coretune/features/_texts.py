"""What a feature reads of an example, by name."""

from __future__ import annotations

from collections.abc import Callable

from coretune.pool import Example

TEXTS: dict[str, Callable[[Example], str]] = {
    "conversation": lambda example: "\n\n".join(message.content for message in example.messages),
    "prompt": lambda example: example.prompt,
    "answer": lambda example: example.answer,
}
"""All turns, all turns before the last answer, or the last answer alone; turns are joined by an empty line."""
