"""What the server's log shows on a terminal."""

from __future__ import annotations

import io
import logging

import structlog

from botfarm_server.logging import WINDOW, Seldom, configure_logging


def test_what_a_caller_sends_does_not_steer_the_terminal_that_shows_the_log() -> None:
    root, shown = logging.getLogger(), io.StringIO()
    handlers = root.handlers[:]
    configure_logging("INFO", "text", shown)
    try:
        path = "/api/v1/users/\x1b[2J\x9b31m\u202egnp"
        structlog.get_logger("botfarm.api").warning("call refused", path=path)
    finally:
        root.handlers[:] = handlers
    assert r"path=/api/v1/users/\x1b[2J\x9b31m\u202egnp" in shown.getvalue()
    assert shown.getvalue().rstrip("\n").isprintable()


def test_what_anybody_can_make_the_log_tell_is_told_seldom_and_with_a_count() -> None:
    """What is sent and is no HTTP, needs no token."""
    now = iter((0.0, 1.0, WINDOW - 1, WINDOW, WINDOW + 1))
    seldom, told = Seldom(lambda: next(now)), list[str]()
    broken = "Invalid HTTP request received."
    for message in (broken, "Shutting down", *[broken] * 4):
        record = logging.LogRecord("", logging.WARNING, "", 0, message, None, None)
        if seldom.filter(record):
            told.append(record.getMessage())
    again = f"{broken} 2 more since this was told last."
    assert told == [broken, "Shutting down", again]


def test_a_flood_of_what_is_no_http_leaves_a_line_of_each_kind() -> None:
    told, error = io.StringIO(), logging.getLogger("uvicorn.error")
    root = logging.getLogger()
    handlers, filters = root.handlers[:], error.filters[:]
    configure_logging("INFO", "json", told)
    try:
        for _ in range(50):
            error.warning("Invalid HTTP request received.")
            error.warning("Unsupported upgrade request.")
    finally:
        root.handlers[:], error.filters[:] = handlers, filters
    assert len(told.getvalue().splitlines()) == 2
