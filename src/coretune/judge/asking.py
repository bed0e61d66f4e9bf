"""Asking: what is stored is found, the rest is sent several at a time, retried, paid for and committed at once."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from coretune.judge.answers import Answers, NoRoom, key_of
from coretune.judge.endpoint import Judge
from coretune.judge.failures import BudgetSpent, Failure, JudgeError
from coretune.judge.replies import Reply
from coretune.judge.sending import Endpoint
from coretune.judge.spending import Spent, most_tokens

log = logging.getLogger(__name__)

LONGEST_BACKOFF_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 600.0  # a server that asks for more is not waited for


class Stopped(Exception):
    """Another request of the same call failed for good, so this one was not sent."""


@dataclass
class Gate:
    """The one place through which all requests of a judge in this process go: how many, how fast, and counts.

    `found` replies were in the store, `requests` were sent, of them `retries` again; `billed` adds up what they cost.
    """

    judge: Judge
    found: int = 0
    requests: int = 0
    retries: int = 0
    billed: Spent = field(default_factory=Spent)

    def __post_init__(self) -> None:
        self.change = threading.Condition()
        self.slots = threading.Semaphore(self.judge.concurrency)
        self.asking: set[bytes] = set()  # keys that some thread is asking for
        self.held = 0  # requests charged at their most
        self.settled = 0
        self._next = 0.0  # when the next request may go, in monotonic seconds

    def moved(self, seen: int) -> bool:
        """Whether a request was settled since, or none is held that could be."""
        return self.settled != seen or not self.held

    def hold(self, seconds: float) -> None:
        """Send nothing for so long: the server asked for it."""
        with self.change:
            self._next = max(self._next, time.monotonic() + seconds)

    def turn(self, stop: threading.Event) -> None:
        """Wait until the next request may go. Raises `Stopped`."""
        while True:
            with self.change:
                left = self._next - time.monotonic()
                if left <= 0:
                    if self.judge.requests_per_minute is not None:
                        self._next = time.monotonic() + 60.0 / self.judge.requests_per_minute
                    break
            if stop.wait(left):
                break
        if stop.is_set():
            raise Stopped

    @contextmanager
    def alone_with(self, key: bytes) -> Iterator[None]:
        """One thread at a time asks the same; the next one finds the reply in the store."""
        with self.change:
            self.change.wait_for(lambda: key not in self.asking)
            self.asking.add(key)
        try:
            yield
        finally:
            with self.change:
                self.asking.discard(key)
                self.change.notify_all()


def ask(judge: Judge, payloads: Sequence[dict[str, Any]], gate: Gate | None = None, salt: str = "") -> list[Reply]:
    """The replies to these requests, in their order; each is committed the moment it is there.

    After an error, a Ctrl-C or a kill, the same call sends only what has no reply yet. `gate` is shared by calls
    that keep to one limit together. Raises `JudgeError` where the server refuses or stays broken, and `BudgetSpent`.
    """
    gate = gate or Gate(judge)
    keys = [key_of(payload, salt) for payload in payloads]
    wanted = dict(zip(keys, payloads, strict=True))
    with Answers(judge.answers_file()) as answers:
        replies = {key: Reply.of_json(said) for key, said in answers.find(list(wanted)).items()}
        with gate.change:
            gate.found += len(replies)
        missing = {key: payload for key, payload in wanted.items() if key not in replies}
        if missing:
            replies.update(_ask_all(judge, answers, missing, gate))
            log.info("%s: %d replies found, %d asked for; in all %s", judge.model, len(wanted) - len(missing),
                     len(missing), gate.billed)  # fmt: skip
    return [replies[key] for key in keys]


def _ask_all(judge: Judge, answers: Answers, missing: dict[bytes, dict[str, Any]], gate: Gate) -> dict[bytes, Reply]:
    """Ask for all of these at once; the first error stops the rest, but what is in flight is waited for."""
    endpoint, stop = Endpoint(judge), threading.Event()
    asker = _Asker(judge, answers, endpoint, gate, stop)
    try:
        with ThreadPoolExecutor(min(judge.concurrency, len(missing)), "judge") as threads:
            futures = {key: threads.submit(asker.answer, key, payload) for key, payload in missing.items()}
            try:
                wait(futures.values(), return_when=FIRST_EXCEPTION)
            finally:
                stop.set()  # after an error or Ctrl-C; where all are done it stops nothing
    finally:
        endpoint.close()
    errors = [error for future in futures.values() if (error := future.exception()) is not None]
    real = [error for error in errors if not isinstance(error, Stopped)]
    if real:
        done = len(missing) - len(errors)
        real[0].add_note(f"{done} of {len(missing)} new answers are stored in {answers.path}; run again to go on")
        raise real[0]
    return {key: future.result() for key, future in futures.items()}


@dataclass(frozen=True)
class _Asker:
    """What the threads of one call share."""

    judge: Judge
    answers: Answers
    endpoint: Endpoint
    gate: Gate
    stop: threading.Event

    def answer(self, key: bytes, payload: dict[str, Any]) -> Reply:
        """The reply to one request, stored. Raises `JudgeError`, `BudgetSpent` or `Stopped`."""
        try:
            with self.gate.alone_with(key), self.gate.slots:
                return self._tried(key, payload)
        except BaseException:
            self.stop.set()
            raise

    def _tried(self, key: bytes, payload: dict[str, Any]) -> Reply:
        tokens, failure = most_tokens(payload), None
        most = self.judge.budget.price(1, *tokens)
        for turn in range(self.judge.retries + 1):
            if failure is not None:
                self._back_off(failure, turn)
            self.gate.turn(self.stop)
            found = self._charged(key, most)
            if found is not None:
                return Reply.of_json(found)
            got = self._sent(key, payload, tokens, most, again=turn > 0)
            if isinstance(got, Reply):
                return got
            if got.about_record is not None:  # free, and another server may take it: not stored
                return Reply(refused=got.about_record == "refused", too_long=got.about_record == "too_long")
            if not got.transient:
                raise JudgeError(got.words)
            failure = got
        raise JudgeError(
            f"the judge at {self.judge.url} did not answer in {self.judge.retries + 1} tries; the last time: "
            f"{failure.words if failure else ''}. See that the server runs, or give more retries or a longer timeout"
        )

    def _charged(self, key: bytes, most: Spent) -> str | None:
        """Charge the account for a request, or find the reply that came meanwhile.

        Where the account is full, requests that are in flight may turn out cheaper than their most: they are waited
        for. Raises `BudgetSpent` where none is.
        """
        gate, budget = self.gate, self.judge.budget
        while True:
            seen = gate.settled
            try:
                with gate.change:
                    found = self.answers.reserve(key, most, budget)
                    gate.held += found is None
                return found
            except NoRoom as full:
                limit = str(full)
            with gate.change:
                if gate.settled == seen and not gate.held:
                    break
                gate.change.wait_for(partial(gate.moved, seen))
            if self.stop.is_set():
                raise Stopped
        raise BudgetSpent(
            f"the judge's budget of {limit} leaves no room for the next request, which may take {most}; "
            f"account {budget.account!r} has spent {self.answers.spent(budget.account)}. What was answered is stored "
            "and costs nothing again: run again with a higher budget to go on"
        )

    def _sent(
        self, key: bytes, payload: dict[str, Any], tokens: tuple[int, int], most: Spent, *, again: bool
    ) -> Reply | Failure:
        """Send one charged request, commit the reply, and settle what it cost, whatever becomes of it."""
        budget, true = self.judge.budget, most
        try:
            got = self.endpoint.send(payload, tokens)
            if isinstance(got, Reply):
                true = budget.price(1, got.input_tokens, got.output_tokens)
                self.answers.commit(key, self.judge.model, got.as_json(), account=budget.account, most=most, true=true)
            elif not got.billed:
                true = Spent(requests=1)
                self.answers.settle(budget.account, most, true)
            return got
        finally:
            with self.gate.change:
                self.gate.held -= 1
                self.gate.settled += 1
                self.gate.requests += 1
                self.gate.retries += again
                self.gate.billed += true
                self.gate.change.notify_all()

    def _back_off(self, failure: Failure, turn: int) -> None:
        """Wait before the next try: as long as the server says, else twice as long each time, less up to a half."""
        seconds = min(self.judge.backoff_seconds * 2.0 ** (turn - 1), LONGEST_BACKOFF_SECONDS)
        seconds *= random.uniform(0.5, 1.0)  # so that many clients do not come back at once; no result depends on it
        if failure.wait_seconds is not None:
            if failure.wait_seconds > LONGEST_WAIT_SECONDS:
                raise JudgeError(
                    f"the judge's server asks to be left alone for {failure.wait_seconds:.0f} s: {failure.words}"
                )
            self.gate.hold(failure.wait_seconds)
            seconds = max(seconds, failure.wait_seconds)
        log.info("try %d of %d failed: %s; next in %.1f s", turn, self.judge.retries + 1, failure.words, seconds)
        if self.stop.wait(seconds):
            raise Stopped
