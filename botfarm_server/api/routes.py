"""How a call whose turn has begun reaches its endpoint: let in, then with its body."""

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
)
from botfarm_server.api.bodies import has_body
from botfarm_server.api.document import operation_id
from botfarm_server.api.errors import refused
from botfarm_server.api.lanes import pause, refusal
from botfarm_server.api.state import state_of
from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import BotfarmError, TooManyWaitingError
from botfarm_server.services.lanes import Turn

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
            turn: Turn = request.state.turn
            try:
                try:
                    await self.lets_in(request)
                    if has_body(request):
                        turn.end()
                        by: Caller = request.state.by
                        request = await state.bodies.read(
                            request,
                            operation,
                            sender=by.sender,
                            turn=turn,
                            has_reserve=apart,
                        )
                except BotfarmError as error:
                    turn.end()
                    return await refusal(request, error)
                try:
                    return await handle(request)
                except TooManyWaitingError as error:
                    # Without what the call had in hand, for as long as it is kept.
                    too_many = error.with_traceback(None)
                turn.end()
                await pause()
                return await refused(request, too_many)
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
