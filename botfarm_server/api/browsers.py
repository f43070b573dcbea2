"""What keeps browsers from being turned against the server, as plain ASGI."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from botfarm_server.api.errors import error_response
from botfarm_server.domain.errors import HostNotAllowedError

FOR_PROBES = frozenset({"/health", "/ready", "/metrics"})
"""Kubernetes, load balancers and Prometheus ask for these by address."""

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:\[\]@/]+))(?::\d*)?", re.IGNORECASE)


def named_host(scope: Scope) -> str | None:
    """The host that the caller means to speak to, without its port."""
    found = _HOST.fullmatch(Headers(scope=scope).get("host", ""))
    return (found[1] or found[2]).lower() if found else None


class BrowserHeaders:
    """Lets no browser keep an answer, nor take it for anything but what it says it is.

    Of all answers, so that none with a secret can be forgotten.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, send_guarded)


class AllowedHosts:
    """Answers under the names that a setting lists, and under no other.

    A page whose own name leads to this server's address, by a change of its DNS, would
    otherwise count as this server's to the browser that shows it.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app = app
        self._hosts = [host.lower() for host in hosts]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._allows(scope):
            await error_response(HostNotAllowedError())(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        if scope["path"].rstrip("/") in FOR_PROBES:
            return True
        named = named_host(scope)
        return named is not None and any(
            named.endswith(host[1:]) if host.startswith("*.") else named == host
            for host in self._hosts
        )
