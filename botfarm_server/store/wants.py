"""Wants as they are stored, and back."""

from __future__ import annotations

from uuid import UUID

from botfarm_server.domain.models import UserId, Want
from botfarm_server.store.tables import Row


def stored_want(want: Want) -> Row:
    return {
        "env": want.env,
        "domain": want.domain,
        "project_id": str(want.project_id) if want.project_id else None,
        "labels": dict(want.labels),
        "count": want.count,
        "user_id": str(want.user_id) if want.user_id else None,
    }


def want_of(stored: Row) -> Want:
    project_id, user_id = stored["project_id"], stored["user_id"]
    return Want(
        env=stored["env"],
        domain=stored["domain"],
        project_id=UUID(project_id) if project_id else None,
        labels=stored["labels"],
        count=stored["count"],
        user_id=UserId(UUID(user_id)) if user_id else None,
    )
