"""Who may call what: the token's role, and whether what the path names is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials
from starlette.routing import compile_path
from starlette.types import Scope

from botfarm_server.api.addresses import address_of, is_loopback
from botfarm_server.api.browsers import named_host
from botfarm_server.api.lanes import bearer, let_in
from botfarm_server.api.state import state_of
from botfarm_server.domain.access import ANYBODY, Caller
from botfarm_server.domain.errors import ForbiddenError, UnauthorizedError
from botfarm_server.domain.models import LeaseId, Role, UserId
from botfarm_server.domain.tokens import digest_of

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

OF_PROXIES = frozenset(
    {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"}
)
"""Headers that only a proxy adds to a call."""

Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]

_ROLE = "botfarm_role"
_SETTLES_OWNERSHIP = "botfarm_settles_ownership"
_HAS_RESERVE = "botfarm_has_reserve"


def needs(
    role: Role, *, settles_ownership: bool = False, has_reserve: bool = False
) -> Callable[[Endpoint], Endpoint]:
    """Mark the least role that may call an endpoint; one without a mark is for admins.

    `settles_ownership` says that the endpoint's own transaction sees whose the lease
    is, so that it need not be read before. `has_reserve` lets it through where the
    token has sent too many other requests: leases would be lost, or kept from others.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ROLE, role)
        setattr(endpoint, _SETTLES_OWNERSHIP, settles_ownership)
        setattr(endpoint, _HAS_RESERVE, has_reserve)
        return endpoint

    return mark


def role_needed(endpoint: Callable[..., Any]) -> Role:
    role: Role = getattr(endpoint, _ROLE, "admin")
    return role


def has_reserve(endpoint: Callable[..., Any]) -> bool:
    return getattr(endpoint, _HAS_RESERVE, False)


def calls_with_reserve(
    routers: Iterable[APIRouter], prefix: str
) -> Callable[[Scope], bool]:
    """What tells of a call whether it is of an endpoint that has a reserve."""
    found = [
        (frozenset(route.methods or ()), compile_path(prefix + route.path)[0])
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and has_reserve(route.endpoint)
    ]

    def is_one(scope: Scope) -> bool:
        method, path = scope["method"], scope["path"]
        return any(method in methods and paths.match(path) for methods, paths in found)

    return is_one


async def admit(request: Request) -> None:
    """Let the request through, or refuse it, whatever its body may be.

    `botfarm serve` refuses to start without a token beyond loopback; this holds under
    any other way to start it, too.

    Raises:
        UnauthorizedError: no token, or a wrong one.
        TooManyWrongTokensError: a wrong one, of an address that has sent many.
        TooManyRequestsError: the token has sent more than it may.
        ForbiddenError: the token's role does not reach.
        UserNotFoundError, LeaseNotFoundError: the path names what is not the token's.
        BotfarmError: what keeps the server from serving.

    """
    state = state_of(request)
    access = state.access
    by = request.state.by = await _identify(request, await bearer(request))
    endpoint = request.scope["endpoint"]
    if not getattr(request.state, "is_counted", False):
        state.throttle.count(by, has_reserve=has_reserve(endpoint))
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


async def admitted(request: Request, _: Credentials) -> Caller:
    """The caller whom `admit` has let through before."""
    by: Caller = request.state.by
    return by


By = Annotated[Caller, Depends(admitted)]


async def admit_all(request: Request) -> None:
    """Let whoever asks."""
    request.state.by = ANYBODY


async def admit_to_page(request: Request) -> None:
    """Let whoever sits at this machine see a page, and all where a setting says so.

    Raises as `admit` does for any other.
    """
    if state_of(request).public_pages or _comes_from_this_machine(request):
        await admit_all(request)
    else:
        await admit(request)


async def admit_to_metrics(request: Request) -> None:
    """Let whoever may read users read numbers, and all where a setting says so.

    Raises as `admit` does for any other.
    """
    if state_of(request).public_metrics:
        await admit_all(request)
    else:
        await admit(request)


async def _identify(
    request: Request, credentials: HTTPAuthorizationCredentials | None
) -> Caller:
    state = state_of(request)
    token = credentials.credentials if credentials else None
    try:
        known = await state.access.identify(
            token, over_loopback=_comes_from_this_machine(request)
        )
    except UnauthorizedError as error:
        if token is not None:
            state.known_tokens.forget(digest_of(token))
            state.wrong_tokens.note(address_of(request) or "", error)
        raise
    if token is not None:
        state.known_tokens.note(digest_of(token), known)
    let_in(request.scope)
    return replace(known, address=address_of(request))


def _named(request: Request, parameter: str) -> UUID | None:
    """The id in the path; `None` also where it is none, which the endpoint refuses."""
    try:
        return UUID(request.path_params[parameter])
    except (KeyError, ValueError):
        return None


def _comes_from_this_machine(request: Request) -> bool:
    """Whether no proxy is known to have passed it on, and no page's name led it here.

    A proxy on this machine calls from it for others, and what it says of them need not
    be believed here. A page may have its own name lead to 127.0.0.1, and then reads
    what a server without a token answers there.
    """
    if not OF_PROXIES.isdisjoint(request.headers.keys()):
        return False
    server = request.scope.get("server")
    if server is None or server[1] is None:
        return True  # A Unix socket has no address; its file's permissions guard it.
    hosts = [server[0], address_of(request) or "", named_host(request.scope) or ""]
    return all(map(is_loopback, hosts))
