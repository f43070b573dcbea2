"""The use cases of users, the first API's acquire and release among them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from botfarm_server.domain.access import EVERYTHING, POOL_FILE, Caller
from botfarm_server.domain.audit import Change
from botfarm_server.domain.errors import (
    DuplicateUserError,
    InvalidRequestError,
    ReservationNotFoundError,
    SecretUnreadableError,
    UserLockedError,
    UserNotFoundError,
    describe_holder,
)
from botfarm_server.domain.lifecycle import (
    LeaseTimes,
    has_lapsed,
    is_ended,
    renewed_expiry,
)
from botfarm_server.domain.models import (
    Candidate,
    Fence,
    Holder,
    Lease,
    LeaseId,
    Pool,
    ReservationId,
    User,
    UserId,
    UserState,
    Want,
)
from botfarm_server.domain.queueing import Grant
from botfarm_server.services import audit
from botfarm_server.services.answers import log_held
from botfarm_server.services.attempts import Attempts
from botfarm_server.services.ending import (
    BY_ITSELF,
    end_lapsed,
    end_leases,
    hand_on_from,
    record_endings,
)
from botfarm_server.services.hand_on import hand_on
from botfarm_server.services.locking import lease_behind_queue
from botfarm_server.services.passwords import PasswordHasher
from botfarm_server.services.possibility import announce_hopeless
from botfarm_server.services.sealing import Sealer
from botfarm_server.services.waiting import WaitingRoom
from botfarm_server.store import (
    candidates,
    grants,
    holdings,
    queue,
    reservations,
    users,
)
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Connection, Database

IMPORT_ATTEMPTS = 3
"""Several imports of the same users at once: each finds what the others stored."""

NOT_LISTED = "no longer in the pool file"

_log = structlog.get_logger("botfarm.users")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that envs and domains may have in this deployment."""

    envs: Sequence[str]
    domains: Sequence[str]

    def check(self, env: str | None, domain: str | None, *, where: str = "") -> None:
        """Raise InvalidRequestError with the allowed values if a name is unknown."""
        errors = [
            (f"{where}{name}", f"{given!r} is not one of {', '.join(allowed)}")
            for name, given, allowed in (
                ("env", env, self.envs),
                ("domain", domain, self.domains),
            )
            if given is not None and given not in allowed
        ]
        if errors:
            raise InvalidRequestError(errors)

    def check_wants(self, wants: Sequence[Want]) -> None:
        """The same for the wants of a lease, the first unknown name first."""
        for index, want in enumerate(wants):
            self.check(want.env, want.domain, where=f"wants[{index}].")


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


@dataclass(frozen=True, slots=True)
class Imported:
    created: int
    updated: int
    unchanged: int


@dataclass(frozen=True, slots=True)
class Acquired:
    """What the first API's acquire gives."""

    user_id: UserId
    lease_id: LeaseId
    fence: Fence
    granted_at: datetime
    expires_in: float | None


@dataclass
class UserService:
    database: Database
    room: WaitingRoom
    hasher: PasswordHasher
    sealer: Sealer
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

        """
        self.vocabulary.check(draft.env, draft.domain)
        new = await self._prepared(draft)
        async with self.database.queue() as (connection, now):
            if draft.reservation_id is not None:
                stored = await users.find(
                    connection, now, reservation_id=draft.reservation_id
                )
                if stored and (stored[0].env, stored[0].login) == draft.key:
                    return stored[0]
                await _take_place(connection, draft, draft.reservation_id, now)
            await users.add(connection, [new], now)
            created = await _get(connection, new.id, now)
            await audit.record(connection, by, now, audit.user_made("user.create", new))
            granted = await self._hand_on(connection, {_pool(draft)}, now)
        self.room.wake(granted)
        _log.info("user created", user_id=str(new.id), login=new.login)
        return created

    async def import_all(
        self,
        drafts: Sequence[UserDraft],
        *,
        dry_run: bool = False,
        by: Caller = EVERYTHING,
    ) -> Imported:
        """Create the users that are new and update those that differ.

        A user is known by env and login. One that is stored with the same values is
        left alone, and its password is not hashed again. All or none are written.

        Raises:
            InvalidRequestError: with the index and the field of each bad one.
            DuplicateUserError: a login is taken by a user that the caller must not see.

        """
        self._check_all(drafts)
        attempt = 1
        while True:
            try:
                return await self._import_once(drafts, dry_run=dry_run, by=by)
            except DuplicateUserError:
                # Another import has stored one of them since this one looked.
                if attempt == IMPORT_ATTEMPTS:
                    raise
                attempt += 1

    async def _import_once(
        self, drafts: Sequence[UserDraft], *, dry_run: bool, by: Caller
    ) -> Imported:
        async with self.database.read() as connection:
            known = await users.stored(connection, [it.key for it in drafts])
        for user in known.values():
            if not by.knows(user.project_id):
                raise DuplicateUserError(user.login, user.env)
        new = [it for it in drafts if it.key not in known]
        stored = [(it, known[it.key]) for it in drafts if it.key in known]
        # Without a sealing key each takes as long as hashing it anew.
        same = await self.hasher.each(self._is_same, stored)
        differing = [
            pair for pair, is_same in zip(stored, same, strict=True) if not is_same
        ]
        imported = Imported(
            len(new), len(differing), len(drafts) - len(new) - len(differing)
        )
        if dry_run or not (new or differing):
            return imported
        prepared = await self.hasher.each(self._prepared, new)
        changes = await self.hasher.each(self._changes, differing)
        async with self.database.queue() as (connection, now):
            if prepared:
                await users.add(connection, prepared, now)
            before = await users.stored(connection, [it.key for it, _ in differing])
            for (draft, _), (user_id, values) in zip(differing, changes, strict=True):
                if not await users.change(connection, user_id, values):
                    # Somebody has removed it since: it is looked at again.
                    raise DuplicateUserError(draft.login, draft.env)
            await audit.record(
                connection,
                by,
                now,
                *(audit.user_made("user.import", user) for user in prepared),
                *(
                    _imported_over(before[draft.key], values)
                    for (draft, _), (_, values) in zip(differing, changes, strict=True)
                ),
            )
            pools = {_pool(draft) for draft in drafts}
            granted = await self._hand_on(connection, pools, now)
            lost = map(_candidate, before.values())
            hopeless = await announce_hopeless(connection, list(lost))
        self.room.wake([*granted, *hopeless])
        _log.info("users imported", created=len(new), updated=len(differing))
        return imported

    def _check_all(self, drafts: Sequence[UserDraft]) -> None:
        errors: list[tuple[str, str]] = []
        seen: dict[tuple[str, str], int] = {}
        for index, draft in enumerate(drafts):
            try:
                self.vocabulary.check(draft.env, draft.domain, where=f"users[{index}].")
            except InvalidRequestError as error:
                errors += error.errors
            first = seen.setdefault(draft.key, index)
            if first != index:
                message = f"the same login stands in users[{first}] for the same env"
                errors.append((f"users[{index}].login", message))
        if errors:
            raise InvalidRequestError(errors)

    async def _is_same(self, pair: tuple[UserDraft, users.StoredUser]) -> bool:
        draft, stored = pair
        same = (draft.domain, draft.project_id, dict(draft.labels)) == (
            stored.domain,
            stored.project_id,
            dict(stored.labels),
        )
        return same and await self._has_same_secrets(draft, stored)

    async def _has_same_secrets(
        self, draft: UserDraft, stored: users.StoredUser
    ) -> bool:
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

    async def _prepared(self, draft: UserDraft) -> users.StoredUser:
        user_id = UserId(uuid.uuid4())
        return users.StoredUser(
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

    async def _changes(
        self, pair: tuple[UserDraft, users.StoredUser]
    ) -> tuple[UserId, dict[str, Any]]:
        draft, stored = pair
        values: dict[str, Any] = {
            "domain": draft.domain,
            "project_id": draft.project_id,
            "labels": dict(draft.labels),
        }
        if not await self._has_same_secrets(draft, stored):
            values |= await self._secret_columns(stored.id, draft.password)
            values["sealed_secrets"] = self.sealer.seal_map(
                stored.id, "secrets", draft.secrets
            )
        return stored.id, values

    async def _secret_columns(self, user_id: UserId, password: str) -> dict[str, Any]:
        return {
            "password_hash": await self.hasher.hash(password),
            "sealed_password": self.sealer.seal(user_id, "password", password),
            **users.NO_STATE,
        }

    async def retain_only(self, keys: Sequence[tuple[str, str]]) -> None:
        """Remove the users that are not listed; put those aside that are held now.

        Users that suites made stay. One that was put aside and is listed again comes
        back into rotation.
        """
        changes: list[Change] = []
        lost: list[Candidate] = []
        async with self.database.queue() as (connection, now):
            for user_id in await users.not_listed(connection, keys):
                user = await _get(connection, user_id, now)
                lost += _lost(user)
                if await users.remove(connection, user_id):
                    changes.append(audit.user_removed(user))
                elif user.state != "quarantined":
                    aside = users.in_quarantine(now, NOT_LISTED, BY_ITSELF)
                    moved = await _changed(connection, user_id, aside, now)
                    changes.append(audit.user_moved("user.quarantine", *moved))
            for user_id in await users.put_aside(connection, keys, reason=NOT_LISTED):
                back = users.BACK_IN_ROTATION
                moved = await _changed(connection, user_id, back, now)
                changes.append(audit.user_moved("user.restore", *moved))
            await audit.record(connection, POOL_FILE, now, *changes)
            pools = await queue.pools_waited_for(connection)
            granted = await self._hand_on(connection, pools, now)
            hopeless = await announce_hopeless(connection, lost)
        self.room.wake([*granted, *hopeless])

    async def get(self, user_id: UserId) -> User:
        """Raises UserNotFoundError."""
        async with self.database.read() as connection:
            return await _get(connection, user_id, await read_clock(connection))

    async def find(
        self,
        *,
        env: str | None = None,
        domain: str | None = None,
        project_id: UUID | None = None,
        login: str | None = None,
        state: UserState | None = None,
        labels: Mapping[str, str] | None = None,
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> list[User]:
        """Users in the order of env and login; no secret is among what is read."""
        async with self.database.read() as connection:
            return await users.find(
                connection,
                await read_clock(connection),
                env=env,
                domain=domain,
                project_id=project_id,
                login=login,
                state=state,
                labels=labels,
                after=after,
                limit=limit,
            )

    async def change(
        self, user_id: UserId, changes: Mapping[str, Any], by: Caller = EVERYTHING
    ) -> User:
        """Set `password`, `domain`, `project_id` or `labels` of a user.

        A lease that is held goes on: its holder has what it was given.

        Raises:
            UserNotFoundError, InvalidRequestError

        """
        values = dict(changes)
        hidden = {"password"} & values.keys()
        self.vocabulary.check(None, values.get("domain"))
        if "password" in values:
            values |= await self._secret_columns(user_id, values.pop("password"))
        return await self._update(
            user_id,
            lambda _: values,
            partial(audit.user_changed, "user.update", hidden=hidden),
            by,
            "user changed",
        )

    async def verify_password(self, user_id: UserId, password: str) -> bool:
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
        matches = await self.hasher.verify(password, password_hash)
        if not matches:
            _log.warning("password does not match", user_id=str(user_id))
        return matches

    async def quarantine(
        self,
        user_id: UserId,
        reason: str,
        author: str | None = None,
        by: Caller = EVERYTHING,
    ) -> User:
        """Take a user out of rotation; who holds it keeps it until the release."""
        return await self._update(
            user_id,
            lambda now: users.in_quarantine(now, reason, author),
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
            lambda _: users.BACK_IN_ROTATION,
            partial(audit.user_moved, "user.restore", author=author, reason=reason),
            by,
            "user restored",
            reason=reason,
            author=author,
        )

    async def _update(
        self,
        user_id: UserId,
        values_at: Callable[[datetime], Mapping[str, Any]],
        told_by: Callable[[User, User], Change],
        by: Caller,
        event: str,
        **facts: str | None,
    ) -> User:
        async with self.database.queue() as (connection, now):
            before, user = await _changed(connection, user_id, values_at(now), now)
            await audit.record(connection, by, now, told_by(before, user))
            pools = {Pool(it.env, it.domain) for it in (before, user)}
            granted = await self._hand_on(connection, pools, now)
            hopeless = await announce_hopeless(connection, _lost(before, user))
        self.room.wake([*granted, *hopeless])
        _log.info(event, user_id=str(user_id), login=user.login, **facts)
        return user

    async def remove(self, user_id: UserId, by: Caller = EVERYTHING) -> None:
        """Delete a user that nobody holds, with its history.

        Raises:
            UserNotFoundError: there is none.
            UserLockedError: somebody holds it.

        """
        async with self.database.queue() as (connection, now):
            user = await _get(connection, user_id, now)
            if not await users.remove(connection, user_id):
                raise await _locked(connection, user_id)
            await audit.record(connection, by, now, audit.user_removed(user))
            hopeless = await announce_hopeless(connection, _lost(user))
        self.room.wake(hopeless)
        _log.info("user removed", user_id=str(user_id))

    async def acquire(
        self,
        user_id: UserId,
        *,
        ttl: float | None,
        holder: Holder,
        by: Caller = EVERYTHING,
    ) -> Acquired:
        """Lease one user, now or not at all.

        It stands at the end of the queue like any other want: a user that is kept for
        an earlier waiter is not given away. Without a TTL the lease never expires.

        Raises:
            UserNotFoundError, UserLockedError

        """
        lease_id = LeaseId(uuid.uuid4())
        async with self.database.queue() as (connection, now):
            user = await _get(connection, user_id, now)
            want = Want(user.env, user.domain, user.project_id, user_id=user_id)
            kept: dict[LeaseId, Sequence[Candidate]] = {}
            granted = await self._hand_on(connection, {want.pool}, now, kept)
            is_kept = any(user_id == it.id for its in kept.values() for it in its)
            if is_kept or not await candidates.free_for(
                connection, [want], now=now, limit=1
            ):
                raise await _locked(connection, user_id)
            lease = Lease(
                id=lease_id,
                state="held",
                wants=[want],
                holder=holder,
                ttl=ttl,
                created_at=now,
                granted_at=now,
                expires_at=renewed_expiry(now, ttl),
                token_id=by.token_id,
            )
            ((held, _),) = await grants.insert_held(
                connection, [(lease, Grant(lease_id, {user_id: 0}))]
            )
        self.room.wake(granted)
        log_held(held, [user.login])
        return Acquired(
            user_id=user_id,
            lease_id=lease_id,
            fence=held.fence or Fence(0),
            granted_at=now,
            expires_in=ttl,
        )

    async def release(self, user_id: UserId, by: Caller = EVERYTHING) -> bool:
        """End the lease that the first API took of a user; was there one still?

        Raises:
            UserNotFoundError
            UserLockedError: the user belongs to a lease that its holder gives back,
                or that is not the caller's.

        """
        user = await self.get(user_id)
        if user.lease_id is None:
            return False
        locked = lease_behind_queue(self.database, user.lease_id)
        async with locked as (connection, lease, now):
            if lease is None or is_ended(lease.state):
                return False
            if has_lapsed(lease, now):
                endings = await end_lapsed(
                    connection, [lease], now=now, times=self.times
                )
            elif lease.wants[0].user_id is None or not by.owns(lease):
                raise await _locked(connection, user_id)
            else:
                endings = await end_leases(
                    connection, [lease], "released", now=now, times=self.times
                )
                await record_endings(connection, endings, by, now)
            granted = await hand_on_from(connection, endings, now=now, times=self.times)
        self.room.wake(granted)
        for ending in endings:
            ending.log()
        return any(ending.state == "released" for ending in endings)

    async def _hand_on(
        self,
        connection: Connection,
        pools: set[Pool],
        now: datetime,
        kept: dict[LeaseId, Sequence[Candidate]] | None = None,
    ) -> list[LeaseId]:
        return await hand_on(connection, pools, now=now, times=self.times, kept=kept)


def _lost(before: User, after: User | None = None) -> list[Candidate]:
    """The user as it was, if some that it met it may meet no longer."""
    was = _candidate(before)
    is_as_it_was = (
        after is not None and after.state != "quarantined" and _candidate(after) == was
    )
    return [] if before.state == "quarantined" or is_as_it_was else [was]


def _candidate(user: User | users.StoredUser) -> Candidate:
    return Candidate(user.id, user.env, user.domain, user.project_id, user.labels)


def _pool(draft: UserDraft) -> Pool:
    return Pool(draft.env, draft.domain)


async def _take_place(
    connection: Connection,
    draft: UserDraft,
    reservation_id: ReservationId,
    now: datetime,
) -> None:
    """Let a user have the place that was reserved for it."""
    place = await reservations.get(connection, reservation_id)
    if place is None or place.expires_at <= now:
        raise ReservationNotFoundError(reservation_id)
    if not place.takes(draft.env, draft.domain, draft.project_id):
        raise InvalidRequestError(
            [("reservation_id", "was made for another env, domain or project")]
        )
    await reservations.remove(connection, reservation_id)


def _imported_over(stored: users.StoredUser, values: Mapping[str, Any]) -> Change:
    named = {name: values[name] for name in ("domain", "project_id", "labels")}
    # Both are stored anew where one of them differs.
    hidden = {"password", "secrets"} if "password_hash" in values else set()
    after = replace(stored, **named)
    return audit.user_changed("user.import", stored, after, hidden=hidden)


async def _changed(
    connection: Connection, user_id: UserId, values: Mapping[str, Any], now: datetime
) -> tuple[User, User]:
    """Set columns of a user; how it was before, and how it is."""
    before = await _get(connection, user_id, now)
    if values:
        await users.change(connection, user_id, values)
    return before, await _get(connection, user_id, now)


async def _get(connection: Connection, user_id: UserId, now: datetime) -> User:
    user = await users.get(connection, user_id, now)
    if user is None:
        raise UserNotFoundError(user_id)
    return user


async def _locked(connection: Connection, user_id: UserId) -> UserLockedError:
    holding = (await holdings.holdings_of(connection, [user_id])).get(user_id)
    if holding is None:
        return UserLockedError(user_id, "it is resting, in quarantine or kept")
    return UserLockedError(
        user_id, f"held by {describe_holder(holding.holder)}", holding.holder
    )
