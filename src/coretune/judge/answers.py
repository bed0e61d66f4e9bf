"""The file of answers: every reply under the hash of its request, and what each account has spent.

One SQLite file, in write-ahead mode with full syncing: what was committed survives a kill and a loss of power, and any
number of threads and processes may share it. A sync costs about a millisecond, an answer takes many.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from coretune.errors import FolderError
from coretune.judge.spending import Budget, Spent

WAIT_SECONDS = 60.0  # for another process that writes
TABLES = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, model TEXT NOT NULL, reply TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (
    account TEXT PRIMARY KEY, requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, money REAL NOT NULL
);
"""


class NoRoom(Exception):
    """The account has no room for a request; the text names the limit."""


def key_of(payload: dict[str, Any], salt: str = "") -> bytes:
    """The 16-byte hash of what is asked: model, messages and all settings, not where they are sent."""
    said = json.dumps([payload, salt], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(said.encode(), digest_size=16).digest()


class Answers:
    """The file, opened; usable from many threads. Raises `FolderError` where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._failing_clearly():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute("PRAGMA synchronous=FULL")
                self._base.executescript(TABLES)
            except BaseException:
                self._base.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._base.close()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """The replies that are there."""
        found: dict[bytes, str] = {}
        with self._lock, self._failing_clearly():
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                marks = ",".join("?" * len(some))
                found.update(self._base.execute(f"SELECT key, reply FROM answers WHERE key IN ({marks})", list(some)))
        return found

    def reserve(self, key: bytes, most: Spent, budget: Budget) -> str | None:
        """Charge a request at its most before it is sent; where its reply is there already, that reply instead.

        Raises `NoRoom` where the account would pass a limit.
        """
        with self._writing() as base:
            found = base.execute("SELECT reply FROM answers WHERE key = ?", [key]).fetchone()
            if found is not None:
                return str(found[0])
            limit = budget.beyond(self._spent(budget.account) + most)
            if limit is not None:
                raise NoRoom(limit)
            self._charge(budget.account, most)
            return None

    def settle(self, account: str, most: Spent, true: Spent) -> None:
        """Put what a request did cost in the place of its most."""
        with self._writing():
            self._charge(account, _difference(true, most))

    def commit(self, key: bytes, model: str, reply: str, *, account: str, most: Spent, true: Spent) -> None:
        """Store a reply and settle what it cost, in one step."""
        with self._writing() as base:
            base.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", [key, model, reply, time.time()])
            self._charge(account, _difference(true, most))

    def spent(self, account: str) -> Spent:
        """What an account has spent."""
        with self._lock, self._failing_clearly():
            return self._spent(account)

    def _spent(self, account: str) -> Spent:
        asked = "SELECT requests, input_tokens, output_tokens, money FROM accounts WHERE account = ?"
        row = self._base.execute(asked, [account]).fetchone()
        return Spent() if row is None else Spent(*row)

    def _charge(self, account: str, cost: Spent) -> None:
        self._base.execute("INSERT OR IGNORE INTO accounts VALUES (?, 0, 0, 0, 0)", [account])
        self._base.execute(
            "UPDATE accounts SET requests = requests + ?, input_tokens = input_tokens + ?, "
            "output_tokens = output_tokens + ?, money = money + ? WHERE account = ?",
            [cost.requests, cost.input_tokens, cost.output_tokens, cost.money, account],
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone among threads and processes."""
        with self._lock, self._failing_clearly():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
            except BaseException:
                self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    @contextlib.contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.DatabaseError) as error:
            raise FolderError(
                f"the answers of judges cannot be kept in {self.path} ({error}); free space there or give the judge "
                "another folder with `store`. What was committed stays: run again to go on"
            ) from error


def _difference(one: Spent, other: Spent) -> Spent:
    return one + Spent(-other.requests, -other.input_tokens, -other.output_tokens, -other.money)
