"""Which pools there are, and what leases could count on in them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from botfarm_server.api.schemas.errors import ErrorOut
from botfarm_server.api.schemas.fields import Request
from botfarm_server.api.schemas.wants import Wanted, Wants

MAXIMUM_PROSPECTS = 50
MAXIMUM_CHECKED = 100
"""Wants of all leases of one check: each takes the database a millisecond or some."""


class ProspectIn(Request):
    """A lease that might be asked for, with names that may be wrong."""

    wants: Wants[Wanted]


def _few_enough(leases: list[ProspectIn]) -> list[ProspectIn]:
    if sum(len(lease.wants) for lease in leases) > MAXIMUM_CHECKED:
        msg = f"must have at most {MAXIMUM_CHECKED} wants in all"
        raise ValueError(msg)
    return leases


class CheckIn(Request):
    leases: Annotated[
        list[ProspectIn],
        Field(
            min_length=1,
            max_length=MAXIMUM_PROSPECTS,
            description=f"With at most {MAXIMUM_CHECKED} wants in all.",
        ),
        AfterValidator(_few_enough),
    ]


class PoolOut(BaseModel):
    env: str
    domain: str
    users: Annotated[int, Field(description="How many are in rotation, free or not.")]


class PoolsOut(BaseModel):
    pools: list[PoolOut]


class PoolCountOut(BaseModel):
    env: str
    domain: str
    free: int
    held: int
    resting: int
    quarantined: int
    waiters: Annotated[
        int, Field(description="Leases that wait for it; one may wait for several.")
    ]
    oldest_waiter: Annotated[
        float, Field(description="Seconds that the oldest of them has waited, or 0.")
    ]


class PoolCountsOut(BaseModel):
    pools: list[PoolCountOut]


class ProspectOut(BaseModel):
    matching: Annotated[
        list[int],
        Field(description="How many users in rotation meet each want by itself."),
    ]
    error: Annotated[
        ErrorOut | None, Field(description="What asking for it would be answered with.")
    ]


class CheckOut(BaseModel):
    leases: list[ProspectOut]
