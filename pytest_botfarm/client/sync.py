"""The synchronous client: drives the conversations of `core` over httpx."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import TypeVar

import httpx

from .core import LeaseProtocol
from .exchange import Conversation, Effect, Moved, Outcomes, Response, Sleep
from .forking import on_fork
from .http import (
    failure_of,
    headers_of,
    request_of,
    transport_options,
    warning_of,
)
from .shielded import ShieldedTransport

# Bound at import, before a test can put a double in its place.
_sleep = partial(time.sleep)

T = TypeVar("T")


class Client:
    """One process's connection to a server.

    May be used by several threads. A forked child starts with a new connection.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        locate: Callable[[], str] | None = None,
    ) -> None:
        """`locate` is asked for the URL whenever nobody answers at the known one. It
        may raise a BotfarmError that tells why nobody will.
        """
        self.protocol = LeaseProtocol(url)
        self.warning = warning_of(url, token)
        self._locate = locate
        self._headers = headers_of(token)
        self._transport: ShieldedTransport | None = None
        self._opening = Lock()
        self._abandoned: Sequence[ShieldedTransport] = ()
        on_fork(self)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    @property
    def url(self) -> str:
        """Where the server was last known to be."""
        return self.protocol.url

    def run(self, conversation: Conversation[T]) -> T:
        """Hold a conversation of `self.protocol` and return what it comes to."""
        outcome: Outcomes = None
        try:
            while True:
                outcome = self._perform(conversation.send(outcome))
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            conversation.close()

    def close(self) -> None:
        """Close the connections. The next conversation opens a new one."""
        with self._opening:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def after_fork_in_child(self) -> None:
        self._opening = Lock()
        # Not closed, which would take the connection pool's lock, and kept, since to
        # collect an open socket is a warning, which may be an error.
        if self._transport is not None:
            self._abandoned = (*self._abandoned, self._transport)
            self._transport = None

    def _perform(self, effect: Effect) -> Outcomes:
        if isinstance(effect, Sleep):
            _sleep(effect.seconds)
            return None
        request = request_of(effect, self.url, self._headers)
        try:
            response = self._open().handle_request(request)
            try:
                content = response.read()
            finally:
                response.close()
        except httpx.TransportError as error:
            url = self.url if self._locate is None else self._locate()
            return failure_of(error, url) if url == self.url else Moved(url)
        except BaseException:
            # Ctrl-C in the middle of an exchange: what comes next on this connection
            # is the answer to nobody's question.
            self.close()
            raise
        return Response(response.status_code, response.headers, content)

    def _open(self) -> ShieldedTransport:
        with self._opening:
            if self._transport is None:
                self._transport = ShieldedTransport(**transport_options(self.url))
            return self._transport
