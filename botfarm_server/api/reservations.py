"""Places for users that suites make, over HTTP."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from botfarm_server.api.auth import By, admitted, needs
from botfarm_server.api.errors import documented
from botfarm_server.api.routes import BoundedRoute
from botfarm_server.api.schemas.reservations import ReservationIn, ReservationOut
from botfarm_server.api.state import Reservations
from botfarm_server.domain.errors import (
    PoolFullError,
    ReservationNotFoundError,
    TooManyPlacesError,
)
from botfarm_server.domain.models import ReservationId, Want

router = APIRouter(
    prefix="/reservations",
    tags=["reservations"],
    dependencies=[Depends(admitted)],
    route_class=BoundedRoute,
)


@router.post(
    "",
    status_code=201,
    summary="Reserve a place for a user that is to be made",
    response_model=ReservationOut,
    responses=documented(PoolFullError, TooManyPlacesError, ReservationNotFoundError),
)
@needs("lease")
async def reserve(body: ReservationIn, reservations: Reservations, by: By) -> Any:
    """Before a suite makes an account on the system under test, so that all suites
    together make no more than `limit`.

    The limit counts the users of this env and domain, and of this project where one is
    named, and the places that are reserved there. Those in quarantine count: they are
    accounts of the system under test as well. Labels do not: each new combination of
    labels would be a pool of its own, and have room again. Users that people create or
    import are counted and never refused.

    `POST /api/v1/users/` with `reservation_id` turns the place into a user. One that is
    not used expires. The client may choose the id, so that the call can be repeated. A
    place is used and given back by the token that reserved it, which may have 100 at
    once, of all pools.
    """
    reservation_id = ReservationId(body.id)
    want = Want(body.env, body.domain, by.project_for(body.project_id))
    expires_in = await reservations.reserve(
        reservation_id, want, limit=body.limit, by=by
    )
    return {"id": reservation_id, "expires_in": expires_in}


@router.delete(
    "/{reservation_id}",
    status_code=204,
    response_class=Response,
    summary="Give a place back",
    responses=documented(ReservationNotFoundError),
)
@needs("lease")
async def give_back(reservation_id: UUID, reservations: Reservations, by: By) -> None:
    """`204` as well where it has expired or was used, `404` where another token has it.

    Admins give back those of their projects.
    """
    await reservations.give_back(ReservationId(reservation_id), by)
