"""Whoever is not known waits before anything else is done for the call, as plain ASGI.

So a flood from without costs what the lane of its address lets through, whatever it
calls: paths that need no token, that are none, or names of hosts that are not allowed.
"""

from __future__ import annotations

import anyio
from fastapi import Request, Response
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from botfarm_server.api.addresses import address_of
from botfarm_server.api.errors import error_response
from botfarm_server.api.state import AppState, state_of
from botfarm_server.domain.errors import TooManyRequestsError
from botfarm_server.domain.tokens import digest_of
from botfarm_server.services.guessing import source_of

LET_IN = "botfarm.let_in"
"""The extension of ASGI by which the connection is told that its call is let in."""
PAUSE = 1.0
"""Seconds before the answer to one who finds too many others: after as many it may come
again, and would come at once."""

bearer = HTTPBearer(auto_error=False, description="A token of this server.")


class Strangers:
    """Has calls of strangers take turns, those of an address in one lane."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        state = state_of(request)
        if not state.access.asks_for_tokens or await _is_known(request, state):
            let_in(scope)
            await self.app(scope, receive, send)
            return
        turn = state.lanes.turn_of_stranger(source_of(address_of(request) or ""))
        try:
            await turn.begin()
        except TooManyRequestsError as error:
            await anyio.sleep(PAUSE)
            await error_response(error)(scope, receive, send)
            return
        try:
            # Who waits to be asked for a body is not asked by a look.
            if turn.has_waited and "expect" not in request.headers:
                present = await if_present(request)
                if present is None:
                    turn.leave()
                    await Response(status_code=408)(scope, receive, send)
                    return
                receive = present.receive
            request.state.turn_of_stranger = turn
            await self.app(scope, receive, send)
        finally:
            turn.end()


async def _is_known(request: Request, state: AppState) -> bool:
    """Whether its token was let in before, or is a right one."""
    credentials = await bearer(request)
    if credentials is None:
        return False
    token = credentials.credentials
    digest = digest_of(token)
    if state.known_tokens.caller_of(digest) is not None:
        return True
    caller = await state.access.recognized(token)
    if caller is None:
        return False
    state.known_tokens.note(digest, caller)
    return True


def let_in(scope: Scope) -> None:
    """Have its connection count as one of somebody who is known."""
    connection = scope.get("extensions", {}).get(LET_IN)
    if connection is not None:
        connection["tell"]()


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
