"""The words of the audit log: who changed what, and how that was before and after.

No secret is ever among it: of a password, of secrets and of a state it tells that they
changed. What tests do with leases of their own is no part of it: the leases tell it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID

from botfarm_server.domain.access import CallerKind
from botfarm_server.domain.models import Role, TokenId

SubjectKind = Literal["user", "token", "key", "lease"]
"""What an action begins with."""
AuditAction = Literal[
    "user.create",
    "user.import",
    "user.update",
    "user.delete",
    "user.quarantine",
    "user.restore",
    "user.save_state",
    "user.drop_state",
    "token.create",
    "token.revoke",
    "key.rotate",
    "lease.renew",
    "lease.keep",
    "lease.release",
    "lease.break",
]
Facts = Mapping[str, Any]
"""What JSON can hold, without secrets."""

CHANGED = "changed"
"""What stands for a secret."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a call changes. What differs is in `before` and `after` alone."""

    action: AuditAction
    subject_id: UUID
    subject: str | None
    """The login of a user, the name of a token or key, the logins that a lease had."""
    project_id: UUID | None
    """Whose admins may read of it: where a user moves, those that it leaves."""
    before: Facts | None
    after: Facts | None
    reason: str | None = None

    @property
    def is_none(self) -> bool:
        """Whether all is as it was."""
        return not (self.before or self.after)


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """A change as it stands in the log."""

    number: int
    """Grows from event to event."""
    at: datetime
    caller: CallerKind
    token_id: TokenId | None
    name: str | None
    """The token's, or the account's at the command line of the server's machine."""
    role: Role
    address: str | None
    """From where the call came, if it came over a network."""
    action: AuditAction
    subject_id: UUID
    subject: str | None
    project_id: UUID | None
    before: Facts | None
    after: Facts | None
    reason: str | None

    @property
    def subject_kind(self) -> SubjectKind:
        return cast("SubjectKind", self.action.partition(".")[0])


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events to find; `None` is any."""

    subject_kind: SubjectKind | None = None
    subject_id: UUID | None = None
    subject: str | None = None
    action: AuditAction | None = None
    token_id: UUID | None = None
    who: str | None = None
    """The name of a token or of an account, or a kind of caller."""
    since: datetime | None = None
    until: datetime | None = None
    """The first moment that is no longer asked for."""
    project_id: UUID | None = None


def differing(
    before: Facts | None, after: Facts | None
) -> tuple[Facts | None, Facts | None]:
    """Both without what is the same in both; `None` is what is not there at all."""
    if before is None or after is None:
        return before, after
    return _without(before, after), _without(after, before)


def _without(facts: Facts, others: Facts) -> Facts:
    return {
        name: fact
        for name, fact in facts.items()
        if name not in others or others[name] != fact
    }
