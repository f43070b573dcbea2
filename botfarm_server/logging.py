"""Structured logs: a line of JSON for each event, or readable text on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

import structlog

from botfarm_server.domain.texts import printable


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
