"""What happens around every request, as plain ASGI.

Starlette's `@app.middleware("http")` hides a client's leaving from the handlers.
"""

from __future__ import annotations

import anyio
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from botfarm_server.api.auth import identify
from botfarm_server.api.errors import error_response, internal_error
from botfarm_server.api.headers import PROTOCOL, PROTOCOL_HEADER
from botfarm_server.domain.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    BotfarmError,
    UnsupportedBodyError,
)

STRANGERS_BODY = 16_384
"""Bytes of a body that are taken of anybody, who may be refused afterwards. What suites
send is smaller; of an import or a state, it is found out first who sends it."""
MOST_BODIES = 16
"""As many of the largest bodies are held while they arrive. A body becomes some twenty
times as large once it is read as JSON, and several may do so at once."""
LINGER = 2.0
"""Seconds for which a refused body is still taken, and dropped: a connection that is
closed before the client has sent all may lose the answer on its way."""


class ProtocolHeader:
    """Says in every answer which protocol this is; what fails becomes a plain 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[PROTOCOL_HEADER] = PROTOCOL
            await send(message)

        try:
            await self.app(scope, receive, send_marked)
        except Exception as error:
            response = internal_error(error)
            if started:
                raise
            await response(scope, receive, send_marked)


class TrailingSlash:
    """Makes a path under /api mean the same with and without a slash at its end."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if len(path) > 1 and path.endswith("/"):
                scope = {**scope, "path": path.rstrip("/") or "/"}
        await self.app(scope, receive, send)


class BodyLimits:
    """Reads each body whole, within bounds of size and time, before the app is called.

    A body that is no JSON by its header is refused unread, and so is a compressed one:
    nothing that is sent grows here. A large one is read of a caller that is known. All
    that arrive have their bound, too: one too many ends the one that takes the longest.
    """

    def __init__(self, app: ASGIApp, *, maximum: int, timeout: float) -> None:
        self.app = app
        self._maximum = maximum
        self._timeout = timeout
        self._arriving: dict[anyio.CancelScope, int] = {}
        """Bytes of each body, the first first."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}
        length = int(headers.get(b"content-length", 0))
        if not length and b"transfer-encoding" not in headers:
            await self.app(scope, receive, send)
            return
        try:
            self._check(headers, length)
            body = await self._read(scope, length, receive)
        except BotfarmError as error:
            await self._refuse(error, scope, receive, send)
            return
        if body is not None:
            await self.app(scope, _repeated(body, receive), send)

    def _check(self, headers: dict[bytes, bytes], length: int) -> None:
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding != b"identity" or not _is_json(headers.get(b"content-type", b"")):
            raise UnsupportedBodyError
        if length > self._maximum:
            raise BodyTooLargeError(self._maximum)

    async def _read(self, scope: Scope, length: int, receive: Receive) -> bytes | None:
        """The body; `None` if the client has left."""
        body, is_known = bytearray(), False
        with anyio.move_on_after(self._timeout) as arriving:
            try:
                while True:
                    if max(length, len(body)) > STRANGERS_BODY and not is_known:
                        with anyio.CancelScope(shield=True):  # it uses the database
                            await identify(Request(scope))
                        is_known = True
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self._maximum:
                        raise BodyTooLargeError(self._maximum)
                    if not message.get("more_body", False):
                        return bytes(body)
                    self._hold(arriving, len(body))
            finally:
                self._arriving.pop(arriving, None)
        raise BodyTimeoutError(self._timeout)

    def _hold(self, arriving: anyio.CancelScope, size: int) -> None:
        """Note what there is of a body, and make room for it."""
        self._arriving[arriving] = size
        while sum(self._arriving.values()) > MOST_BODIES * self._maximum:
            first = next(iter(self._arriving))
            del self._arriving[first]
            first.cancel()

    @staticmethod
    async def _refuse(
        error: BotfarmError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        # What has not come in its time is waited for no longer.
        with anyio.move_on_after(0 if isinstance(error, BodyTimeoutError) else LINGER):
            while (await receive()).get("more_body", False):
                pass
        response = error_response(error)
        response.headers["Connection"] = "close"
        await response(scope, receive, send)


def _is_json(content_type: bytes) -> bool:
    media_type = content_type.split(b";", 1)[0].strip().lower()
    return media_type == b"application/json" or (
        media_type.startswith(b"application/") and media_type.endswith(b"+json")
    )


def _repeated(body: bytes, receive: Receive) -> Receive:
    """What gives the body first, and then what comes after it."""
    is_given = False

    async def repeat() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return repeat
