"""An OpenAI-compatible server that fails as asked, and writes down what it was asked and what it answered.

    with FaultyServer(log, plan=["429", "ok"]) as server: ...     in a test: faults in order of arrival, then clean
    python tests/faulty_server.py LOG PORT [--faults 0.1] [--slow 0.02]     as a process: faults drawn by chance

A clean answer depends on the payload alone: `score_of` says which number of the scale a request gets. The log has a
line `asked KEY` when a request was read, and then `answered KEY INPUT OUTPUT` when a whole clean answer was written, or
`failed KEY` for a fault.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import hashlib
import json
import math
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FAULTS = ("429", "500", "503", "truncated", "schema", "disconnect", "half", "no usage")


def digest(payload: dict[str, Any]) -> str:
    """The hash of a payload; the client's own agrees, so that logs and files can be compared."""
    said = json.dumps([payload, ""], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def score_of(payload: dict[str, Any], low: int, high: int) -> int:
    """The number that a clean answer gives: drawn from the payload's hash."""
    return low + int(digest(payload)[:8], 16) % (high - low + 1)


def scale_of(payload: dict[str, Any]) -> tuple[int, int]:
    """The scale that the last message asks for."""
    found = re.findall(r"number from (\d+) to (\d+)", payload["messages"][-1]["content"])
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 9)


def text_of(payload: dict[str, Any]) -> str:
    """What a clean answer says, in the form asked for."""
    asked = payload["messages"][-1]["content"]
    if "JSON list" in asked:
        return json.dumps([f"Tag {digest(payload)[:2]}", "common  tag"])
    if "Better: a" in asked:
        return "Better: a"  # a judge who always likes the first place
    number = score_of(payload, *scale_of(payload))
    return str(number) if payload.get("max_tokens") == 1 else f"Score: {number}"


def usage_of(payload: dict[str, Any]) -> tuple[int, int]:
    """Tokens in and out: words of the messages, and of the answer."""
    return sum(len(each["content"].split()) for each in payload["messages"]), len(text_of(payload).split())


def completion(payload: dict[str, Any], *, logprobs: bool, usage: bool, text: str | None = None) -> dict[str, Any]:
    """A chat completion."""
    said = text_of(payload) if text is None else text
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
    if logprobs and payload.get("logprobs"):
        low, high = scale_of(payload)
        top = [{"token": str(n), "logprob": -1.0 - abs(n - int(said)), "bytes": None} for n in range(low, high + 1)]
        top.append({"token": "The", "logprob": math.log(0.05), "bytes": None})
        choice["logprobs"] = {"content": [{"token": said, "logprob": -1.0, "bytes": None, "top_logprobs": top}]}
    whole = {"id": "made", "object": "chat.completion", "created": 0, "model": payload["model"], "choices": [choice]}
    tokens = usage_of(payload)
    counted = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return {**whole, "usage": counted} if usage else whole


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


class FaultyServer:
    """The server on a free port, in threads of this process.

    `plan` are faults in order of arrival (`ok` is none); after it, a share `faults` of requests fails at random.
    `logprobs` says whether it gives log-probabilities, `slow` how many seconds an answer takes, `says` overrides what
    clean answers say, `retry_after` is sent with 429, `key` is the only key that it takes.
    """

    def __init__(
        self,
        log: Path,
        *,
        plan: Sequence[str] = (),
        faults: float = 0.0,
        logprobs: bool = True,
        slow: float = 0.0,
        says: Callable[[dict[str, Any]], str] | None = None,
        retry_after: str | None = "0.05",
        key: str | None = None,
        port: int = 0,
        seed: int = 0,
    ) -> None:
        self.log, self.plan, self.faults, self.logprobs, self.slow = log, list(plan), faults, logprobs, slow
        self.says, self.retry_after, self.key = says, retry_after, key
        self.payloads: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.flying = self.most_flying = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), type("Owned", (Handler,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> FaultyServer:
        self._thread.start()
        return self

    def serve(self) -> None:
        self._server.serve_forever()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> FaultyServer:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    def note(self, *words: object) -> None:
        with self._lock, self.log.open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

    def next_fault(self, payload: dict[str, Any]) -> str:
        with self._lock:
            self.payloads.append(payload)
            self.times.append(time.monotonic())
            if self.plan:
                return self.plan.pop(0)
            return self._random.choice(FAULTS) if self._random.random() < self.faults else "ok"

    def count(self, change: int) -> None:
        with self._lock:
            self.flying += change
            self.most_flying = max(self.most_flying, self.flying)

    def wait(self, seconds: float) -> None:
        self._closing.wait(seconds)


def lasting(folder: Path, **faults: Any) -> FaultyServer:
    """A server that runs until the process ends."""
    server = FaultyServer(folder / "log", **faults).start()
    atexit.register(server.close)
    return server


REFUSALS = {
    "quota": (429, "no money left", "insufficient_quota"),
    "too long": (400, "This model's maximum context length is 64 tokens", "context_length_exceeded"),
    "filtered": (400, "not allowed", "content_filter"),
}


class Handler(BaseHTTPRequestHandler):
    """One connection; `owner` is set on a subclass for each server."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body go in one piece, or each waits for the other's acknowledgement
    owner: FaultyServer

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Authorization")
        if not self.path.endswith("/chat/completions"):
            return self.error(404, "no such path")
        if self.owner.key is not None and key != f"Bearer {self.owner.key}":
            return self.error(401, f"Incorrect API key provided: {key}")
        self.owner.note("asked", digest(payload))
        self.owner.count(1)
        try:
            fault = self.owner.next_fault(payload)
            self.owner.wait(self.owner.slow)
            if fault in ("ok", "refusal", "no usage", "truncated", "half"):
                self.answer(payload, fault)
            else:
                self.fail(fault)
            if fault not in ("ok", "refusal", "no usage"):
                self.owner.note("failed", digest(payload))
        finally:
            self.owner.count(-1)

    def fail(self, fault: str) -> None:
        """No completion at all."""
        if fault in REFUSALS:
            self.error(*REFUSALS[fault])
        elif fault.isdigit():
            wait = self.owner.retry_after if fault == "429" else None
            self.error(int(fault), "made to fail", headers={"Retry-After": wait} if wait else {})
        elif fault == "schema":
            self.send(200, json.dumps({"object": "list", "data": []}).encode())
        else:
            if fault == "hang":
                self.owner.wait(60)
            self.hang_up()

    def answer(self, payload: dict[str, Any], fault: str) -> None:
        """A completion, or the first half of one."""
        text = self.owner.says(payload) if self.owner.says else None
        whole = completion(payload, logprobs=self.owner.logprobs, usage=fault != "no usage", text=text)
        if fault == "refusal":
            whole["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "No."}
        body = json.dumps(whole).encode()
        if fault == "truncated":
            self.send(200, body[: len(body) // 2])
        elif fault == "half":
            self.send(200, body[: len(body) // 2], length=len(body))
            self.hang_up()
        else:
            self.send(200, body)
            self.owner.note("answered", digest(payload), *usage_of(payload))

    def error(self, status: int, words: str, code: str | None = None, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps({"error": {"message": words, "code": code}}).encode(), headers=headers)

    def send(
        self, status: int, body: bytes, *, length: int | None = None, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the client has gone
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *words: object) -> None:
        """Nothing on the terminal."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--slow", type=float, default=0.0)
    asked = parser.parse_args()
    server = FaultyServer(asked.log, faults=asked.faults, slow=asked.slow, port=asked.port)
    print(server.url, flush=True)
    try:
        server.serve()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
