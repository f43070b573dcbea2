"""Connections with an end to what a client may send, leave unread and keep open."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from botfarm_server.api.errors import error_response
from botfarm_server.api.lanes import LET_IN
from botfarm_server.api.middleware import ProtocolHeader
from botfarm_server.domain.errors import ShuttingDownError
from botfarm_server.services.guessing import source_of

MAXIMUM_HEAD = 65_536
"""Bytes of a request's first line and headers: eight times what proxies let pass. And
of what is around the parts of a body: lengths of chunks, extensions and trailers."""
MOST_HEADERS = 100
"""Lines of a head: as many as other servers take. What is kept of each has many times
the bytes of a short one."""

MOST_IDLE = 500
"""Connections on which no call is under way, and as many of strangers, whatever is
under way there. Without an end to them, whoever has no token could leave no file
descriptor to others."""
MOST_UNREAD = 67_108_864
"""Bytes of answers that their clients have yet to read, all together: many times what
suites ask for at once, and an eighth of the memory of a small container."""
PORTION = 65_536
"""Bytes of an answer that are sent at once: as much as is kept for a connection before
it counts as one whose client does not read."""
MOST_FILES = 65_536
"""File descriptors to ask the system for: each call that waits has one."""


def in_portions(app: ASGIApp) -> ASGIApp:
    """The app, whose large answers go to the connection bit by bit, and after its end.

    How much is unread would else not be known where TLS is spoken; and what the app had
    in hand for the answer would stay for as long as the client takes to read it.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        large: Message | None = None

        async def send_or_keep(message: Message) -> None:
            nonlocal large
            if len(message.get("body", b"")) > PORTION and not message.get("more_body"):
                large = message
            else:
                await send(message)

        await app(scope, receive, send_or_keep)
        if large is not None:
            body = large["body"]
            for start in range(0, len(body), PORTION):
                end = start + PORTION
                is_last = end >= len(body)
                portion = {"body": body[start:end], "more_body": not is_last}
                await send({**large, **portion})

    return serve


def ended_in_words(app: ASGIApp) -> ASGIApp:
    """The app, whose calls are told so if they are still under way when a server ends.

    uvicorn cancels them then. By itself it would answer each with a plain 500, and tell
    the log of each with a traceback.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await app(scope, receive, send_noted)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            if not has_begun:
                answer = ProtocolHeader(error_response(ShuttingDownError()))
                await answer(scope, receive, send)

    return serve


class IdleConnections:
    """Connections that may be ended for newcomers, in the order in which they came.

    One more than the limit ends the first of the address that has most of them. A call
    that comes on it at this moment is lost, and its client sends it again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._transports: dict[BoundedProtocol, asyncio.Transport] = {}
        # What follows is kept up, not counted, for each newcomer: a flood of them would
        # cost as many steps for each as there are connections. (In an ordinary `dict`
        # the first is found behind the gaps of all that were first before.)
        self._of_each: dict[str, OrderedDict[BoundedProtocol, None]] = {}
        """Those of each address that has any; the first first."""
        self._having: defaultdict[int, OrderedDict[str, None]] = defaultdict(
            OrderedDict
        )
        """The addresses that have so many."""
        self._highest = 0
        """How many the address has that has most."""

    def __iter__(self) -> Iterator[BoundedProtocol]:
        return iter(self._transports)

    def add(self, connection: BoundedProtocol, transport: asyncio.Transport) -> None:
        """Again is no error, and changes nothing."""
        if connection in self._transports:
            return
        self._transports[connection] = transport
        source = connection.source
        theirs = self._of_each.setdefault(source, OrderedDict())
        theirs[connection] = None
        self._note(source, before=len(theirs) - 1, now=len(theirs))
        if len(self._transports) > self._most:
            most = next(iter(self._having[self._highest]))
            self.end(next(iter(self._of_each[most])))

    def remove(self, connection: BoundedProtocol) -> None:
        """Again is no error."""
        if connection in self._transports:
            self._take(connection)

    def end(self, connection: BoundedProtocol) -> None:
        # Not `close`, which would wait for a client that does not read.
        self._take(connection).abort()

    def _take(self, connection: BoundedProtocol) -> asyncio.Transport:
        source = connection.source
        theirs = self._of_each[source]
        del theirs[connection]
        self._note(source, before=len(theirs) + 1, now=len(theirs))
        if not theirs:
            del self._of_each[source]
        return self._transports.pop(connection)

    def _note(self, source: str, *, before: int, now: int) -> None:
        """Note that an address has one more, or one less."""
        if before:
            having = self._having[before]
            del having[source]
            if not having:
                del self._having[before]
        if now:
            self._having[now][source] = None
        if now > self._highest or self._highest not in self._having:
            self._highest = now


class Connections:
    """Those of a server that may be ended, each in one of two groups."""

    def __init__(self, most: int) -> None:
        """`most` is how many each group may have."""
        self.strangers = IdleConnections(most)
        """Those on which the last call, if there was any, has not been let in: it has
        not come yet, waits for its turn, or was refused."""
        self.idle = IdleConnections(most)
        """Others that wait for their clients: these have to send a whole request, or to
        read an answer."""

    def bound_unread(self) -> None:
        """End the first of those that leave too much unread, but never the last."""
        unread = [
            (group, it, size)
            for group in (self.strangers, self.idle)
            for it in group
            if (size := it.unread())
        ]
        total = sum(size for _, _, size in unread)
        for group, connection, size in unread[:-1]:
            if total <= MOST_UNREAD:
                return
            group.end(connection)
            total -= size


class TooMuchError(Exception):
    """A client sends more than is taken, or before it has what it asked for."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP over httptools.

    By itself that takes a head without end, and requests without end behind one that is
    not answered, and waits for ever for a client that does not read.
    """

    def __init__(
        self, *given: Any, timeout: float, others: Connections, **named: Any
    ) -> None:
        """`others` is where all connections of the server are sorted."""
        super().__init__(*given, **named)
        self.source = ""
        """From where it comes, as `source_of` says."""
        self._timeout = timeout
        self._others = others
        self._is_let_in = False
        """Whether the call that is under way, or else the last, was let in."""
        self._answered: RequestResponseCycle | None = None
        """That of the first request without an answer, or else the last one."""
        self._is_in_head = True
        self._unused = 0
        """Bytes since the last that ended a head or were of a body."""
        self._too_slow: asyncio.TimerHandle | None = None
        self._unread_too_long: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._wait_for_head()
        self.source = source_of(self.client[0]) if self.client else ""
        self._others.strangers.add(self, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._end_pause()
        self._leave_unanswered()
        super().connection_lost(exc)
        self._others.strangers.remove(self)
        self._others.idle.remove(self)

    def data_received(self, data: bytes) -> None:
        self._unused += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unused > MAXIMUM_HEAD:
            self.send_400_response(
                "The head of the request, or what is around its body, is too long."
            )
        elif self._is_in_head and self._too_slow is None:
            self._wait_for_head()

    def send_400_response(self, msg: str) -> None:
        self._leave_unanswered()
        super().send_400_response(msg)

    def on_message_begin(self) -> None:
        if self.flow.write_paused:
            self.transport.abort()  # who does not read would not read a refusal
            raise TooMuchError
        if self.pipeline:
            raise TooMuchError  # which the parser passes on as its own: 400
        self._is_in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            return  # a trailer, which nothing here has a use for
        super().on_header(name, value)
        if len(self.headers) > MOST_HEADERS:
            raise TooMuchError

    def on_headers_complete(self) -> None:
        self._end_head()
        self.scope["extensions"] = {LET_IN: {"tell": self._let_in}}
        super().on_headers_complete()
        if not self.pipeline:
            self._answered = self.cycle
            self._is_let_in = False
            self._sort()

    def on_body(self, body: bytes) -> None:
        self._unused = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unused = 0
        super().on_message_complete()
        self._sort()

    def on_response_complete(self) -> None:
        if self.pipeline and self.flow.write_paused:
            self.transport.abort()  # as in `on_message_begin`
        self._is_let_in = self._is_let_in and not self.pipeline
        super().on_response_complete()
        self._answered = self.cycle
        self._sort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_too_long = self.loop.call_later(
            self._timeout, self.transport.abort
        )
        self._sort()
        self._others.bound_unread()

    def resume_writing(self) -> None:
        self._end_pause()
        super().resume_writing()
        self._sort()

    def unread(self) -> int:
        """Bytes that are there for a client which does not read as fast as it could."""
        if self._answered is None or not self.flow.write_paused:
            return 0
        to_send: int = self._answered.expected_content_length
        return self.transport.get_write_buffer_size() + to_send

    def _let_in(self) -> None:
        """Take it from the strangers, as the app says by an extension of ASGI."""
        self._is_let_in = True
        self._sort()

    def _sort(self) -> None:
        """Count it where it belongs now."""
        others = self._others
        is_under_way = self._answered is not None and not (
            self._answered.more_body or self._answered.response_complete
        )
        if self not in self.connections:
            return
        if not self._is_let_in:
            others.idle.remove(self)
            others.strangers.add(self, self.transport)
            return
        others.strangers.remove(self)
        if is_under_way and not self.flow.write_paused:
            others.idle.remove(self)
        else:
            others.idle.add(self, self.transport)

    def _leave_unanswered(self) -> None:
        """Let what is under way find its client gone; uvicorn tells the last alone."""
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()

    def _wait_for_head(self) -> None:
        self._too_slow = self.loop.call_later(self._timeout, self.transport.close)

    def _end_head(self) -> None:
        self._is_in_head, self._unused = False, 0
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None

    def _end_pause(self) -> None:
        if self._unread_too_long is not None:
            self._unread_too_long.cancel()
            self._unread_too_long = None


def bounded_protocol(timeout: float) -> type[asyncio.Protocol]:
    """What uvicorn is to make connections with, for one server.

    `timeout` is how many seconds a client may take to send a head, or to read on.
    """
    others = Connections(min(MOST_IDLE, files_allowed() // 4))
    return cast(
        "type[asyncio.Protocol]",
        partial(BoundedProtocol, timeout=timeout, others=others),
    )


def files_allowed() -> int:
    """How many files the process may open, once it has asked for all it can have."""
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return MOST_FILES
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if most == resource.RLIM_INFINITY else min(most, MOST_FILES)
    if allowed == resource.RLIM_INFINITY:
        return MOST_FILES
    if allowed < wanted:
        with suppress(ValueError, OSError):  # macOS has a limit beside these
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            return wanted
    return allowed
