"""The asynchronous client, for asyncio and trio: drives the same conversations."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import anyio
import httpx

from .core import LeaseProtocol
from .exchange import Conversation, Effect, Outcomes, Response, Sleep
from .forking import on_fork
from .http import (
    failure_of,
    headers_of,
    request_of,
    transport_options,
    warning_of,
)

# Bound at import, before a test can put a double in their place: mocks of httpx
# replace the method on the class, and some tests replace what sleeps.
_handle_request = httpx.AsyncHTTPTransport.handle_async_request
_sleep = partial(anyio.sleep)

T = TypeVar("T")


class AsyncClient:
    """One event loop's connection to a server."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.protocol = LeaseProtocol(url)
        self.warning = warning_of(url, token)
        self._headers = headers_of(token)
        self._transport: httpx.AsyncHTTPTransport | None = None
        self._abandoned: Sequence[httpx.AsyncHTTPTransport] = ()
        on_fork(self)

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def run(self, conversation: Conversation[T]) -> T:
        """Hold a conversation of `self.protocol` and return what it comes to."""
        outcome: Outcomes = None
        try:
            while True:
                outcome = await self._perform(conversation.send(outcome))
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            conversation.close()

    async def aclose(self) -> None:
        """Close the connections. The next conversation opens a new one."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    def after_fork_in_child(self) -> None:
        if self._transport is not None:
            self._abandoned = (*self._abandoned, self._transport)
            self._transport = None

    async def _perform(self, effect: Effect) -> Outcomes:
        if isinstance(effect, Sleep):
            await _sleep(effect.seconds)
            return None
        if self._transport is None:
            options = transport_options(self.url)
            self._transport = httpx.AsyncHTTPTransport(**options)
        request = request_of(effect, self.url, self._headers)
        try:
            response = await _handle_request(self._transport, request)
            try:
                content = await response.aread()
            finally:
                await response.aclose()
        # httpcore lets anyio's errors of TLS pass as they are.
        except (httpx.TransportError, ssl.SSLError) as error:
            return failure_of(error, self.url)
        return Response(response.status_code, response.headers, content)
