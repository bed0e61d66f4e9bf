"""What a judge costs: requests, tokens and money, and the limits on them."""

from __future__ import annotations

from dataclasses import dataclass

MILLION = 1_000_000
OVERHEAD_TOKENS = 64  # roles, a template's own words, the cue to answer
UNSAID_TOKENS = 4096  # of an answer whose length no field of the request limits


@dataclass(frozen=True)
class Spent:
    """Requests sent (failed ones count), tokens in and out, and money in the currency of the prices."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    money: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.money + other.money,
        )

    def __str__(self) -> str:
        return (
            f"{self.requests} requests, {self.input_tokens} input and {self.output_tokens} output tokens, "
            f"{self.money:.4f} in money"
        )


@dataclass(frozen=True)
class Budget:
    """Hard limits on what all requests of one account together may cost, whoever sends them and however often.

    A request is sent only if the account has room for the most that it can cost (a token a byte of the prompt, and the
    longest answer asked for); what it did cost takes the place of that when it is answered. What was in flight at a
    kill, and what timed out, stays counted at its most, since it may have been billed.
    """

    requests: int | None = None
    """The most requests that are sent, retries counted."""
    tokens: int | None = None
    """The most tokens, in and out together."""
    money: float | None = None
    """The most money, in the currency of the prices."""
    input_price: float = 0.0
    """The price of a million input tokens."""
    output_price: float = 0.0
    """The price of a million output tokens."""
    account: str = "judge"
    """The name under which the store adds up what was spent; another name starts at nothing."""

    def __post_init__(self) -> None:
        """Refuse limits and prices that mean nothing."""
        for name in ("requests", "tokens", "money", "input_price", "output_price"):
            number = getattr(self, name)
            if number is not None and not 0 <= number < float("inf"):
                raise ValueError(f"{name} {number} asked of a budget; give 0 or more, or none for no limit")
        if self.money is not None and not self.input_price and not self.output_price:
            raise ValueError(
                f"a limit of {self.money} in money, but no price: give input_price and output_price a million tokens"
            )

    def price(self, requests: int, input_tokens: int, output_tokens: int) -> Spent:
        """What these tokens cost."""
        money = (input_tokens * self.input_price + output_tokens * self.output_price) / MILLION
        return Spent(requests, input_tokens, output_tokens, money)

    def beyond(self, spent: Spent) -> str | None:
        """Which limit this would pass, in words; none where it keeps to all of them."""
        tokens = spent.input_tokens + spent.output_tokens
        if self.requests is not None and spent.requests > self.requests:
            return f"{self.requests} requests"
        if self.tokens is not None and tokens > self.tokens:
            return f"{self.tokens} tokens"
        if self.money is not None and spent.money > self.money * (1 + 1e-12):
            return f"{self.money} in money"
        return None


def most_tokens(payload: dict[str, object]) -> tuple[int, int]:
    """The most tokens that a request can have, in and out: a token a byte, and the longest answer asked for."""
    messages = payload["messages"]
    assert isinstance(messages, list)
    inputs = OVERHEAD_TOKENS + sum(16 + len(str(each["content"]).encode()) for each in messages)
    limits = [payload[name] for name in ("max_tokens", "max_completion_tokens") if name in payload]
    return inputs, max((each for each in limits if isinstance(each, int)), default=UNSAID_TOKENS)
