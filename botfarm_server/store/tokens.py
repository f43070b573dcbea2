"""Tokens. A row is never deleted: a server that has had one asks for one ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, insert, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.models import Token, TokenId
from botfarm_server.store.dialects import as_time, built_once, clock, is_among
from botfarm_server.store.tables import tokens

_TOKEN = tuple(tokens.c[field.name] for field in fields(Token))


@built_once
def _by_digest(connection: AsyncConnection) -> Select[Any]:
    return select(*_TOKEN, clock(connection)).where(
        tokens.c.hash == bindparam("digest")
    )


async def known_by(
    connection: AsyncConnection, digest: str
) -> tuple[Token, datetime] | None:
    """The token with this digest, be it revoked or expired, and the time."""
    answer = await connection.execute(_by_digest(connection), {"digest": digest})
    row = answer.one_or_none()
    return None if row is None else (Token(*row[:-1]), as_time(row.clock))


@built_once
def _by_digests(connection: AsyncConnection) -> Select[Any]:
    return select(*_TOKEN, tokens.c.hash, clock(connection)).where(
        is_among(connection, tokens.c.hash, "digests")
    )


async def all_known_by(
    connection: AsyncConnection, digests: Sequence[str]
) -> Mapping[str, tuple[Token, datetime]]:
    """The tokens with these digests, as `known_by` finds each."""
    query, given = _by_digests(connection), {"digests": digests}
    rows = await connection.execute(query, given)
    return {row.hash: (Token(*row[:-2]), as_time(row.clock)) for row in rows}


async def get(
    connection: AsyncConnection, token_id: TokenId
) -> tuple[Token, datetime] | None:
    """The token with this id, be it revoked or expired, and the time."""
    query = select(*_TOKEN, clock(connection)).where(tokens.c.id == token_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else (Token(*row[:-1]), as_time(row.clock))


_ANY = select(literal(1)).select_from(tokens).limit(1)


async def exist(connection: AsyncConnection) -> bool:
    """Whether there was ever a token."""
    return (await connection.execute(_ANY)).first() is not None


async def add(connection: AsyncConnection, token: Token, digest: str) -> None:
    row = {field.name: getattr(token, field.name) for field in fields(Token)}
    await connection.execute(insert(tokens).values(hash=digest, **row))


async def find(connection: AsyncConnection, project_id: UUID | None) -> list[Token]:
    """All tokens, or those of a project, oldest first."""
    query = select(*_TOKEN).order_by(tokens.c.created_at, tokens.c.id)
    if project_id is not None:
        query = query.where(tokens.c.project_id == project_id)
    return [Token(*row) for row in await connection.execute(query)]


async def revoke(connection: AsyncConnection, token_id: TokenId, now: datetime) -> bool:
    """End a token; false if there is none that has not ended so before."""
    ended = await connection.execute(
        update(tokens)
        .where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return bool(ended.rowcount)


async def note_use(
    connection: AsyncConnection, token_id: TokenId, *, now: datetime, since: datetime
) -> None:
    """Note that a token is used, unless that was noted after `since`."""
    last = tokens.c.last_used_at
    await connection.execute(
        update(tokens)
        .where(tokens.c.id == token_id, or_(last.is_(None), last < since))
        .values(last_used_at=now)
    )
