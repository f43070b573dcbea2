"""The use cases of tokens: make, list and revoke them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import TokenNotFoundError
from botfarm_server.domain.models import Role, Token, TokenId
from botfarm_server.domain.tokens import digest_of, new_token
from botfarm_server.services import audit
from botfarm_server.store import tokens
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Connection, Database


@dataclass(frozen=True, slots=True)
class NewToken:
    token: Token
    secret: str = field(repr=False)
    """What its holder sends. It is told here and never again."""


@dataclass
class TokenService:
    database: Database

    async def create(
        self,
        by: Caller,
        name: str,
        role: Role,
        *,
        project_id: UUID | None = None,
        expires_in: float | None = None,
    ) -> NewToken:
        """Make a token, of the caller's project where it has one.

        `expires_in` is in seconds of the database's clock.

        Raises:
            ForbiddenError: the caller's token is of another project.

        """
        project_id = by.project_for(project_id)
        secret = new_token(role)
        async with self.database.write() as connection:
            now = await read_clock(connection)
            token = Token(
                id=TokenId(uuid.uuid4()),
                name=name,
                role=role,
                project_id=project_id,
                created_at=now,
                expires_at=(
                    None if expires_in is None else now + timedelta(seconds=expires_in)
                ),
                last_used_at=None,
                revoked_at=None,
            )
            await tokens.add(connection, token, digest_of(secret))
            await audit.record(connection, by, now, audit.token_made(token))
        return NewToken(token, secret)

    async def find(self, by: Caller) -> Sequence[Token]:
        """The tokens that the caller may know of, oldest first, ended ones too."""
        async with self.database.read() as connection:
            return await tokens.find(connection, by.project_id)

    async def revoke(self, by: Caller, token_id: TokenId) -> None:
        """End a token at once, on every replica; again is no error.

        What was leased with it stays leased until it expires or an admin ends it.

        Raises:
            TokenNotFoundError: there is none that the caller may know of.

        """
        async with self.database.write() as connection:
            found = await tokens.get(connection, token_id)
            if found is None or not by.knows(found[0].project_id):
                raise TokenNotFoundError(token_id)
            token, now = found
            await _revoke(connection, [token], by, now)

    async def revoke_all(self, by: Caller) -> int:
        """End all tokens that the caller may know of; how many were not revoked yet."""
        async with self.database.write() as connection:
            found = await tokens.find(connection, by.project_id)
            return await _revoke(connection, found, by, await read_clock(connection))


async def _revoke(
    connection: Connection, found: Sequence[Token], by: Caller, now: datetime
) -> int:
    ended = [it for it in found if await tokens.revoke(connection, it.id, now)]
    changes = (audit.token_revoked(token, now) for token in ended)
    await audit.record(connection, by, now, *changes)
    return len(ended)
