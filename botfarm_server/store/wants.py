"""Wants as they are stored, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID, uuid5

from botfarm_server.domain.models import UserId, Want
from botfarm_server.store.tables import Row

_KINDS = UUID("5f0a4c1e-3f53-4b52-9d55-3d1f6a8b7c20")
"""The namespace of these digests; any constant would do."""


def stored_want(want: Want) -> Row:
    return {
        "env": want.env,
        "domain": want.domain,
        "project_id": str(want.project_id) if want.project_id else None,
        "labels": dict(want.labels),
        "count": want.count,
        "user_id": str(want.user_id) if want.user_id else None,
    }


def kind_of(wants: Sequence[Want]) -> UUID:
    """A digest that leases have in common which ask for the same."""
    told = json.dumps([stored_want(want) for want in wants], sort_keys=True)
    return uuid5(_KINDS, told)


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
