"""Users as they are asked for, and what is secret of them as it is stored."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from botfarm_server.domain.errors import SecretUnreadableError
from botfarm_server.domain.models import Pool, ReservationId, UserId
from botfarm_server.services.passwords import PasswordHasher
from botfarm_server.services.sealing import Sealer
from botfarm_server.store.users import NO_STATE, StoredUser


@dataclass(frozen=True, slots=True)
class UserDraft:
    """A user as it is asked for, with its secrets in the clear."""

    login: str
    password: str = field(repr=False)
    env: str
    domain: str
    project_id: UUID | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    reservation_id: ReservationId | None = None
    """The place that was reserved for it, where a suite made it."""

    @property
    def key(self) -> tuple[str, str]:
        return self.env, self.login

    @property
    def pool(self) -> Pool:
        return Pool(self.env, self.domain)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Hashes passwords, and seals them and further secrets where there is a key."""

    hasher: PasswordHasher
    sealer: Sealer

    async def stored(self, draft: UserDraft) -> StoredUser:
        """A new user as it is stored."""
        user_id = UserId(uuid.uuid4())
        return StoredUser(
            id=user_id,
            login=draft.login,
            env=draft.env,
            domain=draft.domain,
            project_id=draft.project_id,
            labels=draft.labels,
            password_hash=await self.hasher.hash(draft.password),
            sealed_password=self.sealer.seal(user_id, "password", draft.password),
            sealed_secrets=self.sealer.seal_map(user_id, "secrets", draft.secrets),
            reservation_id=draft.reservation_id,
        )

    async def are_same(self, draft: UserDraft, stored: StoredUser) -> bool:
        """Whether nothing would change; without a key, as far as the hash tells."""
        if self.sealer.can_seal:
            # Opening is a thousand times cheaper than hashing.
            try:
                return stored.sealed_password is not None and (
                    self.sealer.open(stored.id, "password", stored.sealed_password),
                    self.sealer.open_map(stored.id, "secrets", stored.sealed_secrets),
                ) == (draft.password, dict(draft.secrets))
            except SecretUnreadableError:
                return False  # and so it is sealed anew: the way out of a lost key
        return await self.hasher.verify(draft.password, stored.password_hash)

    async def columns(self, user_id: UserId, draft: UserDraft) -> dict[str, Any]:
        """The columns of a user that gets the draft's password and secrets."""
        sealed = self.sealer.seal_map(user_id, "secrets", draft.secrets)
        return {
            **await self.password_columns(user_id, draft.password),
            "sealed_secrets": sealed,
        }

    async def password_columns(self, user_id: UserId, password: str) -> dict[str, Any]:
        """The columns of a user that gets another password."""
        return {
            "password_hash": await self.hasher.hash(password),
            "sealed_password": self.sealer.seal(user_id, "password", password),
            **NO_STATE,
        }
