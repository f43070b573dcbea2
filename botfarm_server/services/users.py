"""The use cases of users, one by one, and of the list that says who there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from botfarm_server.domain.access import EVERYTHING, POOL_FILE, Caller
from botfarm_server.domain.audit import Change
from botfarm_server.domain.errors import (
    InvalidRequestError,
    ReservationNotFoundError,
    UserNotFoundError,
)
from botfarm_server.domain.lifecycle import LeaseTimes
from botfarm_server.domain.models import (
    EVERY_USER,
    Candidate,
    LeaseId,
    Pool,
    User,
    UserFilter,
    UserId,
)
from botfarm_server.domain.vocabulary import Vocabulary
from botfarm_server.services import audit
from botfarm_server.services.attempts import Attempts
from botfarm_server.services.credentials import Credentials, UserDraft
from botfarm_server.services.ending import BY_ITSELF
from botfarm_server.services.finding import locked, user_of
from botfarm_server.services.hand_on import hand_on
from botfarm_server.services.news import News
from botfarm_server.services.possibility import announce_hopeless, candidate_of
from botfarm_server.services.reclaiming import user_unless_idle
from botfarm_server.store import queue, reservations, users
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Connection, Database

NOT_LISTED = "no longer in the pool file"

_log = structlog.get_logger("botfarm.users")


@dataclass
class UserService:
    database: Database
    news: News
    credentials: Credentials
    times: LeaseTimes
    vocabulary: Vocabulary
    attempts: Attempts = field(default_factory=Attempts)

    async def create(self, draft: UserDraft, by: Caller = EVERYTHING) -> User:
        """Store a user; a waiter may have it at once.

        One that takes a reserved place may be sent again: it is stored once.

        Raises:
            InvalidRequestError: its env or domain is not in the vocabulary, or its
                place is in another pool.
            DuplicateUserError: the login is taken within its env.
            ReservationNotFoundError: its place is no longer reserved.
            HashingBusyError: too many passwords are hashed.

        """
        self.vocabulary.check(draft.env, draft.domain)
        if draft.reservation_id is not None:
            # Without a place nothing is hashed. It is looked at again behind the lock.
            async with self.database.read() as connection:
                now = await read_clock(connection)
                made = await _made_before(connection, draft, now, by)
            if made is not None:
                return made
        with self.credentials.hasher.call_of(by.token_id):
            new = await self.credentials.stored(draft)
        async with self.database.queue() as (connection, now):
            made = await _made_before(connection, draft, now, by)
            if made is not None:
                return made
            if draft.reservation_id is not None:
                await reservations.remove(connection, draft.reservation_id)
            await users.add(connection, [new], now)
            created = await user_of(connection, new.id, now)
            await audit.record(connection, by, now, audit.user_made("user.create", new))
            granted = await self._hand_on(connection, {draft.pool}, now)
        self.news.tell(granted=granted)
        _log.info("user created", user_id=str(new.id), login=new.login)
        return created

    async def retain_only(self, keys: Sequence[tuple[str, str]]) -> None:
        """Remove the users that are not listed; put those aside that are held now.

        Users that suites made stay. One that was put aside and is listed again comes
        back into rotation.
        """
        changes: list[Change] = []
        lost: list[Candidate] = []
        async with self.database.queue() as (connection, now):
            aside = users.in_quarantine(now, NOT_LISTED, BY_ITSELF)
            for user_id in await users.not_listed(connection, keys):
                user = await user_unless_idle(
                    connection, user_id, now=now, times=self.times, news=self.news
                )
                lost += _lost(user)
                if await users.remove(connection, user_id):
                    changes.append(audit.user_removed(user))
                elif user.state != "quarantined":
                    moved = await self._changed(
                        connection, user_id, lambda _: aside, now
                    )
                    changes.append(audit.user_moved("user.quarantine", *moved))
            for user_id in await users.put_aside(connection, keys, reason=NOT_LISTED):
                moved = await self._changed(
                    connection, user_id, lambda _: users.BACK_IN_ROTATION, now
                )
                changes.append(audit.user_moved("user.restore", *moved))
            await audit.record(connection, POOL_FILE, now, *changes)
            pools = await queue.pools_waited_for(connection)
            granted = await self._hand_on(connection, pools, now)
            hopeless = await announce_hopeless(connection, lost)
        self.news.tell(granted=granted, others=hopeless)

    async def get(self, user_id: UserId) -> User:
        """Raises UserNotFoundError."""
        async with self.database.read() as connection:
            return await user_of(connection, user_id, await read_clock(connection))

    async def find(
        self,
        wanted: UserFilter = EVERY_USER,
        *,
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> list[User]:
        """Users in the order of env and login; no secret is among what is read."""
        async with self.database.read() as connection:
            return await users.find(
                connection,
                await read_clock(connection),
                wanted,
                after=after,
                limit=limit,
            )

    async def change(
        self, user_id: UserId, changes: Mapping[str, Any], by: Caller = EVERYTHING
    ) -> User:
        """Set `password`, `domain`, `project_id` or `labels` of a user.

        A lease that is held goes on: its holder has what it was given. A password is
        stored anew, also where it is the same one.

        Raises:
            UserNotFoundError, InvalidRequestError
            HashingBusyError: too many passwords are hashed.

        """
        values = dict(changes)
        hidden = {"password"} & values.keys()
        self.vocabulary.check(None, values.get("domain"))
        if "password" in values:
            password = values.pop("password")
            with self.credentials.hasher.call_of(by.token_id):
                values |= await self.credentials.password_columns(user_id, password)
        return await self._update(
            user_id,
            lambda *_: values,
            partial(audit.user_changed, "user.update", hidden=hidden),
            by,
            "user changed",
        )

    async def verify_password(
        self, user_id: UserId, password: str, by: Caller = EVERYTHING
    ) -> bool:
        """Whether it is the user's, by the hash: the server may have nothing else.

        Raises:
            UserNotFoundError
            TooManyAttemptsError: the user's was compared too often of late, here.
            HashingBusyError: too many passwords are hashed or compared.

        """
        async with self.database.glance() as connection:
            password_hash = await users.password_hash(connection, user_id)
        if password_hash is None:
            raise UserNotFoundError(user_id)
        self.attempts.note(user_id)
        with self.credentials.hasher.call_of(by.token_id):
            matches = await self.credentials.hasher.verify(password, password_hash)
        if not matches:
            told = {"user_id": str(user_id), **by.traits}
            _log.warning("password does not match", **told)
        return matches

    async def quarantine(
        self,
        user_id: UserId,
        reason: str,
        author: str | None = None,
        by: Caller = EVERYTHING,
    ) -> User:
        """Take a user out of rotation; who holds it keeps it until the release.

        The first reason stays, unless an admin has another one: what a holder finds
        later may come of it.
        """

        def values_at(now: datetime, before: User) -> Mapping[str, Any]:
            has_to_be_told = before.state != "quarantined" or by.may("admin")
            return users.in_quarantine(now, reason, author) if has_to_be_told else {}

        return await self._update(
            user_id,
            values_at,
            partial(audit.user_moved, "user.quarantine"),
            by,
            "user quarantined",
            reason=reason,
            author=author,
        )

    async def restore(
        self,
        user_id: UserId,
        reason: str | None = None,
        author: str | None = None,
        by: Caller = EVERYTHING,
    ) -> User:
        """Bring a user back into rotation; a waiter may have it at once.

        Reason and author stand in the logs: a user in rotation has neither.
        """
        return await self._update(
            user_id,
            lambda *_: users.BACK_IN_ROTATION,
            partial(audit.user_moved, "user.restore", author=author, reason=reason),
            by,
            "user restored",
            reason=reason,
            author=author,
        )

    async def _update(
        self,
        user_id: UserId,
        values_at: Callable[[datetime, User], Mapping[str, Any]],
        told_by: Callable[[User, User], Change],
        by: Caller,
        event: str,
        **facts: str | None,
    ) -> User:
        """Change a user; what leaves it as it was is told nowhere and moves nobody."""
        async with self.database.queue() as (connection, now):
            before, user = await self._changed(
                connection, user_id, partial(values_at, now), now, by
            )
            change = told_by(before, user)
            if change.is_none:
                return user
            await audit.record(connection, by, now, change)
            pools = {Pool(it.env, it.domain) for it in (before, user)}
            granted = await self._hand_on(connection, pools, now)
            hopeless = await announce_hopeless(connection, _lost(before, user))
        self.news.tell(granted=granted, others=hopeless)
        _log.info(event, user_id=str(user_id), login=user.login, **facts)
        return user

    async def _changed(
        self,
        connection: Connection,
        user_id: UserId,
        values_of: Callable[[User], Mapping[str, Any]],
        now: datetime,
        by: Caller = EVERYTHING,
    ) -> tuple[User, User]:
        """Set columns of a user; how it was before, and how it is."""
        before = await user_unless_idle(
            connection, user_id, now=now, times=self.times, news=self.news, by=by
        )
        values = values_of(before)
        if not values:
            return before, before
        await users.change(connection, user_id, values)
        return before, await user_of(connection, user_id, now)

    async def remove(self, user_id: UserId, by: Caller = EVERYTHING) -> None:
        """Delete a user that nobody holds, with its history.

        Raises:
            UserNotFoundError: there is none.
            UserLockedError: somebody holds it.

        """
        async with self.database.queue() as (connection, now):
            user = await user_unless_idle(
                connection, user_id, now=now, times=self.times, news=self.news, by=by
            )
            if not await users.remove(connection, user_id):
                raise await locked(connection, user_id)
            await audit.record(connection, by, now, audit.user_removed(user))
            hopeless = await announce_hopeless(connection, _lost(user))
        self.news.tell(others=hopeless)
        _log.info("user removed", user_id=str(user_id))

    async def _hand_on(
        self,
        connection: Connection,
        pools: set[Pool],
        now: datetime,
    ) -> dict[LeaseId, float]:
        return await hand_on(connection, pools, now=now, times=self.times)


def _lost(before: User, after: User | None = None) -> list[Candidate]:
    """The user as it was, if some that it met it may meet no longer."""
    was = candidate_of(before)
    is_as_it_was = (
        after is not None
        and after.state != "quarantined"
        and candidate_of(after) == was
    )
    return [] if before.state == "quarantined" or is_as_it_was else [was]


async def _made_before(
    connection: Connection, draft: UserDraft, now: datetime, by: Caller
) -> User | None:
    """The user, if it has taken its place already; else the place is there to take.

    It is the draft's for all that the caller knows.
    """
    place_id = draft.reservation_id
    if place_id is None:
        return None
    for user in await users.find(connection, now, reservation_id=place_id):
        if (user.env, user.login) == draft.key and by.knows(user.project_id):
            return user
    place = await reservations.get(connection, place_id)
    if place is None or place.expires_at <= now or not by.owns_place(place):
        raise ReservationNotFoundError(place_id)
    if not place.takes(draft.env, draft.domain, draft.project_id):
        raise InvalidRequestError(
            [("reservation_id", "was made for another env, domain or project")]
        )
    return None
