"""How a call reaches its endpoint: in its turn, let in, and only then with its body."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from botfarm_server.api.auth import (
    admit,
    admit_all,
    admit_to_metrics,
    admit_to_page,
    has_reserve,
    turn_of,
)
from botfarm_server.api.bodies import has_body, is_drained
from botfarm_server.api.document import operation_id
from botfarm_server.api.errors import refused
from botfarm_server.api.state import state_of
from botfarm_server.api.strangers import if_present
from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import BodyTimeoutError, BotfarmError

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class BoundedRoute(APIRoute):
    """A path of the API.

    By itself FastAPI reads and parses a body before it looks who has sent it.
    """

    lets_in: Callable[[Request], Coroutine[Any, Any, None]] = staticmethod(admit)

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        operation, apart = operation_id(self), has_reserve(self.endpoint)

        async def handle_in_turn(request: Request) -> Response:
            state = state_of(request)
            try:
                turn = request.state.turn = await turn_of(request)
            except BotfarmError as error:
                return await _refusal(request, error)
            try:
                try:
                    await turn.begin()
                    # What keeps or ends leases is done even if nobody hears of it, and
                    # a body tells by itself whether somebody is there who sends it.
                    if turn.has_waited and not (apart or has_body(request)):
                        present = await if_present(request)
                        if present is None:
                            return Response(status_code=408)  # for nobody to read
                        request = present
                    await self.lets_in(request)
                    if has_body(request):
                        turn.end()
                        by: Caller = request.state.by
                        request = await state.bodies.read(
                            request,
                            operation,
                            sender=by.token_id or by.address,
                            turn=turn,
                            has_reserve=apart,
                        )
                except BotfarmError as error:
                    turn.end()
                    return await _refusal(request, error)
                return await handle(request)
            finally:
                turn.end()

        return handle_in_turn


class PageRoute(BoundedRoute):
    """What people look at, in its turn."""

    lets_in = staticmethod(admit_to_page)


class OpenRoute(BoundedRoute):
    """What tells nothing, to all, in its turn."""

    lets_in = staticmethod(admit_all)


class MetricsRoute(BoundedRoute):
    """Numbers, in their turn."""

    lets_in = staticmethod(admit_to_metrics)


async def _refusal(request: Request, error: BotfarmError) -> Response:
    """The answer to a call whose body may not have been read."""
    response = await refused(request, error)
    # What has not come in its time is waited for no longer.
    is_late = isinstance(error, BodyTimeoutError)
    if has_body(request) and (is_late or not await is_drained(request)):
        response.headers["Connection"] = "close"
    return response
