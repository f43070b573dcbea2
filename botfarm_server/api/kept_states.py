"""What holders leave for the next ones, over HTTP."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from botfarm_server.api.auth import By, admitted, needs
from botfarm_server.api.errors import documented
from botfarm_server.api.routes import BoundedRoute
from botfarm_server.api.schemas.kept_states import DropStateIn, StateIn, StateOut
from botfarm_server.api.state import KeptStates
from botfarm_server.domain.errors import (
    LeaseEndedError,
    LeaseMismatchError,
    LeaseNotFoundError,
    NoSealingKeyError,
    UserNotFoundError,
)
from botfarm_server.domain.models import Fence, LeaseId, UserId

router = APIRouter(
    prefix="/leases/{lease_id}/users/{user_id}/state",
    tags=["leases"],
    dependencies=[Depends(admitted)],
    route_class=BoundedRoute,
)

NOT_HELD = (
    LeaseNotFoundError,
    UserNotFoundError,
    LeaseMismatchError,
    LeaseEndedError,
)


@router.get(
    "",
    response_model=StateOut,
    summary="Read a state that did not come with the lease",
    responses=documented(LeaseNotFoundError, UserNotFoundError, LeaseEndedError),
)
@needs("lease")
async def fetch(lease_id: UUID, user_id: UUID, kept_states: KeptStates, by: By) -> Any:
    """For the token that took the lease. The answer to that has `state_is_apart` where
    this is of use.
    """
    return {"state": await kept_states.fetch(LeaseId(lease_id), UserId(user_id), by=by)}


@router.put(
    "",
    status_code=204,
    response_class=Response,
    summary="Leave a state for the next holders of a user",
    responses=documented(*NOT_HELD, NoSealingKeyError),
)
@needs("lease")
async def save(
    lease_id: UUID, user_id: UUID, body: StateIn, kept_states: KeptStates, by: By
) -> None:
    """Who leases the user next gets it as `state`, until it expires.

    It is sealed like the password. It is dropped when the password changes, and when a
    lease of the user ends in any way but a clean release.
    """
    await kept_states.save(
        LeaseId(lease_id),
        UserId(user_id),
        fence=Fence(body.fence),
        state=body.state.get_secret_value(),
        expires_in=body.expires_in,
        by=by,
    )


@router.delete(
    "",
    status_code=204,
    response_class=Response,
    summary="Leave the next holders of a user no state",
    responses=documented(*NOT_HELD),
)
@needs("lease")
async def drop(
    lease_id: UUID,
    user_id: UUID,
    body: DropStateIn,
    kept_states: KeptStates,
    by: By,
) -> None:
    """Again is no error."""
    await kept_states.drop(
        LeaseId(lease_id), UserId(user_id), fence=Fence(body.fence), by=by
    )
