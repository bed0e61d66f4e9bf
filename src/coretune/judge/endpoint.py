"""A judge as data: which model, at which address, how fast and for how much."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from coretune.judge.spending import Budget, Spent

__all__ = ["Budget", "Judge"]

PLACE = {"place": True}  # of fields that say where and how fast, not what is asked: no part of an address


@dataclass(frozen=True)
class Judge:
    """A model behind an OpenAI-compatible endpoint (vLLM, SGLang, `transformers serve`, llama.cpp, hosted).

    What is asked of whom is its address: the model's name and `extra`. A provider that puts another model behind the
    same name cannot be seen from here. All other fields say where, how fast and for how much.
    """

    version: ClassVar[int] = 1

    url: str = field(metadata=PLACE)
    """The endpoint up to where /chat/completions follows, often ending in /v1; no key may stand in it."""
    model: str
    """The name under which the server knows the model."""
    extra: str | None = None
    """Further fields of every request, as a JSON object; a null takes a field away."""
    concurrency: int = field(default=8, metadata=PLACE)
    """Requests in flight at once, of one process."""
    requests_per_minute: float | None = field(default=None, metadata=PLACE)
    """The most requests a minute, of one process; none is as many as the server answers."""
    timeout_seconds: float = field(default=120.0, metadata=PLACE)
    """How long the server may stay silent."""
    retries: int = field(default=6, metadata=PLACE)
    """How often a request is sent again after 429, 5xx, timeouts, broken connections and broken replies."""
    backoff_seconds: float = field(default=0.5, metadata=PLACE)
    """The first wait before a request is sent again; each further one is twice as long, up to a minute."""
    budget: Budget = field(default=Budget(), metadata=PLACE)
    """Hard limits, and the prices by which money is counted."""
    store: str | None = field(default=None, metadata=PLACE)
    """The folder of the file of answers; none is `answers` in the default store. Give it where the lab has its own."""
    key_variable: str = field(default="OPENAI_API_KEY", metadata=PLACE)
    """The environment variable with the key; a server that wants none gets none where it is not set."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked, and addresses that hold a secret."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the judge's url must begin with http:// or https:// and name a host")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "the judge's url holds a user, a query or a fragment, which may be secret and would be written down: "
                f"give the bare address, and the key in the environment variable {self.key_variable}"
            )
        if not self.model:
            raise ValueError("a judge without a model's name was asked for; give the name the server knows it by")
        if self.concurrency < 1 or self.retries < 0 or self.timeout_seconds <= 0 or self.backoff_seconds < 0:
            raise ValueError("a judge needs concurrency of 1 or more, a timeout above 0, retries and back-off from 0")
        if self.requests_per_minute is not None and self.requests_per_minute <= 0:
            raise ValueError(f"{self.requests_per_minute} requests a minute asked; give more than 0, or none")
        self.extra_fields()

    def extra_fields(self) -> dict[str, Any]:
        """`extra` as fields. Raises `ValueError` where it is no JSON object, or would change what is cached."""
        try:
            fields = json.loads(self.extra or "{}")
        except ValueError as error:
            raise ValueError(f"extra {self.extra!r} is no JSON ({error})") from None
        if not isinstance(fields, dict):
            raise ValueError(f'extra {self.extra!r} is no JSON object; give one, as in {{"reasoning_effort": "low"}}')
        if barred := sorted({"model", "messages", "stream", "n"} & fields.keys()):
            raise ValueError(f"extra sets {', '.join(barred)}, which the judge sets itself")
        return fields

    def payload(self, messages: list[dict[str, str]], settings: dict[str, Any]) -> dict[str, Any]:
        """The body of a request: what is stored under its hash."""
        whole = {"model": self.model, "messages": messages, **settings, **self.extra_fields()}
        return {name: value for name, value in whole.items() if value is not None}

    def answers_file(self) -> Path:
        """Where the answers lie."""
        from coretune.store import default_store

        return (default_store() / "answers" if self.store is None else Path(self.store)) / "answers.sqlite"

    def spent(self) -> Spent:
        """What the budget's account has cost so far, all runs together; requests in flight count at their most."""
        from coretune.judge.answers import Answers

        if not self.answers_file().exists():
            return Spent()
        with Answers(self.answers_file()) as answers:
            return answers.spent(self.budget.account)
