"""What a user sees while something runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from coretune import terminal


@pytest.fixture
def log(monkeypatch):
    """Standard error that is no terminal, and a clock that the test moves."""
    text, clock = io.StringIO(), [0.0]
    monkeypatch.setattr(terminal, "errors", Console(file=text, width=200))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    return text, clock


def test_a_log_gets_a_line_with_rate_and_time_left_now_and_then(log):
    text, clock = log
    watch = terminal.Watch()
    for second in range(0, 31, 5):
        clock[0] = float(second)
        watch("embedding", 10 * second, 400)
    lines = text.getvalue().splitlines()
    assert lines == [
        "embedding: 50 of 400, 10/s, 35 s left",
        "embedding: 150 of 400, 10/s, 25 s left",
        "embedding: 250 of 400, 10/s, 15 s left",
    ]


def test_quick_stages_say_nothing(log):
    text, clock = log
    watch = terminal.Watch()
    watch("length", 0, 100)
    clock[0] = 1.9
    watch("length", 100, 100)
    assert text.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes_when_it_is_done(monkeypatch):
    text, clock = io.StringIO(), [0.0]
    monkeypatch.setattr(terminal, "errors", Console(file=text, width=120, force_terminal=True))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    with terminal.Watch().shown() as watch:
        watch("embedding", 0, 400)
        clock[0] = 3.0
        watch("embedding", 120, 400)
        watch._bars.refresh()
    assert "embedding" in text.getvalue()
    assert "120/400" in text.getvalue()


def test_messages_and_errors_keep_what_looks_like_markup(log):
    text, _ = log
    terminal.complain("no file [bold]x[/bold].jsonl")
    terminal.listen()
    terminal.logging.getLogger("coretune.test").warning("%d rows [red] left out", 3)
    assert text.getvalue().splitlines() == ["error: no file [bold]x[/bold].jsonl", "warning: 3 rows [red] left out"]
