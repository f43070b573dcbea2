"""TLS before HTTP, with an end to how many clients are about to speak it.

By themselves neither asyncio nor uvloop tells of a connection before its handshake is
over, which a client may leave half done for a minute. Each has a file descriptor and
some 40 KB.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

from botfarm_server.connections import files_allowed

MOST_AT_ONCE = 200
"""Handshakes that have not ended: many times what a machine does in the time that a
client on the other side of the earth takes for its part."""

MakeProtocol = Callable[..., asyncio.Protocol]


class Handshakes:
    """Makes uvicorn's protocol for a connection once its client has spoken TLS.

    One handshake more than the limit ends the one that has taken the longest.
    """

    def __init__(
        self, make_protocol: MakeProtocol, context: ssl.SSLContext, *, timeout: float
    ) -> None:
        """`timeout` is how many seconds a client may take for its handshake."""
        self._make_protocol = make_protocol
        self._context = context
        self._timeout = timeout
        self._most = min(MOST_AT_ONCE, files_allowed() // 4)
        self._under_way: dict[asyncio.Task[None], None] = {}

    def __call__(self, **named: Any) -> asyncio.Protocol:
        """As uvicorn calls what it makes protocols with."""
        return _Accepted(partial(self._begin, partial(self._make_protocol, **named)))

    def _begin(
        self, make_protocol: Callable[[], asyncio.Protocol], client: socket.socket
    ) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._shake(make_protocol, client))
        self._under_way[task] = None
        task.add_done_callback(partial(self._ended, client))
        if len(self._under_way) > self._most:
            longest = next(iter(self._under_way))
            del self._under_way[longest]
            longest.cancel()

    async def _shake(
        self, make_protocol: Callable[[], asyncio.Protocol], client: socket.socket
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                make_protocol,
                client,
                ssl=self._context,
                ssl_handshake_timeout=self._timeout,
            )
        except OSError:  # of ssl as well: what the client did wrong is its own affair
            client.close()

    def _ended(self, client: socket.socket, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        if task.cancelled():
            client.close()


class _Accepted(asyncio.Protocol):
    """Takes a connection from the event loop before anything is read of it."""

    def __init__(self, begin: Callable[[socket.socket], None]) -> None:
        self._begin = begin

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        accepted = transport.get_extra_info("socket")
        client = socket.fromfd(accepted.fileno(), accepted.family, accepted.type)
        client.setblocking(False)
        transport.abort()  # its own descriptor alone: what is sent comes to the other
        self._begin(client)
