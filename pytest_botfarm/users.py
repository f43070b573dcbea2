"""The account that a test gets into its hands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import UUID

from .masking import Secrets

if TYPE_CHECKING:
    from .client.models import LeasedUser


class BotUser:
    """A leased test account, exclusively this test's until its teardown.

    Neither its repr nor a failed comparison shows a secret.
    """

    __slots__ = (
        "_password",
        "_put_in_quarantine",
        "dirty",
        "domain",
        "env",
        "fence",
        "id",
        "labels",
        "login",
        "project_id",
        "secrets",
    )

    def __init__(
        self, user: LeasedUser, put_in_quarantine: Callable[[UUID, str, str], None]
    ) -> None:
        self.id: UUID = user.id
        self.login: str = user.login
        self.env: str = user.env
        self.domain: str = user.domain
        self.project_id: UUID | None = user.project_id
        self.labels: Mapping[str, str] = MappingProxyType(dict(user.labels))
        self.secrets: Mapping[str, str] = Secrets(user.secrets)
        self.fence: int = user.fence
        """Grows with every grant of the account, so it tells old holders from new."""
        self.dirty: bool = user.dirty
        """Whether its last lease did not end with a clean release."""
        self._password = user.password
        self._put_in_quarantine = put_in_quarantine

    @property
    def password(self) -> str:
        """The password. Raises PasswordNotHeldError if the server keeps no more than
        its hash.
        """
        if self._password is None:
            # Imported here, since no run that leases nothing should pay for it.
            from .client.errors import PasswordNotHeldError  # noqa: PLC0415

            raise PasswordNotHeldError(self.login)
        return self._password

    def quarantine(self, reason: str) -> None:
        """Take the account out of rotation, until a person restores it.

        For one that is broken: locked out, say, or in a state that no test can mend.
        It stays this test's until the teardown, and nobody gets it afterwards.

        Raises:
            BotfarmError: the server cannot be reached or refuses it.

        """
        self._put_in_quarantine(self.id, self.login, reason)

    def __repr__(self) -> str:
        return f"BotUser({self.login!r}, {self.env!r}, {self.domain!r})"
