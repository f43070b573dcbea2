"""The synchronous client: drives the conversations of `core` over httpx."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Sequence
from functools import partial
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from .core import (
    Conversation,
    Effect,
    LeaseProtocol,
    Outcomes,
    Response,
    Sleep,
    TransportFailure,
)
from .core import Request as CoreRequest
from .forking import on_fork

CONNECT_TIME = 5.0
KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 s after which uvicorn ends it."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

# Bound at import, before a test can put a double in their place: mocks of httpx
# replace the method on the class, and some tests replace `time.sleep`.
_handle_request = httpx.HTTPTransport.handle_request
_sleep = partial(time.sleep)

T = TypeVar("T")


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for the URL, never one for loopback."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in LOOPBACK or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def headers_of(token: str | None) -> dict[str, str]:
    headers = {"content-type": "application/json", "accept": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    return headers


def request_of(effect: CoreRequest, url: str, headers: dict[str, str]) -> httpx.Request:
    """The effect as httpx has it.

    Sent to the transport itself: httpx.Client would log each call at INFO, into the
    captured logs of whichever test runs.
    """
    timeout = httpx.Timeout(effect.timeout, connect=CONNECT_TIME)
    return httpx.Request(
        effect.method,
        url + effect.path,
        headers=headers,
        content=json.dumps(effect.body).encode(),
        extensions={"timeout": timeout.as_dict()},
    )


def transport_options(url: str) -> dict[str, Any]:
    secure = urlsplit(url).scheme == "https"
    return {
        # Loading the certificates takes 20 ms, so not where none will be seen.
        "verify": httpx.create_ssl_context() if secure else False,
        "proxy": proxy_for(url),
        "limits": httpx.Limits(keepalive_expiry=KEEP_ALIVE),
    }


def failure_of(error: httpx.TransportError) -> TransportFailure:
    return TransportFailure(str(error).strip() or type(error).__name__)


class Client:
    """One process's connection to a server.

    May be used by several threads. A forked child starts with a new connection.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.protocol = LeaseProtocol(url)
        self._headers = headers_of(token)
        self._transport: httpx.HTTPTransport | None = None
        self._opening = Lock()
        self._abandoned: Sequence[httpx.HTTPTransport] = ()
        on_fork(self)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

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
            response = _handle_request(self._open(), request)
            try:
                content = response.read()
            finally:
                response.close()
        except httpx.TransportError as error:
            return failure_of(error)
        except BaseException:
            # Ctrl-C in the middle of an exchange: what comes next on this connection
            # is the answer to nobody's question.
            self.close()
            raise
        return Response(response.status_code, response.headers, content)

    def _open(self) -> httpx.HTTPTransport:
        with self._opening:
            if self._transport is None:
                self._transport = httpx.HTTPTransport(**transport_options(self.url))
            return self._transport
