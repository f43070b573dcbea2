"""From what people type to what the API knows: a login, or the start of an id."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from botfarm_server.cli.client import PAGE_ROWS, FarmClient
from botfarm_server.cli.errors import CommandError, UsageError

SHORT_ID = 8
"""Characters of a lease's id in a table: enough to tell apart those that are live."""


def find_user(client: FarmClient, given: str, env: str | None) -> Any:
    """The user with this id, or the one with this login.

    Raises:
        CommandError: there is none, or there are several.

    """
    if (user_id := as_uuid(given)) is not None:
        return client.get(f"/users/{user_id}")
    found = client.get("/users", login=given, env=env)
    where = "" if env is None else f" in env {env!r}"
    if not found:
        raise CommandError(
            f"There is no user with login {given!r}{where}. `botfarm users list` shows "
            "all."
        )
    if len(found) > 1:
        envs = ", ".join(user["env"] for user in found)
        raise CommandError(
            f"Login {given!r} exists in several envs: {envs}. Say which with --env."
        )
    return found[0]


def find_lease_id(client: FarmClient, given: str) -> str:
    """The id of the lease whose id begins so: of the live ones, or of the newest.

    Raises:
        CommandError: there is none, or there are several.
        UsageError: it is no part of an id.

    """
    if (lease_id := as_uuid(given)) is not None:
        return str(lease_id)
    start = given.lower()
    if not re.fullmatch(r"[0-9a-f-]{4,36}", start):
        raise UsageError(
            f"{given!r} is not a lease's id, nor its first 4 characters or more. "
            "`botfarm leases list` shows them."
        )
    found = {
        lease["id"]
        for lease in client.every("/leases")
        if lease["id"].startswith(start)
    } or {
        lease["id"]
        for lease in client.first("/leases", state="all", limit=PAGE_ROWS).document
        if lease["id"].startswith(start)
    }
    if not found:
        raise CommandError(
            f"No live or recent lease has an id that begins with {given!r}. `botfarm "
            "leases list` shows those that are live."
        )
    if len(found) > 1:
        raise CommandError(
            f"Several leases have an id that begins with {given!r}: "
            f"{', '.join(sorted(found))}."
        )
    return str(found.pop())


def as_uuid(given: str) -> UUID | None:
    """The id that somebody typed; `None` for a name."""
    try:
        return UUID(given)
    except ValueError:
        return None
