"""Each call waits for its turn before anything else is done for it, as plain ASGI.

So a flood costs others what one lane lets through, whatever it calls: paths that need
no token, that are none or do not take the method, or hosts that are not allowed.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
from fastapi import Request, Response
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from botfarm_server.api.addresses import address_of
from botfarm_server.api.bodies import has_body, is_drained
from botfarm_server.api.errors import refused
from botfarm_server.api.state import AppState, state_of
from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import (
    BodyTimeoutError,
    BotfarmError,
    TooManyRequestsError,
)
from botfarm_server.domain.tokens import digest_of
from botfarm_server.services.guessing import source_of
from botfarm_server.services.lanes import Turn

LET_IN = "botfarm.let_in"
"""The extension of ASGI by which the connection is told that its call is let in."""
PAUSE = 1.0
"""Seconds before the answer to one who sends too much: after as many it may come again,
and many that come at once would keep the server busy with refusals."""

bearer = HTTPBearer(auto_error=False, description="A token of this server.")


class InTurn:
    """Has calls take turns: those of a token that is known in lanes of its own, and
    those of all others from an address in one.

    The turn is the call's `request.state.turn`.
    """

    def __init__(self, app: ASGIApp, has_reserve: Callable[[Scope], bool]) -> None:
        """`has_reserve` tells whether a call keeps or ends leases."""
        self.app = app
        self._has_reserve = has_reserve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            turn = await _turn_of(request, has_reserve=self._has_reserve(scope))
            await turn.begin()
        except TooManyRequestsError as error:
            response = await refusal(request, error)
            await response(scope, receive, send)
            return
        request.state.turn = turn
        try:
            # What keeps or ends leases is done even if nobody hears of it. Who waits
            # to be asked for a body is not asked by a look.
            is_done_anyway = turn.has_reserve or "expect" in request.headers
            if turn.has_waited and not is_done_anyway:
                present = await if_present(request)
                if present is None:
                    turn.leave()
                    await Response(status_code=408)(scope, receive, send)
                    return
                receive = present.receive
            await self.app(scope, receive, send)
        finally:
            turn.end()


async def _turn_of(request: Request, *, has_reserve: bool) -> Turn:
    """In which lane a call waits until it is looked at who sends it.

    A token that is known is counted here: to look it up is a part of the work. What
    leases depend on does not wait for the rest.

    Raises:
        TooManyRequestsError: the token has sent more than it may.

    """
    state = state_of(request)
    source = source_of(address_of(request) or "")
    if not state.access.asks_for_tokens:
        let_in(request.scope)
        return state.lanes.turn((source, has_reserve), has_reserve=has_reserve)
    known = await _known(request, state)
    if known is None:
        return state.lanes.turn_of_stranger(source)
    let_in(request.scope)
    digest, caller = known
    state.throttle.count(caller, has_reserve=has_reserve)
    request.state.is_counted = True
    return state.lanes.turn((digest, has_reserve), has_reserve=has_reserve)


async def _known(request: Request, state: AppState) -> tuple[str, Caller] | None:
    """The digest of its token, and whose that is, if it was let in before or is right.

    By the digest, not the header: that can be spelt in many ways.
    """
    credentials = await bearer(request)
    if credentials is None:
        return None
    token = credentials.credentials
    digest = digest_of(token)
    caller = state.known_tokens.caller_of(digest)
    if caller is None:
        caller = await state.access.recognized(token)
        if caller is None:
            return None
        state.known_tokens.note(digest, caller)
    return digest, caller


def let_in(scope: Scope) -> None:
    """Have its connection count as one of somebody who is known."""
    connection = scope.get("extensions", {}).get(LET_IN)
    if connection is not None:
        connection["tell"]()


async def pause() -> None:
    """Have one who sends too much wait for the answer, where no place is held."""
    await anyio.sleep(PAUSE)


async def refusal(request: Request, error: BotfarmError) -> Response:
    """The answer to a call whose body may not have been read."""
    if isinstance(error, TooManyRequestsError):
        await pause()
    response = await refused(request, error)
    # What has not come in its time is waited for no longer.
    is_late = isinstance(error, BodyTimeoutError)
    if has_body(request) and (is_late or not await is_drained(request)):
        response.headers["Connection"] = "close"
    return response


async def if_present(request: Request) -> Request | None:
    """The call, unless its client has left; what has come of it is still to be had."""
    come: list[Message] = []
    with anyio.CancelScope() as look:
        look.cancel()
        come.append(await request.receive())
    if come and come[0]["type"] == "http.disconnect":
        return None

    async def receive() -> Message:
        return come.pop() if come else await request.receive()

    return Request(request.scope, receive)
