"""Who changed what."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field

from botfarm_server.domain.access import CallerKind
from botfarm_server.domain.audit import AuditAction, SubjectKind
from botfarm_server.domain.models import Role

_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def _written_out(given: Any) -> Any:
    # Pydantic by itself takes seconds since 1970 as well.
    if isinstance(given, str) and not _DATE.match(given):
        msg = "must be a date and a time, such as 2030-01-31T12:00:00Z"
        raise ValueError(msg)
    return given


def _instant(given: datetime) -> datetime:
    try:
        return given.astimezone(timezone.utc)
    except OverflowError:
        msg = "must be within the years 1 to 9999 of UTC"
        raise ValueError(msg) from None


Instant = Annotated[
    AwareDatetime, BeforeValidator(_written_out), AfterValidator(_instant)
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
        Field(description="A user's login, a token's or key's name, a lease's logins."),
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
