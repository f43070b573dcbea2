"""A TCP proxy for one pair of processes, and what it may do to their connections.

Between client and server it knows where a request ends, so that it can cut a
connection after the request was forwarded, or send the request twice.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal

Disturbance = Literal["drop", "delay", "cut", "duplicate", "refuse"]
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CUT_PART = 0.5
"""The part of requests that are cut or sent twice while a proxy does that."""
DUPLICATE_LIVES = 10.0
"""Seconds for which the second of two equal requests may wait for its answer."""


@dataclass(frozen=True)
class Upstream:
    """Where a proxy leads: a port on loopback, or a Unix socket."""

    port: int = 0
    socket: str | None = None


class Proxy:
    """Listens for one side of a pair and connects to the other."""

    def __init__(
        self, name: str, upstream: Upstream, chance: random.Random, *, http: bool
    ) -> None:
        self.name = name
        self.upstream = upstream
        self.chance = chance
        self.http = http
        self.disturbance: Disturbance | None = None
        self.delay = 0.0
        self.links: set[Link] = set()
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Side(Link(self), is_client=True), "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def disturb(self, disturbance: Disturbance, delay: float = 0.0) -> None:
        self.disturbance, self.delay = disturbance, delay
        if disturbance == "refuse":
            self.cut_all()

    def heal(self) -> None:
        """Let all pass again; connections that lost something are cut."""
        self.disturbance = None
        for link in list(self.links):
            if link.has_lost:
                link.abort()

    def cut_all(self) -> None:
        for link in list(self.links):
            link.abort()

    def deafen(self) -> int:
        """Swallow what comes on the connections that LISTEN, for as long as they live.

        Nobody is told, as with a connection whose other end is gone. How many.
        """
        listening = [link for link in self.links if link.listens]
        for link in listening:
            link.is_deaf = True
        return len(listening)

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut_all()


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client: asyncio.Transport | None = None
        self.server: asyncio.Transport | None = None
        self.has_lost = False
        self.listens = False
        self.is_deaf = False
        self._early = bytearray()
        self._request = bytearray()
        self._passes_at = {True: 0.0, False: 0.0}
        self._queued: dict[bool, deque[bytes]] = {True: deque(), False: deque()}
        self._connecting: asyncio.Task[None] | None = None

    def opened(self, transport: asyncio.Transport) -> None:
        self.client = transport
        self.proxy.links.add(self)
        if self.proxy.disturbance == "refuse":
            self.abort()
        else:
            self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        upstream = self.proxy.upstream

        def side() -> _Side:
            return _Side(self, is_client=False)

        try:
            if upstream.socket is not None:
                await loop.create_unix_connection(side, upstream.socket)
            else:
                await loop.create_connection(side, "127.0.0.1", upstream.port)
        except OSError:
            self.abort()

    def connected(self, transport: asyncio.Transport) -> None:
        self.server = transport
        if self.client is None or self.client.is_closing():
            transport.abort()
        elif self._early:
            self._pass(bytes(self._early), from_client=True)
            self._early.clear()

    def received(self, data: bytes, *, from_client: bool) -> None:
        proxy = self.proxy
        # A stream has no holes: once something of it is lost, so is all that follows.
        if self.has_lost or self.is_deaf or proxy.disturbance == "drop":
            self.has_lost = True
            return
        if from_client and self.server is None:
            self._early += data
        else:
            self._pass(data, from_client=from_client)

    def _pass(self, data: bytes, *, from_client: bool) -> None:
        self._send(data, from_client=from_client)
        if self.proxy.http:
            self._follow(data, from_client=from_client)
        elif from_client and b"LISTEN" in data:
            self.listens = True

    def _follow(self, data: bytes, *, from_client: bool) -> None:
        if not from_client:
            self._request.clear()
            return
        self._request += data
        if self.proxy.disturbance not in {"cut", "duplicate"}:
            return
        if not _is_whole(self._request):
            return
        request = bytes(self._request)
        self._request.clear()
        if self.proxy.chance.random() < CUT_PART:
            if self.proxy.disturbance == "duplicate":
                proxy_task(_send_again(self.proxy.upstream, request))
            elif self.server is not None and self.client is not None:
                # The server gets to read it: its end is closed in order.
                self.client.abort()
                self.server.close()

    def _send(self, data: bytes, *, from_client: bool) -> None:
        """Now or later, but never before what came earlier."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        at = max(self._passes_at[from_client], now)
        if self.proxy.disturbance == "delay":
            at = max(at, now + self.proxy.delay)
        self._passes_at[from_client] = at
        queued = self._queued[from_client]
        if at <= now and not queued:
            self._write(data, from_client)
        else:
            # Timers of one instant go off in no certain order, and late ones later
            # than what comes meanwhile: they say when to write, and not what.
            queued.append(data)
            loop.call_at(at, self._write_next, from_client)

    def _write_next(self, from_client: bool) -> None:
        self._write(self._queued[from_client].popleft(), from_client)

    def _write(self, data: bytes, from_client: bool) -> None:
        to = self.server if from_client else self.client
        if to is not None and not to.is_closing():
            to.write(data)

    def lost(self) -> None:
        """One end is closed: so is the other, once it has what was sent."""
        self.proxy.links.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()
        for transport in (self.client, self.server):
            if transport is not None:
                transport.close()

    def abort(self) -> None:
        self.proxy.links.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()
        for transport in (self.client, self.server):
            if transport is not None:
                transport.abort()


class _Side(asyncio.Protocol):
    def __init__(self, link: Link, *, is_client: bool) -> None:
        self._link = link
        self._is_client = is_client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._is_client:
            self._link.opened(transport)
        else:
            self._link.connected(transport)

    def data_received(self, data: bytes) -> None:
        self._link.received(data, from_client=self._is_client)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.lost()


def _is_whole(request: bytearray) -> bool:
    head, separator, body = bytes(request).partition(b"\r\n\r\n")
    if not separator:
        return False
    length = CONTENT_LENGTH.search(head)
    return len(body) >= (int(length[1]) if length else 0)


_running: set[asyncio.Task[None]] = set()


def proxy_task(work: Coroutine[Any, Any, None]) -> None:
    """Run beside the proxy; asyncio itself keeps only weak references to tasks."""
    task = asyncio.ensure_future(work)
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _send_again(upstream: Upstream, request: bytes) -> None:
    """The same request on a connection of its own, whose answer nobody reads."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    except OSError:
        return
    try:
        writer.write(request)
        await asyncio.wait_for(reader.read(1), DUPLICATE_LIVES)
    except (OSError, asyncio.TimeoutError):
        pass
    finally:
        writer.close()
