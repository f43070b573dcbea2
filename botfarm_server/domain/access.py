"""Who calls, and what it may see and do.

A role may what those before it may: `read` sees users and leases, `lease` takes leases
and renews, ends and quarantines what it holds, `admin` does the rest. A token of a
project sees that project's users alone, and the leases that ask for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args
from uuid import UUID

from botfarm_server.domain.errors import ForbiddenError
from botfarm_server.domain.models import Lease, Role, TokenId, Want

ROLES: Sequence[Role] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Caller:
    role: Role
    token_id: TokenId | None = None
    """`None` for the bootstrap token, and for everybody where no token is needed."""
    project_id: UUID | None = None
    """The only one that it knows of; `None` for all."""

    def may(self, needed: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(needed)

    def knows(self, project_id: UUID | None) -> bool:
        """Whether users of this project, or of none, exist to it."""
        return self.project_id is None or self.project_id == project_id

    def sees(self, lease: Lease) -> bool:
        return self.knows(lease.project_id) or self._took(lease)

    def owns(self, lease: Lease) -> bool:
        """Whether it may renew and end the lease, and is told its secrets."""
        return self._took(lease) or (self.may("admin") and self.sees(lease))

    def within_project(self, want: Want) -> Want:
        """The want, of the caller's project where it names none."""
        return replace(want, project_id=want.project_id or self.project_id)

    def project_for(self, named: UUID | None) -> UUID | None:
        """The project of what it makes: the named one, or else its own.

        Raises:
            ForbiddenError: that is another one than its own.

        """
        project_id = named or self.project_id
        if not self.knows(project_id):
            raise ForbiddenError(
                f"This token is of project {self.project_id}, and changes nothing of "
                "another. It takes a token without a project."
            )
        return project_id

    def _took(self, lease: Lease) -> bool:
        return self.token_id is not None and lease.token_id == self.token_id


EVERYTHING = Caller("admin")
"""The bootstrap token's holder, and the server's own doings."""
