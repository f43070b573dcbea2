"""Structured logs: a line of JSON for each event, or readable text on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Literal, TextIO

import structlog

from botfarm_server.domain.texts import printable

BY_ANYBODY = (
    "Invalid HTTP request received.",
    "Unsupported upgrade request.",
    "No supported WebSocket library detected.",
)
"""How that begins which uvicorn tells of what is sent to it, also without a token."""
WINDOW = 60.0
"""Seconds in which each of it is told once."""


class Seldom(logging.Filter):
    """Lets that which anybody can make uvicorn tell pass once in a while, with a count.

    The log would else grow for as long as somebody sends what is no HTTP.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[str, float] = {}
        self._left_out = dict.fromkeys(BY_ANYBODY, 0)

    def filter(self, record: logging.LogRecord) -> bool:
        told = str(record.msg)
        kind = next((it for it in BY_ANYBODY if told.startswith(it)), None)
        if kind is None:
            return True
        now = self._clock()
        if kind in self._last and now - self._last[kind] < WINDOW:
            self._left_out[kind] += 1
            return False
        self._last[kind] = now
        if left_out := self._left_out[kind]:
            record.msg = f"{told} {left_out} more since this was told last."
            self._left_out[kind] = 0
        return True


def configure_logging(
    level: str,
    log_format: Literal["auto", "json", "text"],
    stream: TextIO | None = None,
) -> None:
    """Send the logs of the server, and of the libraries under it, to standard error."""
    stream = stream or sys.stderr
    text = log_format == "text" or (log_format == "auto" and stream.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    last: list[structlog.types.Processor] = (
        [
            _printable,
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(),
                # With rich installed the default shows local variables: secrets.
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
        if text
        else [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.error").filters[:] = [Seldom()]
    # SQLAlchemy and the drivers tell values of statements below this level.
    for name in ("sqlalchemy", "aiosqlite", "asyncpg", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Requests are told by their effect: leases and users, with their ids.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)


def _printable(
    _: object, __: str, told: structlog.types.EventDict
) -> structlog.types.EventDict:
    # A path, for one, is told as the caller sent it.
    return {
        name: printable(it) if isinstance(it, str) else it for name, it in told.items()
    }
