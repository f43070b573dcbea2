"""The audit log over HTTP."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from botfarm_server.api.auth import By, admitted, needs
from botfarm_server.api.errors import documented
from botfarm_server.api.listing import Listing
from botfarm_server.api.routes import BoundedRoute
from botfarm_server.api.schemas.audit import AuditEventOut, Instant
from botfarm_server.api.schemas.fields import Text
from botfarm_server.api.state import Audit, State
from botfarm_server.domain.audit import (
    AuditAction,
    AuditEvent,
    AuditFilter,
    SubjectKind,
)

EVENTS_TOGETHER = 100
"""Events of a list that are read and encoded at once."""

router = APIRouter(
    prefix="/audit",
    tags=["audit"],
    dependencies=[Depends(admitted)],
    route_class=BoundedRoute,
)


@router.get(
    "",
    summary="Read who changed what",
    response_model=list[AuditEventOut],
    responses=documented(),
)
@needs("admin")
async def find(
    app: State,
    audit: Audit,
    by: By,
    subject_kind: SubjectKind | None = None,
    subject_id: UUID | None = None,
    subject: Annotated[
        Text | None, Query(description="The name of what was changed.")
    ] = None,
    action: AuditAction | None = None,
    token_id: UUID | None = None,
    who: Annotated[
        Text | None,
        Query(description="The name of a token or an account, or a kind of caller."),
    ] = None,
    since: Instant | None = None,
    until: Annotated[
        Instant | None, Query(description="The first moment after.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int | None, Query(ge=1, le=2**62)] = None,
) -> Any:
    """Newest first. Where there are more, `Botfarm-Next-Cursor` says how to go on.

    A token of a project reads what was changed in that project.
    """
    wanted = AuditFilter(
        subject_kind=subject_kind,
        subject_id=subject_id,
        subject=subject,
        action=action,
        token_id=token_id,
        who=who,
        since=since,
        until=until,
        project_id=by.project_id,
    )
    listing = Listing[AuditEvent, int](
        read=lambda before, limit: audit.find(wanted, before=before, limit=limit),
        told=lambda event: AuditEventOut.model_validate(_shown(event)),
        key_of=lambda event: event.number,
        rows_together=EVENTS_TOGETHER,
    )
    return await listing.page(app.listing, by, after=cursor, limit=limit)


def _shown(event: AuditEvent) -> dict[str, Any]:
    """An event as `AuditEventOut` tells it."""
    return {
        "id": event.number,
        "at": event.at,
        "action": event.action,
        "by": {
            "kind": event.caller,
            "token_id": event.token_id,
            "name": event.name,
            "role": event.role,
            "address": event.address,
        },
        "subject": {
            "kind": event.subject_kind,
            "id": event.subject_id,
            "name": event.subject,
            "project_id": event.project_id,
        },
        "before": event.before,
        "after": event.after,
        "reason": event.reason,
    }
