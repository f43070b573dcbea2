"""Pools over HTTP: what there is, before anybody asks for it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request

from botfarm_server.api.auth import By, admitted, needs
from botfarm_server.api.errors import documented, told
from botfarm_server.api.leases import wants_of
from botfarm_server.api.routes import BoundedRoute
from botfarm_server.api.schemas.pools import (
    CheckIn,
    CheckOut,
    PoolCountsOut,
    PoolsOut,
)
from botfarm_server.api.state import Pools, State
from botfarm_server.domain.errors import DatabaseUnavailableError

router = APIRouter(
    prefix="/pools",
    tags=["pools"],
    dependencies=[Depends(admitted)],
    route_class=BoundedRoute,
)


@router.get("", summary="List pools", response_model=PoolsOut, responses=documented())
@needs("read")
async def find(pools: Pools, by: By) -> Any:
    """Those that have users in rotation, with how many; in quarantine is not."""
    return {"pools": await pools.sizes(by.project_id)}


@router.get(
    "/counts",
    summary="Count what users do and who waits",
    response_model=PoolCountsOut,
    responses=documented(),
)
@needs("read")
async def count(state: State, by: By) -> Any:
    """In each pool, up to a second ago: asking often costs next to nothing."""
    census = await state.census.take()
    if census is None:
        raise DatabaseUnavailableError
    return {
        "pools": [
            {
                "env": it.pool.env,
                "domain": it.pool.domain,
                **it.users,
                "waiters": it.waiters,
                "oldest_waiter": it.oldest,
            }
            for it in census.known_to(by.project_id).by_pool()
        ]
    }


@router.post(
    "/check",
    summary="Check whether leases could ever be granted",
    response_model=CheckOut,
    responses=documented(),
)
@needs("read")
async def check(body: CheckIn, request: Request, pools: Pools, by: By) -> Any:
    """Tell of each what asking for it would be refused with, if it would be.

    Nothing is granted, and nothing waits. The errors are `no_such_pool`,
    `pool_too_small` and `invalid_request`, each with its facts.
    """
    leases = [wants_of(lease.wants, by) for lease in body.leases]
    prospects = await pools.check(leases, by, request.is_disconnected)
    return {
        "leases": [
            {
                "matching": prospect.matching,
                "error": prospect.refusal and told(prospect.refusal),
            }
            for prospect in prospects
        ]
    }
