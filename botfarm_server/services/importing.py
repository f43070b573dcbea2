"""Storing many users at once, as a list has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.audit import Change
from botfarm_server.domain.errors import DuplicateUserError, InvalidRequestError
from botfarm_server.domain.lifecycle import LeaseTimes
from botfarm_server.domain.models import UserId
from botfarm_server.domain.vocabulary import Vocabulary
from botfarm_server.services import audit
from botfarm_server.services.attempts import Attempts
from botfarm_server.services.credentials import Credentials, UserDraft
from botfarm_server.services.hand_on import hand_on
from botfarm_server.services.news import News
from botfarm_server.services.possibility import announce_hopeless, candidate_of
from botfarm_server.services.reclaiming import reclaim
from botfarm_server.store import users
from botfarm_server.store.engine import Database, after_commit

IMPORT_ATTEMPTS = 3
"""Several imports of the same users at once: each finds what the others stored."""

Pair = tuple[UserDraft, users.StoredUser]

_log = structlog.get_logger("botfarm.users")


@dataclass(frozen=True, slots=True)
class Imported:
    created: int
    updated: int
    unchanged: int


@dataclass
class ImportService:
    database: Database
    news: News
    credentials: Credentials
    times: LeaseTimes
    vocabulary: Vocabulary
    attempts: Attempts = field(default_factory=Attempts)
    """Wrong passwords in dry runs. Others change the user, and so are in the audit
    log."""

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
            HashingBusyError: too many passwords are hashed.
            TooManyAttemptsError: dry runs had another password for a user than it has
                too often of late, here.

        """
        self._check_all(drafts)
        attempt = 1
        while True:
            try:
                with self.credentials.hasher.call_of(by.token_id):
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
        _check_known(known.values(), by)
        new = [it for it in drafts if it.key not in known]
        stored = [(it, known[it.key]) for it in drafts if it.key in known]
        # Without a sealing key each takes as long as hashing it anew.
        same = await self.credentials.hasher.each(self._is_same, stored)
        differing = [
            pair for pair, is_same in zip(stored, same, strict=True) if not is_same
        ]
        imported = Imported(
            len(new), len(differing), len(drafts) - len(new) - len(differing)
        )
        if dry_run:
            self._note_attempts(stored, same)
            _log.info("import tried", **asdict(imported), **by.traits)
        if dry_run or not (new or differing):
            return imported
        prepared = await self.credentials.hasher.each(self.credentials.stored, new)
        changes = await self.credentials.hasher.each(self._changes, differing)
        async with self.database.queue() as (connection, now):
            if prepared:
                await users.add(connection, prepared, now)
            if differing:
                # Of which of them leases are idle is not looked up: all may be.
                endings = await reclaim(connection, now=now, times=self.times)
                after_commit(connection, partial(self.news.tell, endings))
            before = await users.stored(connection, [it.key for it, _ in differing])
            _check_known(before.values(), by)  # one may have moved since
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
            pools = {draft.pool for draft in drafts}
            granted = await hand_on(connection, pools, now=now, times=self.times)
            lost = map(candidate_of, before.values())
            hopeless = await announce_hopeless(connection, list(lost))
        self.news.tell(granted=granted, others=hopeless)
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

    def _note_attempts(self, stored: Sequence[Pair], same: Sequence[bool]) -> None:
        """Count the comparisons that came out wrong.

        Where there were too many, a right one is not told either: of several at once,
        each may have begun before.
        """
        for pair, is_same in zip(stored, same, strict=True):
            count = self.attempts.check if is_same else self.attempts.note
            if _is_alike(pair):
                count(pair[1].id)

    async def _is_same(self, pair: Pair) -> bool:
        return _is_alike(pair) and await self.credentials.are_same(*pair)

    async def _changes(self, pair: Pair) -> tuple[UserId, dict[str, Any]]:
        draft, stored = pair
        values: dict[str, Any] = {
            "domain": draft.domain,
            "project_id": draft.project_id,
            "labels": dict(draft.labels),
        }
        if not await self.credentials.are_same(draft, stored):
            values |= await self.credentials.columns(stored.id, draft)
        return stored.id, values


def _check_known(stored: Iterable[users.StoredUser], by: Caller) -> None:
    """Raise DuplicateUserError where one of them does not exist to the caller."""
    for user in stored:
        if not by.knows(user.project_id):
            raise DuplicateUserError(user.login, user.env, of_import=True)


def _is_alike(pair: Pair) -> bool:
    """Whether they differ in secrets at most."""
    draft, stored = pair
    return (draft.domain, draft.project_id, dict(draft.labels)) == (
        stored.domain,
        stored.project_id,
        dict(stored.labels),
    )


def _imported_over(stored: users.StoredUser, values: Mapping[str, Any]) -> Change:
    named = {name: values[name] for name in ("domain", "project_id", "labels")}
    # Both are stored anew where one of them differs.
    hidden = {"password", "secrets"} if "password_hash" in values else set()
    after = replace(stored, **named)
    return audit.user_changed("user.import", stored, after, hidden=hidden)
