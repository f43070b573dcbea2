"""The wire format: what each call takes and answers.

Durations are seconds, and a deadline is told as the seconds that remain, so that no
two clocks are ever compared. Unknown fields are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID, uuid4

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StrictBool,
)

from botfarm_server.domain.access import CallerKind
from botfarm_server.domain.audit import AuditAction, SubjectKind
from botfarm_server.domain.models import (
    EndedState,
    LeaseState,
    Outcome,
    Role,
    UserState,
)
from botfarm_server.domain.texts import no_login, no_name, unreadable, unstorable

MAXIMUM_WAIT = 60.0
"""Seconds that one call may wait; a client that wants longer asks again."""
MINIMUM_TTL, MAXIMUM_TTL = 5.0, 86_400.0
MAXIMUM_COUNT = 100
"""Users of one lease: matching them to its wants takes more time the more there are."""
MAXIMUM_WANTS = 20
MAXIMUM_LABELS = 20
MAXIMUM_PREFERRED = 100
MAXIMUM_PROSPECTS = 50
MAXIMUM_RENEWALS = 1_000
MAXIMUM_IMPORT_ROWS = 500
MAXIMUM_SECRET_LENGTH = 10_000
MAXIMUM_LIMIT = 100_000
MAXIMUM_FENCE = 2**53 - 1
"""The largest number that every reader of JSON has exactly."""
MAXIMUM_TOKEN_LIFE = 10 * 365 * 86_400.0
"""Seconds; beyond, somebody has counted in another unit."""
MAXIMUM_PASSWORD_BYTES = 72
"""bcrypt reads no further, and its newest version refuses to."""
MAXIMUM_STATE_BYTES = 262_144
"""Many times what the cookies and the local storage of a browser take."""
MAXIMUM_STATE_LIFE = 31_536_000.0
"""Seconds: a year, as the longest of tokens."""


def _without(flaw: Callable[[str], str | None]) -> AfterValidator:
    """Let a text pass in which the rule finds no flaw."""

    def check(text: str) -> str:
        if (found := flaw(text)) is not None:
            raise ValueError(found)
        return text

    return AfterValidator(check)


def _stored(secret: SecretStr) -> str:
    text = secret.get_secret_value()
    if (flaw := unstorable(text)) is not None:
        raise ValueError(flaw)
    return text


def _password(password: SecretStr) -> SecretStr:
    text = _stored(password)
    if not text:
        msg = "must not be empty"
        raise ValueError(msg)
    if len(text.encode()) > MAXIMUM_PASSWORD_BYTES:
        msg = f"must be at most {MAXIMUM_PASSWORD_BYTES} bytes in UTF-8"
        raise ValueError(msg)
    return password


def _secret(secret: SecretStr) -> SecretStr:
    text = _stored(secret)
    if not text or len(text) > MAXIMUM_SECRET_LENGTH:
        msg = f"must have 1 to {MAXIMUM_SECRET_LENGTH} characters"
        raise ValueError(msg)
    return secret


def _state(state: SecretStr) -> SecretStr:
    text = _stored(state)
    if not text or len(text.encode()) > MAXIMUM_STATE_BYTES:
        msg = f"must have 1 to {MAXIMUM_STATE_BYTES} bytes in UTF-8"
        raise ValueError(msg)
    return state


def _number(given: Any) -> Any:
    if isinstance(given, str | bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic's kind of error
    return given


Text = Annotated[
    str,
    Field(min_length=1, max_length=255, json_schema_extra={"format": "name"}),
    _without(no_name),
]
Env = Annotated[Text, Field(json_schema_extra={"format": "env"})]
Domain = Annotated[Text, Field(json_schema_extra={"format": "domain"})]
"""The document lists those of the deployment."""
Login = Annotated[
    str,
    Field(min_length=1, max_length=255, json_schema_extra={"format": "login"}),
    _without(no_login),
]
Line = Annotated[
    str,
    Field(min_length=1, max_length=255, json_schema_extra={"format": "text"}),
    _without(unreadable),
]
LongText = Annotated[
    str,
    Field(min_length=1, max_length=2_000, json_schema_extra={"format": "text"}),
    _without(unreadable),
]
Password = Annotated[
    SecretStr,
    AfterValidator(_password),
    Field(
        description=f"{MAXIMUM_PASSWORD_BYTES} bytes in UTF-8 at most.",
        json_schema_extra={"minLength": 1, "maxLength": MAXIMUM_PASSWORD_BYTES},
    ),
]
Secret = Annotated[
    SecretStr,
    AfterValidator(_secret),
    Field(json_schema_extra={"minLength": 1, "maxLength": MAXIMUM_SECRET_LENGTH}),
]
Labels = Annotated[dict[Text, Text], Field(max_length=MAXIMUM_LABELS)]
_NUMBER = BeforeValidator(_number)
"""An integer may be written 2.0, as JSON has it, but not "2"."""
FenceIn = Annotated[
    int,
    Field(ge=1, le=MAXIMUM_FENCE, description="That of the lease."),
    _NUMBER,
]
Ttl = Annotated[
    float,
    Field(strict=True, ge=MINIMUM_TTL, le=MAXIMUM_TTL, description="Seconds to live."),
]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Wanted(Request):
    env: Text
    domain: Text
    project_id: UUID | None = None
    labels: Labels = {}
    count: Annotated[int, Field(ge=1, le=MAXIMUM_COUNT), _NUMBER] = 1


class WantIn(Wanted):
    env: Env
    domain: Domain


AnyWant = TypeVar("AnyWant", bound=Wanted)


def _few_enough(wants: list[AnyWant]) -> list[AnyWant]:
    if sum(want.count for want in wants) > MAXIMUM_COUNT:
        msg = f"must ask for at most {MAXIMUM_COUNT} users in all"
        raise ValueError(msg)
    return wants


Wants = Annotated[
    list[AnyWant],
    Field(
        min_length=1,
        max_length=MAXIMUM_WANTS,
        description=f"For at most {MAXIMUM_COUNT} users in all.",
    ),
    AfterValidator(_few_enough),
]


class HolderIn(Request):
    """Who asks. Shown to everyone who waits for the same users."""

    run_id: Line | None = None
    worker_id: Line | None = None
    test_id: LongText | None = None
    host: Line | None = None
    job_url: LongText | None = None


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


class ProspectIn(Request):
    """A lease that might be asked for, with names that may be wrong."""

    wants: Wants[Wanted]


class CheckIn(Request):
    leases: Annotated[
        list[ProspectIn], Field(min_length=1, max_length=MAXIMUM_PROSPECTS)
    ]


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


class DropStateIn(Request):
    fence: FenceIn


class StateIn(DropStateIn):
    """What the holder of a user leaves for the next one."""

    state: Annotated[
        SecretStr,
        AfterValidator(_state),
        Field(
            description=f"{MAXIMUM_STATE_BYTES} bytes in UTF-8 at most.",
            json_schema_extra={"minLength": 1, "maxLength": MAXIMUM_STATE_BYTES},
        ),
    ]
    expires_in: Annotated[
        float | None,
        Field(
            strict=True,
            gt=0,
            le=MAXIMUM_STATE_LIFE,
            description="Seconds that it is kept: an hour if null.",
        ),
    ] = None


class UserIn(Request):
    login: Login
    password: Password
    project_id: UUID | None = None
    env: Env
    domain: Domain
    labels: Labels = {}
    secrets: Annotated[dict[Text, Secret], Field(max_length=20)] = {}


class NewUserIn(UserIn):
    reservation_id: Annotated[
        UUID | None, Field(description="The place that it takes, if one was reserved.")
    ] = None


class VerifyPasswordIn(Request):
    password: Password


class ReservationIn(Request):
    id: Annotated[UUID, Field(default_factory=uuid4)]
    env: Env
    domain: Domain
    project_id: UUID | None = None
    limit: Annotated[
        int,
        Field(
            ge=1,
            le=MAXIMUM_LIMIT,
            description="How many users and reserved places the pool may have.",
        ),
        _NUMBER,
    ]


_LEFT_OUT = Field(default_factory=lambda: None)
"""What a field is that is not named. Null would say that there is none of it."""


class UserPatch(Request):
    """What is named is changed."""

    password: Annotated[Password, _LEFT_OUT]
    project_id: UUID | None = None
    domain: Annotated[Domain, _LEFT_OUT]
    labels: Annotated[Labels, _LEFT_OUT]


class ImportIn(Request):
    users: Annotated[list[UserIn], Field(min_length=1, max_length=MAXIMUM_IMPORT_ROWS)]
    dry_run: Annotated[
        StrictBool, Field(description="Check the rows and write nothing.")
    ] = False


class AcquireIn(Request):
    """The first API's acquire. Without a TTL the user stays locked until released."""

    ttl: Ttl | None = None
    holder: HolderIn = HolderIn()


class QuarantineIn(Request):
    reason: LongText
    author: Line | None = None


class RestoreIn(Request):
    reason: LongText | None = None
    author: Line | None = None


class BreakIn(Request):
    reason: LongText
    holder_is_dead: Annotated[
        StrictBool,
        Field(description="True if nobody uses the users: they need no rest."),
    ] = False


class TokenIn(Request):
    name: Annotated[Text, Field(description="What it is for, to tell it apart.")]
    role: Role
    project_id: Annotated[
        UUID | None, Field(description="The only project that it is to know of.")
    ] = None
    expires_in: Annotated[
        float | None,
        Field(
            strict=True,
            ge=1,
            le=MAXIMUM_TOKEN_LIFE,
            description="Seconds; null is for ever.",
        ),
    ] = None


class TokenOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    role: Role
    project_id: UUID | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: Annotated[datetime | None, Field(description="To the minute.")]
    revoked_at: datetime | None


class NewTokenOut(TokenOut):
    token: Annotated[
        str, Field(description="What its holder sends; it is not told again.")
    ]


class CallerOut(BaseModel):
    """Who has changed something, and from where."""

    kind: CallerKind
    token_id: UUID | None
    name: Annotated[
        str | None,
        Field(description="The token's, or the account's at the server's machine."),
    ]
    role: Role
    address: Annotated[
        str | None, Field(description="Null where it did not come over a network.")
    ]


class SubjectOut(BaseModel):
    kind: SubjectKind
    id: UUID
    name: Annotated[
        str | None,
        Field(description="A user's login, a token's name, the logins of a lease."),
    ]
    project_id: UUID | None


class AuditEventOut(BaseModel):
    """Who changed what. No secret is part of it: `changed` stands for one."""

    id: int
    at: datetime
    action: AuditAction
    by: CallerOut
    subject: SubjectOut
    before: Annotated[
        dict[str, Any] | None, Field(description="What was otherwise before.")
    ]
    after: Annotated[dict[str, Any] | None, Field(description="How that is since.")]
    reason: str | None


class HolderOut(BaseModel):
    run_id: str | None
    worker_id: str | None
    test_id: str | None
    host: str | None
    job_url: str | None


class WantOut(BaseModel):
    env: str
    domain: str
    project_id: UUID | None
    labels: dict[str, str]
    count: int


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
        Field(description="What its last holder left. Null if it left none or is old."),
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


class PassedOn(BaseModel):
    """A user that a lost lease had, and who has it now."""

    user_id: UUID
    login: str
    holder: Annotated[
        HolderOut | None, Field(description="Null while nobody holds it.")
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
    users: list[PassedOn]


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


class UserOut(BaseModel):
    id: UUID
    login: str
    project_id: UUID | None
    env: str
    domain: str
    created_at: datetime
    locktime: Annotated[
        datetime | None, Field(description="When its lease was granted, or null.")
    ]
    labels: dict[str, str]
    state: UserState
    lease_id: UUID | None
    fence: int
    dirty: bool
    quarantine_reason: str | None
    quarantined_by: Annotated[
        str | None, Field(description="`botfarm` if the server did it by itself.")
    ]


class VerifiedPasswordOut(BaseModel):
    matches: Annotated[bool, Field(description="Whether it is the user's password.")]


class ReservationOut(BaseModel):
    id: UUID
    expires_in: Annotated[float, Field(description="Seconds until it is free again.")]


class ImportOut(BaseModel):
    created: int
    updated: int
    unchanged: int


class AcquiredOut(BaseModel):
    message: str
    user_id: UUID
    lease_id: UUID
    fence: int
    locktime: datetime
    expires_in: float | None


class MessageOut(BaseModel):
    message: str


class HealthOut(BaseModel):
    status: Literal["healthy"] = "healthy"
    warning: str | None = Field(
        default=None, description="Only where the server is open to all."
    )


class ReadyOut(BaseModel):
    ready: bool
    detail: str


class FieldError(BaseModel):
    field: str
    message: str


class ErrorOut(BaseModel):
    """Every error has this shape; some carry further facts beside it."""

    model_config = ConfigDict(extra="allow")

    error: Annotated[str, Field(description="A code that programs can rely on.")]
    detail: Annotated[str, Field(description="A sentence a person can act on.")]


class PoolOut(BaseModel):
    env: str
    domain: str
    users: Annotated[int, Field(description="How many are in rotation, free or not.")]


class PoolsOut(BaseModel):
    pools: list[PoolOut]


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
