"""Why a command did not do what it was told.

    CommandError                one or more sentences for a person; exit code 1
    ├── UsageError              the command was called wrongly; exit code 2
    └── ServerError             something about the server
        ├── NoAnswerError       it cannot be reached, or did not answer in time
        ├── NotBotfarmError     something else answers there
        └── RefusedError        it answered, and said no

`main.run` prints the message of each and ends the process with its exit code, so that
no traceback reaches a user. No message holds a token, a password or a file's cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

UNAVAILABLE = frozenset({429, 503})
"""Statuses that mean: nothing is wrong with the request, send it again later."""


class CommandError(Exception):
    exit_code: ClassVar[int] = 1


class UsageError(CommandError):
    exit_code: ClassVar[int] = 2


class ServerError(CommandError):
    may_be_repeated: bool = False


class NoAnswerError(ServerError):
    may_be_repeated = True


class NotBotfarmError(ServerError):
    pass


class RefusedError(ServerError):
    """The server's own words, and the facts that came with them."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        facts: Mapping[str, Any],
        retry_after: float = 1.0,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.facts = facts
        self.retry_after = retry_after
        self.may_be_repeated = status in UNAVAILABLE
