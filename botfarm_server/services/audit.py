"""What the audit log is told of users, tokens, keys and leases, and reading it.

An event is written in the transaction of the change that it tells of: one is not there
without the other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from botfarm_server.domain.access import Caller
from botfarm_server.domain.audit import (
    CHANGED,
    AuditAction,
    AuditEvent,
    AuditFilter,
    Change,
    Facts,
    differing,
)
from botfarm_server.domain.models import Lease, Token, User
from botfarm_server.store import audit
from botfarm_server.store.engine import Connection, Database
from botfarm_server.store.grants import HeldUser
from botfarm_server.store.users import StoredUser


@dataclass
class AuditService:
    database: Database

    async def find(
        self, wanted: AuditFilter, *, before: int | None, limit: int
    ) -> list[AuditEvent]:
        """Events, newest first; `before` is the number of one that is known."""
        async with self.database.read() as connection:
            return await audit.find(connection, wanted, before=before, limit=limit)


async def record(
    connection: Connection, by: Caller, now: datetime, *changes: Change
) -> None:
    """Write what a transaction changes; what changes nothing is left out."""
    real = [it for it in changes if not it.is_none]
    if real:
        await audit.add(connection, real, by, now)


def user_made(
    action: Literal["user.create", "user.import"], user: StoredUser
) -> Change:
    return _of_user(action, user, None, _account(user))


def user_changed(
    action: Literal["user.update", "user.import"],
    before: User | StoredUser,
    after: User | StoredUser,
    *,
    hidden: Collection[str],
) -> Change:
    """A user that somebody changed, and which of its secrets."""
    told = {**_account(after), **dict.fromkeys(hidden, CHANGED)}
    return _of_user(action, before, _account(before), told)


def user_removed(user: User) -> Change:
    return _of_user("user.delete", user, _account(user), None)


def user_moved(
    action: Literal["user.quarantine", "user.restore"],
    before: User,
    after: User,
    *,
    author: str | None = None,
    reason: str | None = None,
) -> Change:
    """A user that went out of rotation, or came back by an author and for a reason."""
    was, told = _rotation(before), _rotation(after)
    if author is not None and told != was:
        told["restored_by"] = author
    return _of_user(action, before, was, told, reason)


def user_failed(user: HeldUser, reason: str, author: str) -> Change:
    """A user in rotation with which too many tests failed."""
    told = {"quarantine_reason": reason, "quarantined_by": author}
    return _of_user("user.quarantine", user, dict.fromkeys(told), told)


def user_state(
    action: Literal["user.save_state", "user.drop_state"], user: HeldUser
) -> Change:
    """What somebody leaves for the next holder of a user that another one holds."""
    return _of_user(action, user, None, {"state": CHANGED})


def _of_user(
    action: AuditAction,
    user: User | StoredUser | HeldUser,
    before: Facts | None,
    after: Facts | None,
    reason: str | None = None,
) -> Change:
    facts = differing(before, after)
    return Change(action, user.id, user.login, user.project_id, *facts, reason)


def _account(user: User | StoredUser) -> dict[str, Any]:
    """What people may set of a user, but its secrets."""
    return {
        "login": user.login,
        "env": user.env,
        "domain": user.domain,
        "project_id": _text(user.project_id),
        "labels": dict(user.labels),
    }


def _rotation(user: User) -> dict[str, Any]:
    """Whether a user is in quarantine, and why."""
    return {
        "quarantine_reason": user.quarantine_reason,
        "quarantined_by": user.quarantined_by,
    }


def token_made(token: Token) -> Change:
    told = {
        "name": token.name,
        "role": token.role,
        "project_id": _text(token.project_id),
        "expires_at": _text(token.expires_at),
    }
    return Change("token.create", token.id, token.name, token.project_id, None, told)


def token_revoked(token: Token, now: datetime) -> Change:
    facts = {"revoked_at": None}, {"revoked_at": _text(now)}
    return Change("token.revoke", token.id, token.name, token.project_id, *facts)


def key_used(mark: bytes, name: str) -> Change:
    """The newest key, with which somebody begins to seal all secrets anew."""
    key_id = UUID(bytes=mark.ljust(16, b"\x00"))  # a key has no id of its own
    return Change("key.rotate", key_id, name, None, None, {"use": "seals"})


def _text(fact: UUID | datetime | None) -> str | None:
    if isinstance(fact, datetime):
        return fact.isoformat()
    return None if fact is None else str(fact)


def lease_changed(
    action: Literal["lease.renew", "lease.keep", "lease.release", "lease.break"],
    lease: Lease,
    logins: Sequence[str],
    after: Facts,
    reason: str | None = None,
) -> Change:
    """What somebody does to the lease of another; `lease` is as it was before."""
    holder = {name: it for name, it in asdict(lease.holder).items() if it is not None}
    before = {"state": lease.state, "holder": holder}
    named = ", ".join(logins) or None
    facts = differing(before, after)
    return Change(action, lease.id, named, lease.project_id, *facts, reason)
