"""Who calls, by the token that it sends, and whether what it names exists to it."""

from __future__ import annotations

import hmac
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from botfarm_server.domain.access import ANYBODY, BOOTSTRAP, Caller
from botfarm_server.domain.errors import (
    DatabaseUnavailableError,
    ForbiddenError,
    LeaseNotFoundError,
    TokenExpiredError,
    TokenMistypedError,
    TokenRevokedError,
    UnauthorizedError,
    UserNotFoundError,
)
from botfarm_server.domain.models import LeaseId, Role, Token, UserId
from botfarm_server.domain.tokens import PREFIX, digest_of, is_mistyped
from botfarm_server.services.readiness import Readiness
from botfarm_server.services.recognition import Recognition
from botfarm_server.store import holdings, leases, tokens
from botfarm_server.store.engine import Database

USE_NOTED_EVERY = timedelta(minutes=1)
"""Each note is a write, which calls that only read should not cost."""


@dataclass
class AccessService:
    """Who may call.

    A stored token is looked up at each call, by one statement: nothing is remembered of
    it that a revocation at another replica could make untrue.
    """

    database: Database
    readiness: Readiness
    bootstrap_token: str | None = field(repr=False)
    open_to_all: bool
    _has_had_tokens: bool = False
    _recognition: Recognition = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._recognition = Recognition(self.database)

    @property
    def is_open(self) -> bool:
        """Whether all may call, as far as this process knows without a look."""
        return self.open_to_all and not self.asks_for_tokens

    @property
    def asks_for_tokens(self) -> bool:
        """Whether nobody may call without one, as far as this process knows."""
        return self.bootstrap_token is not None or self._has_had_tokens

    async def identify(self, given: str | None, *, over_loopback: bool) -> Caller:
        """The caller that sends this token, or none.

        A server is open as long as there was never a token: to loopback, or to all
        where it was told so.

        Raises:
            UnauthorizedError: no token, or one that is not or no longer the server's.
            ForbiddenError: there is none to ask for, and this is no loopback address.
            BotfarmError: what keeps the server from serving.

        """
        if self._is_bootstrap(given):
            self._check_serving()
            return BOOTSTRAP
        if given is not None and given.startswith(PREFIX):
            if is_mistyped(given):
                raise TokenMistypedError
            self._check_serving()
            if (caller := await self._stored(given)) is not None:
                return caller
        if await self._needs_token():
            raise UnauthorizedError
        if not (self.open_to_all or over_loopback):
            raise ForbiddenError(
                "This server has no token, so it answers on loopback alone. Make one "
                "with `botfarm tokens create` on its machine, or start it with "
                "BOTFARM_BOOTSTRAP_TOKEN, or with --insecure-no-auth."
            )
        return ANYBODY

    async def recognized(self, given: str) -> Caller | None:
        """Whose token this is, if `identify` would let it in now.

        It says whose turn a call waits for, and is looked for together with others:
        `identify` sees to the rest in that turn.
        """
        if self._is_bootstrap(given):
            return BOOTSTRAP
        is_one = given.startswith(PREFIX) and not is_mistyped(given)
        if not is_one or self.readiness.refusal is not None:
            return None
        with suppress(DatabaseUnavailableError, UnauthorizedError):
            found = await self._recognition.find(digest_of(given))
            if found is not None:
                _check_valid(*found)
                return _caller_with(found[0])
        return None

    def _is_bootstrap(self, given: str | None) -> bool:
        expected = self.bootstrap_token
        return (
            given is not None
            and expected is not None
            and hmac.compare_digest(given.encode(), expected.encode())
        )

    def _check_serving(self) -> None:
        if self.readiness.refusal is not None:
            raise self.readiness.refusal

    async def _needs_token(self) -> bool:
        """Once true, it stays so: a token that was revoked is still a row."""
        if not self.asks_for_tokens:
            self._check_serving()
            async with self.database.glance() as connection:
                self._has_had_tokens = await tokens.exist(connection)
        return self.asks_for_tokens

    async def _stored(self, given: str) -> Caller | None:
        # Found by an index over SHA-256: how long that takes tells of the digest at
        # most, from which nobody gets to a token.
        async with self.database.glance() as connection:
            found = await tokens.known_by(connection, digest_of(given))
        if found is None:
            return None
        self._has_had_tokens = True
        token, now = found
        _check_valid(token, now)
        await self._note_use(token, now)
        return _caller_with(token)

    async def check_still(self, by: Caller) -> None:
        """Raise UnauthorizedError where the token was ended while its call waited."""
        if by.token_id is None:
            return
        async with self.database.glance() as connection:
            found = await tokens.get(connection, by.token_id)
        if found is None:
            raise UnauthorizedError
        _check_valid(*found)

    async def _note_use(self, token: Token, now: datetime) -> None:
        since = now - USE_NOTED_EVERY
        if token.last_used_at is not None and token.last_used_at >= since:
            return
        with suppress(DatabaseUnavailableError):  # the call itself may do without
            async with self.database.write() as connection:
                await tokens.note_use(connection, token.id, now=now, since=since)

    async def check_user(self, by: Caller, user_id: UserId) -> None:
        """Raise UserNotFoundError where the user is of a project unknown to the caller.

        One that does not exist at all is for the call itself to tell.
        """
        if by.project_id is None:
            return
        async with self.database.glance() as connection:
            project_id = await holdings.project_of(connection, user_id)
        if not by.knows(project_id):
            raise UserNotFoundError(user_id)

    async def check_holds(self, by: Caller, user_id: UserId) -> None:
        """Raise ForbiddenError where the caller neither holds the user nor is admin."""
        if by.may("admin"):
            return
        async with self.database.glance() as connection:
            token_id = await holdings.token_that_holds(connection, user_id)
        if token_id is None or token_id != by.token_id:
            raise ForbiddenError(
                "A token of role lease does this to users that it holds alone; for any "
                "other it takes the role admin.",
                needed="admin",
            )

    async def check_lease(self, by: Caller, lease_id: LeaseId, needed: Role) -> None:
        """Raise LeaseNotFoundError where the lease does not exist to the caller.

        What takes more than the role `read` takes the lease itself.
        """
        if by.project_id is None and (needed == "read" or by.may("admin")):
            return
        async with self.database.glance() as connection:
            lease = await leases.get(connection, lease_id)
        if lease is None or not (
            by.sees(lease) if needed == "read" else by.owns(lease)
        ):
            raise LeaseNotFoundError(lease_id)


def _caller_with(token: Token) -> Caller:
    return Caller(token.role, token.id, token.project_id, "token", token.name)


def _check_valid(token: Token, now: datetime) -> None:
    if token.revoked_at is not None:
        raise TokenRevokedError(token.name)
    if token.expires_at is not None and token.expires_at <= now:
        raise TokenExpiredError(token.name)
