"""The audit log. Nothing changes an event, and only its age removes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime

from sqlalchemy import delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.access import Caller
from botfarm_server.domain.audit import AuditEvent, AuditFilter, Change
from botfarm_server.store.dialects import for_update
from botfarm_server.store.tables import Row, audit_events

_EVENT = tuple(audit_events.c[field.name] for field in fields(AuditEvent))


async def add(
    connection: AsyncConnection, changes: Sequence[Change], by: Caller, now: datetime
) -> None:
    """Write who changed what, with the transaction that changes it."""
    rows = [_row(change, by, now) for change in changes]
    await connection.execute(insert(audit_events), rows)


def _row(change: Change, by: Caller, now: datetime) -> Row:
    return {
        "at": now,
        "caller": by.kind,
        "token_id": by.token_id,
        "name": by.name,
        "role": by.role,
        "address": by.address,
        **{field.name: getattr(change, field.name) for field in fields(Change)},
    }


async def find(
    connection: AsyncConnection,
    wanted: AuditFilter,
    *,
    before: int | None,
    limit: int,
) -> list[AuditEvent]:
    """Events, newest first."""
    columns = audit_events.c
    exactly = {
        columns.subject_id: wanted.subject_id,
        columns.subject: wanted.subject,
        columns.action: wanted.action,
        columns.token_id: wanted.token_id,
        columns.project_id: wanted.project_id,
    }
    query = (
        select(*_EVENT)
        .where(*(column == it for column, it in exactly.items() if it is not None))
        .order_by(columns.number.desc())
        .limit(limit)
    )
    if wanted.subject_kind is not None:
        query = query.where(columns.action.startswith(f"{wanted.subject_kind}."))
    if wanted.who is not None:
        query = query.where(
            or_(columns.name == wanted.who, columns.caller == wanted.who)
        )
    if wanted.since is not None:
        query = query.where(columns.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(columns.at < wanted.until)
    if before is not None:
        query = query.where(columns.number < before)
    return [AuditEvent(*row) for row in await connection.execute(query)]


async def forget(connection: AsyncConnection, before: datetime, *, limit: int) -> int:
    """Delete the events that are older than `before`, at most `limit` of them."""
    old = (
        select(audit_events.c.number)
        .where(audit_events.c.at < before)
        .order_by(audit_events.c.at)
        .limit(limit)
    )
    # Another replica forgets as well: what it has locked is left to it.
    old = for_update(connection, old, skip_locked=True)
    gone = await connection.execute(
        delete(audit_events).where(audit_events.c.number.in_(old))
    )
    return gone.rowcount
