"""What the server's log shows on a terminal."""

from __future__ import annotations

import io
import logging

import structlog

from botfarm_server.logging import configure_logging


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
