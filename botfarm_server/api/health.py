"""Whether the process lives, and whether it can serve. Neither needs a token."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from botfarm_server.api.errors import answered
from botfarm_server.api.routes import OpenRoute
from botfarm_server.api.schemas.health import HealthOut, ReadyOut
from botfarm_server.api.state import State
from botfarm_server.domain.errors import TooManyRequestsError

OPEN = "This server asks nobody for a token (--insecure-no-auth)."
NOT_READY = {
    "ready": False,
    "detail": "The server cannot use its database: it does not answer. Ask again "
    "shortly.",
}

router = APIRouter(tags=["health"], route_class=OpenRoute)


@router.head("/health", include_in_schema=False)
@router.get(
    "/health",
    summary="The process lives",
    response_model=HealthOut,
    response_model_exclude_none=True,
    responses=answered(TooManyRequestsError),
)
async def health(state: State) -> Any:
    """Says no more than that, unless the server is open to all."""
    return {"status": "healthy", "warning": OPEN if state.access.is_open else None}


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    summary="The database is reachable and migrated",
    response_model=ReadyOut,
    responses={
        **answered(TooManyRequestsError),
        503: {
            "model": ReadyOut,
            "description": "Not now; ask again.",
            "content": {"application/json": {"example": NOT_READY}},
        },
    },
)
async def ready(response: Response, state: State) -> Any:
    refusal = await state.readiness.check()
    if refusal is None:
        return {"ready": True, "detail": "The database is reachable and migrated."}
    response.status_code = 503
    response.headers["Retry-After"] = "1"
    return {"ready": False, "detail": refusal.detail}
