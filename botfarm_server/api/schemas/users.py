"""Users: stored, changed, leased by the first API and shown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, SecretStr, StrictBool

from botfarm_server.api.schemas.fields import (
    Domain,
    Env,
    Labels,
    Line,
    LongText,
    Request,
    Text,
    Ttl,
    stored_text,
    without,
)
from botfarm_server.api.schemas.wants import HolderIn
from botfarm_server.domain.logins import no_login
from botfarm_server.domain.models import UserState

MAXIMUM_IMPORT_ROWS = 500
MAXIMUM_SECRET_LENGTH = 10_000
MAXIMUM_SECRETS_BYTES = 65_536
"""Of one user: a lease of many is answered with those of all of them."""
MAXIMUM_PASSWORD_BYTES = 72
"""bcrypt reads no further, and its newest version refuses to."""


def _password(password: SecretStr) -> SecretStr:
    text = stored_text(password)
    if not text:
        msg = "must not be empty"
        raise ValueError(msg)
    if len(text.encode()) > MAXIMUM_PASSWORD_BYTES:
        msg = f"must be at most {MAXIMUM_PASSWORD_BYTES} bytes in UTF-8"
        raise ValueError(msg)
    return password


def _secret(secret: SecretStr) -> SecretStr:
    text = stored_text(secret)
    if not text or len(text) > MAXIMUM_SECRET_LENGTH:
        msg = f"must have 1 to {MAXIMUM_SECRET_LENGTH} characters"
        raise ValueError(msg)
    return secret


def _secrets(secrets: dict[str, SecretStr]) -> dict[str, SecretStr]:
    sizes = (len(secret.get_secret_value().encode()) for secret in secrets.values())
    if sum(sizes) > MAXIMUM_SECRETS_BYTES:
        msg = f"must have at most {MAXIMUM_SECRETS_BYTES} bytes in UTF-8 together"
        raise ValueError(msg)
    return secrets


Login = Annotated[
    str,
    Field(min_length=1, max_length=255, json_schema_extra={"format": "login"}),
    without(no_login),
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


class UserIn(Request):
    login: Login
    password: Password
    project_id: UUID | None = None
    env: Env
    domain: Domain
    labels: Labels = {}
    secrets: Annotated[
        dict[Text, Secret],
        AfterValidator(_secrets),
        Field(
            max_length=20,
            description=f"{MAXIMUM_SECRETS_BYTES} bytes in UTF-8 at most, together.",
        ),
    ] = {}


class NewUserIn(UserIn):
    reservation_id: Annotated[
        UUID | None, Field(description="The place that it takes, if one was reserved.")
    ] = None


class VerifyPasswordIn(Request):
    password: Password


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
    idle: Annotated[
        bool,
        Field(description="Whether no test has it at present, though it is leased."),
    ]


class VerifiedPasswordOut(BaseModel):
    matches: Annotated[bool, Field(description="Whether it is the user's password.")]


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
