"""A user by its id, or what its caller is told instead."""

from __future__ import annotations

from datetime import datetime

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.errors import UserLockedError, UserNotFoundError
from botfarm_server.domain.models import User, UserId
from botfarm_server.domain.wording import describe_holder
from botfarm_server.store import holdings, users
from botfarm_server.store.engine import Connection


async def user_of(
    connection: Connection, user_id: UserId, now: datetime, by: Caller = EVERYTHING
) -> User:
    """Raises UserNotFoundError, also where it does not exist to the caller.

    It may have moved to another project since the call was let in.
    """
    user = await users.get(connection, user_id, now)
    if user is None or not by.knows(user.project_id):
        raise UserNotFoundError(user_id)
    return user


async def locked(connection: Connection, user_id: UserId) -> UserLockedError:
    """Why a user cannot be had, and who has it."""
    holding = (await holdings.holdings_of(connection, [user_id])).get(user_id)
    if holding is None:
        return UserLockedError(user_id, "it is resting, in quarantine or kept")
    return UserLockedError(
        user_id, f"held by {describe_holder(holding.holder)}", holding.holder
    )
