"""What happens around every request, as plain ASGI.

Starlette's `@app.middleware("http")` hides a client's leaving from the handlers.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from botfarm_server.api.document import operation_id
from botfarm_server.api.errors import internal_error
from botfarm_server.api.headers import PROTOCOL, PROTOCOL_HEADER
from botfarm_server.metrics import Metrics


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


class Counted:
    """Counts what is answered by operation, which no caller can make up."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 500  # as which a call that fails is answered

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_noted)
        finally:
            if scope["type"] == "http":
                route = scope.get("route")  # noted there once it is found
                operation = operation_id(route) if route is not None else "none"
                self._metrics.answered(operation, status)
