"""Who may call: a bearer token, or anybody on this machine where none is set."""

from __future__ import annotations

import hmac
import ipaddress
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from botfarm_server.api.state import state_of
from botfarm_server.domain.errors import ForbiddenError, UnauthorizedError

_bearer = HTTPBearer(auto_error=False, description="The token of this server.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def admit(request: Request, credentials: Credentials) -> None:
    """Let the request through, or refuse it.

    A server without a token serves loopback alone. `botfarm serve` refuses to start
    elsewhere; this holds under any other way to start it, too.

    Raises:
        UnauthorizedError: no token, or a wrong one.
        ForbiddenError: there is no token to ask for, and this is no loopback address.
        BotfarmError: what keeps the server from serving, to who may know.

    """
    state = state_of(request)
    if state.access.tokens:
        given = credentials.credentials.encode() if credentials else b""
        matching = [
            hmac.compare_digest(given, token.encode()) for token in state.access.tokens
        ]
        if not any(matching):
            raise UnauthorizedError
    elif not state.access.open_to_all and not _came_over_loopback(request):
        raise ForbiddenError(
            "This server has no token, so it answers on loopback alone. Start it with "
            "BOTFARM_BOOTSTRAP_TOKEN, or with --insecure-no-auth."
        )
    if state.readiness.refusal is not None:
        raise state.readiness.refusal


def is_loopback(host: str) -> bool:
    """Whether an address or a name that is listened on is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _came_over_loopback(request: Request) -> bool:
    server = request.scope.get("server")
    # A Unix socket has no address; its file's permissions guard it.
    return server is None or server[1] is None or is_loopback(server[0])
