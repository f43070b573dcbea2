"""Who calls, and what it may see and do.

A role may what those before it may: `read` sees users and leases, `lease` takes leases
and renews, ends and quarantines what it holds, `admin` does the rest. A token of a
project sees that project's users alone, and the leases that ask for nothing else.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args
from uuid import UUID

from botfarm_server.domain.errors import ForbiddenError
from botfarm_server.domain.models import Lease, Reservation, Role, TokenId, Want

ROLES: Sequence[Role] = get_args(Role)

CallerKind = Literal[
    "token", "bootstrap_token", "no_token", "command_line", "pool_file", "botfarm"
]
"""How one is known: by a stored token, by that of the environment, not at all where no
token is needed, by access to the database itself, or as a part of the server."""


@dataclass(frozen=True, slots=True)
class Caller:
    role: Role
    token_id: TokenId | None = None
    """`None` for the bootstrap token, and for everybody where no token is needed."""
    project_id: UUID | None = None
    """The only one that it knows of; `None` for all."""
    kind: CallerKind = "botfarm"
    name: str | None = None
    """The token's, or the account's at the command line of the server's machine."""
    address: str | None = None
    """From where its call comes, if it comes over a network."""

    @property
    def traits(self) -> Mapping[str, str | None]:
        """Who it is, and from where, as a line of the log tells it."""
        return {"caller": self.kind, "name": self.name, "address": self.address}

    @property
    def sender(self) -> Hashable:
        """Whose calls share with this one what each sender has its part of."""
        return self.token_id or self.address

    def may(self, needed: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(needed)

    def knows(self, project_id: UUID | None) -> bool:
        """Whether users of this project, or of none, exist to it."""
        return self.project_id is None or self.project_id == project_id

    def sees(self, lease: Lease) -> bool:
        return self.knows(lease.project_id) or self._took(lease)

    def owns(self, lease: Lease) -> bool:
        """Whether it may renew and end the lease."""
        return self._took(lease) or (self.may("admin") and self.sees(lease))

    def owns_place(self, place: Reservation) -> bool:
        """Whether it may use the place, or give it back."""
        took = self.token_id is not None and place.token_id == self.token_id
        return took or (self.may("admin") and self.knows(place.project_id))

    def is_holder_of(self, lease: Lease) -> bool:
        """Whether the lease was asked for by the same token, or as this one by none.

        Whoever is not is never told its secrets.
        """
        return lease.token_id == self.token_id

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
"""The server's own doings."""
BOOTSTRAP = Caller("admin", kind="bootstrap_token")
ANYBODY = Caller("admin", kind="no_token")
"""Whoever calls a server that asks for no token."""
POOL_FILE = Caller("admin", kind="pool_file")
"""The file of an embedded server, which holds what the file lists."""
