"""Leases: asked for, renewed, ended and shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StrictBool

from botfarm_server.api.schemas.fields import (
    MAXIMUM_TTL,
    FenceIn,
    Line,
    LongText,
    Request,
    Ttl,
)
from botfarm_server.api.schemas.wants import HolderIn, HolderOut, WantIn, WantOut, Wants
from botfarm_server.domain.models import EndedState, LeaseState, Outcome

MAXIMUM_WAIT = 60.0
"""Seconds that one call may wait; a client that wants longer asks again."""
MAXIMUM_PREFERRED = 100
MAXIMUM_RENEWALS = 1_000


class LeaseIn(Request):
    wants: Wants[WantIn]
    ttl: Ttl = 60.0
    wait: Annotated[
        float,
        Field(
            strict=True,
            ge=0,
            le=MAXIMUM_WAIT,
            description="Seconds to wait for the grant.",
        ),
    ] = 0.0
    holder: HolderIn = HolderIn()
    prefer: Annotated[
        list[UUID],
        Field(
            max_length=MAXIMUM_PREFERRED,
            description="Users to get rather than others, if they are free and nobody "
            "waits. A hint: it may differ when the call is repeated.",
        ),
    ] = []


class Renewal(Request):
    id: UUID
    fence: FenceIn


class RenewIn(Request):
    leases: Annotated[list[Renewal], Field(min_length=1, max_length=MAXIMUM_RENEWALS)]


class EndLeaseIn(Request):
    outcome: Outcome | None = None
    clean: Annotated[
        StrictBool, Field(description="False if the next holder should be warned.")
    ] = True
    fence: FenceIn | None = None


class KeepIn(Request):
    fence: FenceIn
    seconds: Annotated[
        float,
        Field(
            strict=True,
            gt=0,
            le=MAXIMUM_TTL,
            description="Until it expires, renewed by nobody.",
        ),
    ]
    outcome: Outcome


class EndHolderIn(Request):
    """All leases of a run, or of one worker of it, whose processes are known dead."""

    run_id: Line
    worker_id: Line | None = None
    outcome: Outcome | None = None
    clean: StrictBool = True


class BreakIn(Request):
    reason: LongText
    holder_is_dead: Annotated[
        StrictBool,
        Field(description="True if nobody uses the users: they need no rest."),
    ] = False


class LeasedUser(BaseModel):
    """A user in the hands of its holder, secrets and all."""

    id: UUID
    login: str
    password: Annotated[
        str | None, Field(description="Null where the server holds the hash alone.")
    ]
    secrets: dict[str, str]
    state: Annotated[
        str | None,
        Field(
            description="What its last holder left. Null if it left none, is old or is "
            "apart."
        ),
    ]
    state_is_apart: Annotated[
        bool,
        Field(
            description="It has a state that is read by a call of its own: those of "
            "the lease are too large together."
        ),
    ]
    project_id: UUID | None
    env: str
    domain: str
    labels: dict[str, str]
    fence: int
    dirty: Annotated[
        bool, Field(description="Its last lease did not end with a clean release.")
    ]
    want: Annotated[int, Field(description="Index of the want that it meets.")]


class HeldOut(BaseModel):
    state: Literal["held"] = "held"
    id: UUID
    fence: int
    ttl: float | None
    expires_in: Annotated[
        float | None, Field(description="Seconds until it expires unless renewed.")
    ]
    waited: Annotated[float, Field(description="Seconds from asking to the grant.")]
    users: list[LeasedUser]


class BlockerOut(BaseModel):
    user_id: UUID
    login: str
    lease_id: UUID
    holder: HolderOut
    held_for: float
    expires_in: float | None
    kept: Annotated[
        bool, Field(description="Its test is over; a person looks at the user.")
    ]


class QuarantinedUserOut(BaseModel):
    login: str
    reason: str


class QuarantinedOut(BaseModel):
    count: int
    first: Annotated[
        list[QuarantinedUserOut], Field(description="3 of them at most, by login.")
    ]


class MatchingOut(BaseModel):
    """What the users do that match what a waiter asks for. Each is counted once."""

    free: Annotated[
        int, Field(description="Too few of them, or kept for a waiter before.")
    ]
    held: int
    resting: int
    quarantined: QuarantinedOut


class WaitingOut(BaseModel):
    state: Literal["waiting"] = "waiting"
    id: UUID
    place: Annotated[int, Field(description="1 is the head of the queue.")]
    waited: float
    ask_again_within: Annotated[
        float, Field(description="Seconds until a waiter nobody asks about is dropped.")
    ]
    blockers: Annotated[
        list[BlockerOut], Field(description="Who holds what it waits for, 10 at most.")
    ]
    matching: Annotated[
        MatchingOut | None,
        Field(description="How many match, and why none is free; null over 1,000."),
    ]


class PassedOn(BaseModel):
    """A user that a lost lease had, and who has it now."""

    user_id: UUID
    login: str
    holder: Annotated[
        HolderOut | None,
        Field(
            description="Null while nobody holds it, or where it has been moved to "
            "another project than the lease's."
        ),
    ]


class RenewedOut(BaseModel):
    id: UUID
    state: Literal["held"] = "held"
    expires_in: float | None


class KeptOut(BaseModel):
    id: UUID
    expires_in: float


class LostOut(BaseModel):
    id: UUID
    state: EndedState | Literal["waiting", "unknown"]
    detail: str
    ended_ago: float | None
    users: Annotated[
        list[PassedOn],
        Field(description="10 of them at most, and 300 in all leases of one answer."),
    ]


class RenewOut(BaseModel):
    leases: list[RenewedOut | LostOut]


class LeaseUserOut(BaseModel):
    id: UUID
    login: str
    env: str
    domain: str
    fence: int


class LeaseOut(BaseModel):
    """A lease as people and tools see it."""

    id: UUID
    state: LeaseState
    wants: list[WantOut]
    holder: HolderOut
    users: list[LeaseUserOut]
    ttl: float | None
    fence: int | None
    created_at: datetime
    granted_at: datetime | None
    ended_at: datetime | None
    expires_in: float | None
    waited: float
    held_for: float | None
    outcome: Outcome | None
    end_reason: str | None
    kept_at: Annotated[
        datetime | None,
        Field(description="Since when it is kept for a person to look at, or null."),
    ]
    idle: Annotated[
        bool, Field(description="Whether it is held, and no test has it at present.")
    ]


class FreedOut(BaseModel):
    """A held lease that was ended in its holder's place, and the users that it had."""

    id: UUID
    test_id: str | None
    logins: list[str]
    quarantined: Annotated[
        dict[str, str],
        Field(description="Those that went out of rotation with it, and why."),
    ]


class ReleasedOut(BaseModel):
    released: Annotated[
        int, Field(description="How many leases this call ended, waiting ones as well.")
    ]
    freed: list[FreedOut]
