"""One request through the official client: a reply, or a failure in words. Keys stay inside this module."""

from __future__ import annotations

import email.utils
import json
import os
import time
from typing import Any

from coretune.errors import need
from coretune.judge.endpoint import Judge
from coretune.judge.failures import Failure, JudgeError, permanent
from coretune.judge.replies import Malformed, Reply, read_reply

SHOWN = 300  # characters of a server's words that an error shows
TOO_LONG = ("context_length", "maximum context", "context size", "context window", "too many tokens")
WITHHELD = ("content_filter", "content_policy", "content management policy")


class Endpoint:
    """The client of a judge; usable from many threads. Close it when done."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._openai: Any = need("openai", "judge")
        self._key = _key(judge.key_variable)
        self._client = self._openai.OpenAI(
            base_url=judge.url, api_key=self._key or "none", timeout=judge.timeout_seconds, max_retries=0
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(self, payload: dict[str, Any], most: tuple[int, int]) -> Reply | Failure:
        """Send one request. Nothing is raised for what the server or the way to it does."""
        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=payload["model"], messages=payload["messages"], extra_body=payload
            )
        except self._openai.APIStatusError as error:
            return self._refused(error)
        except self._openai.APITimeoutError:
            words = f"no answer within {self.judge.timeout_seconds:g} s"
            return Failure(words, transient=True, billed=True)
        except self._openai.APIConnectionError as error:
            cause = error.__cause__ or error
            unsent = type(cause).__name__ == "ConnectError"
            words = self.scrubbed(f"the connection broke: {type(cause).__name__}: {cause}")
            return Failure(words, transient=True, billed=not unsent)
        try:
            return read_reply(raw.text, most)
        except Malformed as error:
            return Failure(self.scrubbed(f"a broken reply: {error}"), transient=True, billed=True)

    def scrubbed(self, words: str) -> str:
        """Words without the key, which a server may give back."""
        return words.replace(self._key, "[key]") if self._key else words

    def _refused(self, error: Any) -> Failure:
        """What a status of 400 and above means."""
        status = int(error.status_code)
        said = self.scrubbed(_words(error.body) or str(error.response.text))[:SHOWN]
        lowered = f"{error.code or ''} {said}".lower()
        if status == 429 and "insufficient_quota" in lowered:
            return Failure(permanent(status, said, self.judge.key_variable))
        if status in (408, 409, 429) or status >= 500:
            wait = retry_after(error.response.headers)
            return Failure(f"status {status} ({said or 'no words'})", transient=True, wait_seconds=wait)
        if status in (400, 413, 422):
            if status == 413 or any(each in lowered for each in TOO_LONG):
                return Failure(said, about_record="too_long")
            if any(each in lowered for each in WITHHELD):
                return Failure(said, about_record="refused")
        return Failure(permanent(status, said, self.judge.key_variable))


def retry_after(headers: Any) -> float | None:
    """The seconds that a server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
    milliseconds, said = headers.get("retry-after-ms"), headers.get("retry-after")
    for text, unit in ((milliseconds, 0.001), (said, 1.0)):
        try:
            seconds = float(text) * unit
        except (TypeError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _key(variable: str) -> str:
    """The key in an environment variable, empty where there is none. Raises `JudgeError` for one no header can hold."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise JudgeError(f"the key in {variable} holds blanks or signs that no key has; set it anew")
    return key


def _words(body: Any) -> str:
    """What a server says about an error."""
    if isinstance(body, dict):
        inner = body.get("message") or body.get("detail") or body.get("error") or body
        return inner if isinstance(inner, str) else json.dumps(inner)
    return body if isinstance(body, str) else ""
