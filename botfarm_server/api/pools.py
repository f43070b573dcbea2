"""Pools over HTTP: what there is, before anybody asks for it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from botfarm_server.api.auth import admit
from botfarm_server.api.errors import documented, told
from botfarm_server.api.leases import wants_of
from botfarm_server.api.schemas import CheckIn, CheckOut, PoolsOut
from botfarm_server.api.state import Pools

router = APIRouter(prefix="/pools", tags=["pools"], dependencies=[Depends(admit)])


@router.get("", summary="List pools", response_model=PoolsOut, responses=documented())
async def find(pools: Pools) -> Any:
    """Those that have users in rotation, with how many; in quarantine is not."""
    return {"pools": await pools.sizes()}


@router.post(
    "/check",
    summary="Check whether leases could ever be granted",
    response_model=CheckOut,
    responses=documented(),
)
async def check(body: CheckIn, pools: Pools) -> Any:
    """Tell of each what asking for it would be refused with, if it would be.

    Nothing is granted, and nothing waits. The errors are `no_such_pool`,
    `pool_too_small` and `invalid_request`, each with its facts.
    """
    prospects = await pools.check([wants_of(lease.wants) for lease in body.leases])
    return {
        "leases": [
            {
                "matching": prospect.matching,
                "error": prospect.refusal and told(prospect.refusal),
            }
            for prospect in prospects
        ]
    }
