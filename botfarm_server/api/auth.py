"""Who may call what: the token's role, and whether what the path names is its own."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from botfarm_server.api.state import state_of
from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import ForbiddenError
from botfarm_server.domain.models import LeaseId, Role, UserId

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_bearer = HTTPBearer(auto_error=False, description="A token of this server.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]

_ROLE = "botfarm_role"
_SETTLES_OWNERSHIP = "botfarm_settles_ownership"


def needs(
    role: Role, *, settles_ownership: bool = False
) -> Callable[[Endpoint], Endpoint]:
    """Mark the least role that may call an endpoint; one without a mark is for admins.

    `settles_ownership` says that the endpoint's own transaction sees whose the lease
    is, so that it need not be read before.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ROLE, role)
        setattr(endpoint, _SETTLES_OWNERSHIP, settles_ownership)
        return endpoint

    return mark


def role_needed(endpoint: Callable[..., Any]) -> Role:
    role: Role = getattr(endpoint, _ROLE, "admin")
    return role


async def admit(request: Request, credentials: Credentials) -> Caller:
    """Let the request through, or refuse it.

    `botfarm serve` refuses to start without a token beyond loopback; this holds under
    any other way to start it, too.

    Raises:
        UnauthorizedError: no token, or a wrong one.
        ForbiddenError: the token's role does not reach.
        UserNotFoundError, LeaseNotFoundError: the path names what is not the token's.
        BotfarmError: what keeps the server from serving.

    """
    access = state_of(request).access
    by = await access.identify(
        credentials.credentials if credentials else None,
        over_loopback=_came_over_loopback(request),
    )
    endpoint = request.scope["endpoint"]
    needed = role_needed(endpoint)
    if not by.may(needed):
        raise ForbiddenError(
            f"This takes a token of role {needed}, and yours is of role {by.role}. Ask "
            f"an admin for one (`botfarm tokens create NAME --role {needed}`).",
            needed=needed,
        )
    if (user_id := _named(request, "user_id")) is not None:
        await access.check_user(by, UserId(user_id))
    lease_id = _named(request, "lease_id")
    if lease_id is not None and not getattr(endpoint, _SETTLES_OWNERSHIP, False):
        await access.check_lease(by, LeaseId(lease_id), needed)
    return by


By = Annotated[Caller, Depends(admit)]


def _named(request: Request, parameter: str) -> UUID | None:
    """The id in the path; `None` also where it is none, which the endpoint refuses."""
    try:
        return UUID(request.path_params[parameter])
    except (KeyError, ValueError):
        return None


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
