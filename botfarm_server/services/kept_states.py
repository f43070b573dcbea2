"""What the holder of a user leaves for the next one: the state of a login, say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.errors import (
    LeaseMismatchError,
    LeaseNotFoundError,
    NoSealingKeyError,
    UserNotFoundError,
)
from botfarm_server.domain.lifecycle import has_lapsed, is_ended
from botfarm_server.domain.models import Fence, LeaseId, UserId
from botfarm_server.services import audit
from botfarm_server.services.answers import (
    check_told,
    ended,
    opened_state,
    reread,
)
from botfarm_server.services.locking import lease_behind_queue
from botfarm_server.services.sealing import Sealer
from botfarm_server.store import grants, lease_files, users
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Database

EXPIRES_IN = 3_600.0
"""Seconds that a state is kept if its holder does not say: most sessions last as long,
and one that has ended unnoticed fails no more than an hour's tests."""


@dataclass
class KeptStateService:
    """Keeps states, each sealed and for the next holder of its user alone."""

    database: Database
    sealer: Sealer

    async def save(
        self,
        lease_id: LeaseId,
        user_id: UserId,
        *,
        fence: Fence,
        state: str,
        expires_in: float | None,
        by: Caller = EVERYTHING,
    ) -> None:
        """Keep a state for the next holders, in place of the one before.

        Raises:
            NoSealingKeyError: the server could only keep it in the clear.
            LeaseNotFoundError, LeaseEndedError, LeaseMismatchError: the lease is not
                held, or not under this fence.
            UserNotFoundError: the lease has no such user.

        """
        sealed = self.sealer.seal(user_id, "state", state)
        if sealed is None:
            raise NoSealingKeyError
        lasts = timedelta(seconds=EXPIRES_IN if expires_in is None else expires_in)
        await self._change(
            "user.save_state",
            lease_id,
            user_id,
            fence,
            lambda now: {"sealed_state": sealed, "state_expires_at": now + lasts},
            by,
        )

    async def fetch(
        self, lease_id: LeaseId, user_id: UserId, *, by: Caller = EVERYTHING
    ) -> str | None:
        """What the last holder of a user has left; `None` if that is over.

        Raises:
            LeaseNotFoundError, LeaseEndedError: the lease is not held.
            UserNotFoundError: the lease has no such user.
            ForbiddenError: the lease is another's, or the user was moved to a project
                that the caller does not know.

        """
        async with self.database.read() as connection:
            lease = await reread(connection, lease_id)
            now = await read_clock(connection)
            if is_ended(lease.state) or has_lapsed(lease, now):
                raise await ended(connection, lease, now)
            found = await users.kept_state(connection, lease_id, user_id)
        if found is None:
            raise UserNotFoundError(user_id, lease_id)
        project_id, sealed, expires_at = found
        check_told(by, lease, [project_id])
        return opened_state(user_id, sealed, expires_at, now, self.sealer)

    async def drop(
        self,
        lease_id: LeaseId,
        user_id: UserId,
        *,
        fence: Fence,
        by: Caller = EVERYTHING,
    ) -> None:
        """Leave the next holder nothing; again is no error. Raises as `save` does."""
        await self._change(
            "user.drop_state", lease_id, user_id, fence, lambda _: users.NO_STATE, by
        )

    async def _change(
        self,
        action: Literal["user.save_state", "user.drop_state"],
        lease_id: LeaseId,
        user_id: UserId,
        fence: Fence,
        values_at: Callable[[datetime], Mapping[str, object]],
        by: Caller,
    ) -> None:
        locked = lease_behind_queue(self.database, lease_id)
        async with locked as (connection, lease, now):
            if lease is None:
                raise LeaseNotFoundError(lease_id)
            if is_ended(lease.state) or has_lapsed(lease, now):
                raise await ended(connection, lease, now)
            if lease.fence != fence:
                raise LeaseMismatchError(lease_id, "fence")
            # Its next test is to have it as it is then.
            lease_files.withdraw(connection, [lease_id])
            values = values_at(now)
            if not await users.change_held(connection, user_id, lease_id, values):
                raise UserNotFoundError(user_id, lease_id)
            if not by.is_holder_of(lease):
                held = await grants.users_held(connection, [lease_id])
                left = [audit.user_state(action, it) for it in held if it.id == user_id]
                await audit.record(connection, by, now, *left)
