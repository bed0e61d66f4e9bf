"""What a judge can fail with: errors for the user, and failures of single requests in words."""

from __future__ import annotations

from dataclasses import dataclass

from coretune.errors import CoretuneError


class JudgeError(CoretuneError):
    """A judge cannot be asked, or does not answer as it must; what it answered before is stored."""


class BudgetSpent(JudgeError):
    """The budget leaves no room for the next request; what was answered is stored."""


@dataclass(frozen=True)
class Failure:
    """Why one request has no reply. No key is in `words`.

    `transient` may be tried again, after `wait_seconds` where the server says so; `billed` may have been paid for.
    `about_record` names what the server holds against this record alone (`too_long`, `refused`), which is an answer.
    """

    words: str
    transient: bool = False
    wait_seconds: float | None = None
    billed: bool = False
    about_record: str | None = None


ADVICE = {
    400: "the request does not suit this server: see what it says, and change the prompt, the reading or `extra`",
    401: "the key is missing or wrong: put the right one into the environment variable {variable}",
    402: "the provider wants to be paid before it goes on",
    403: "the key in {variable} may not use this model",
    404: "there is no such model or address: `url` ends before /chat/completions (often in /v1), and `model` is the "
    "name under which the server knows it",
    422: "the request does not suit this server: see what it says, and change the prompt, the reading or `extra`",
    429: "the provider's quota is used up, which waiting does not mend: see your plan, then run again",
}
"""What to do about a status that no retry mends."""


def permanent(status: int, said: str, variable: str) -> str:
    """The message for a refused request: the status, what the server said, and what to do."""
    advice = ADVICE.get(status, "no retry mends that").format(variable=variable)
    return f"the judge's server refused with status {status} ({said or 'no words'}); {advice}"
