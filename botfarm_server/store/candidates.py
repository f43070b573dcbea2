"""Which users a want can be met with: the free, those in rotation, and all others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Row,
    Select,
    and_,
    bindparam,
    func,
    literal,
    or_,
    select,
    tuple_,
    union,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.matching import Group
from botfarm_server.domain.models import (
    Candidate,
    Pool,
    Quarantined,
    QuarantinedUser,
    UserId,
    UserState,
    Want,
)
from botfarm_server.store.dialects import built_once, is_among, labels_contain
from botfarm_server.store.holdings import HoldingRow, holdings_where
from botfarm_server.store.tables import queue_entries, users
from botfarm_server.store.users import state_at

FEW_WANTS = 4
"""Wants of a pool and project that have a statement each, which reads few rows."""
USERS_PER_WANT, MOST_TOGETHER = 50, 2_000
"""Users that are read together for more wants: as many as are read in the time of a
statement for each, and what one statement may read."""


def _meets(connection: AsyncConnection, want: Want) -> ColumnElement[bool]:
    conditions = [users.c.env == want.env, users.c.domain == want.domain]
    if want.project_id is not None:
        conditions.append(users.c.project_id == want.project_id)
    if want.user_id is not None:
        conditions.append(users.c.id == want.user_id)
    if want.labels:
        # Implied, but it keeps the index of free users from being read through all
        # those with fewer labels, which come first in it.
        conditions.append(users.c.label_count >= len(want.labels))
        conditions.append(labels_contain(connection, users.c.labels, want.labels))
    return and_(*conditions)


_NOW = bindparam("now", type_=users.c.rest_until.type)
_IS_FREE = and_(
    users.c.lease_id.is_(None),
    users.c.quarantined_at.is_(None),
    or_(users.c.rest_until.is_(None), users.c.rest_until <= _NOW),
)
_IN_ROTATION = users.c.quarantined_at.is_(None)
_PREFERENCE = (users.c.label_count, users.c.released_at, users.c.id)
CANDIDATE = (
    users.c.id,
    users.c.env,
    users.c.domain,
    users.c.project_id,
    users.c.labels,
)


def _candidates(
    condition: ColumnElement[bool], *order: ColumnElement[Any]
) -> Select[Any]:
    return (
        select(*CANDIDATE, *order)
        .where(condition)
        .order_by(*order)
        .limit(bindparam("limit"))
    )


_ASKED_POOL = (
    users.c.env == bindparam("asked_env"),
    users.c.domain == bindparam("asked_domain"),
)
_FREE = _candidates(_IS_FREE, *_PREFERENCE)
_FREE_OF_POOL = _FREE.where(*_ASKED_POOL)
# The order of preference has no index here: the whole pool would be sorted.
_ROTATING = _candidates(_IN_ROTATION, users.c.id)
_ROTATING_OF_POOL = _ROTATING.where(*_ASKED_POOL)


def _or_preferred(
    connection: AsyncConnection, first: Select[Any], *conditions: ColumnElement[bool]
) -> CompoundSelect[Any]:
    preferred = select(*CANDIDATE, *_PREFERENCE).where(
        _IS_FREE, is_among(connection, users.c.id, "preferred"), *conditions
    )
    return union_all(select(first.subquery()), preferred)


@built_once
def _free_of_pool_or_preferred(connection: AsyncConnection) -> CompoundSelect[Any]:
    return _or_preferred(connection, _FREE_OF_POOL, *_ASKED_POOL)


async def free_for(
    connection: AsyncConnection,
    wants: Collection[Want],
    *,
    now: datetime,
    limit: int,
    besides: Collection[UserId] = (),
    preferred: Collection[UserId] = (),
) -> list[Candidate]:
    """Free users that meet any of the wants, at most `limit` for each.

    In order of preference: those that fewest others need, then the longest rested. The
    `preferred` users, where they are free and meet a want, come beyond the limit.
    """
    condition = _IS_FREE
    if besides:
        condition = and_(condition, users.c.id.not_in(list(besides)))
    found, others = await _found_together(
        connection,
        wants,
        _candidates(condition, *_PREFERENCE),
        {"now": now},
        limit=limit,
        are_enough=not preferred,
    )
    for want in others:
        given: dict[str, Any] = {"limit": limit, "now": now}
        query: Select[Any] | CompoundSelect[Any]
        if _is_any_of_its_pool(want) and not besides:
            query = (
                _free_of_pool_or_preferred(connection) if preferred else _FREE_OF_POOL
            )
            given |= {"asked_env": want.env, "asked_domain": want.domain}
        else:
            meets = _meets(connection, want)
            if besides:
                meets = and_(meets, users.c.id.not_in(list(besides)))
            query = _FREE.where(meets)
            if preferred:
                query = _or_preferred(connection, query, meets)
        if preferred:
            given["preferred"] = list(preferred)
        found |= _by_id(await connection.execute(query, given))
    return [candidate for _, candidate in sorted(found.values(), key=lambda it: it[0])]


async def _found_together(
    connection: AsyncConnection,
    wants: Collection[Want],
    query: Select[Any],
    given: Mapping[str, Any],
    *,
    limit: int,
    are_enough: bool = True,
) -> tuple[_Found, list[Want]]:
    """Users that meet any of many wants, `limit` for each; wants not looked for yet.

    What one statement reads of a pool, or of a project's part of it, decides most wants
    of it. The others are few, or more users are there than it reads. Those of a want
    are its first ones; without `are_enough`, all are needed.
    """
    shares: defaultdict[Hashable, list[Want]] = defaultdict(list)
    for want in _distinct(wants):
        shares[want.pool, want.project_id, want.user_id].append(want)
    found: _Found = {}
    others: list[Want] = []
    for its in shares.values():
        if len(its) <= FEW_WANTS:
            others += its
            continue
        most = min(MOST_TOGETHER, USERS_PER_WANT * len(its))
        any_of_it = replace(its[0], labels={})
        fewest = min(len(want.labels) for want in its)
        rows = _by_id(
            await connection.execute(
                query.where(
                    _meets(connection, any_of_it), users.c.label_count >= fewest
                ),
                {**given, "limit": most},
            )
        )
        group = Group([candidate for _, candidate in rows.values()])
        are_all = len(rows) < most
        those = 0
        for want in its:
            having = group.having(want.labels)
            if are_all or (are_enough and having.bit_count() >= limit):
                those |= group.first(having, limit) if are_enough else having
            else:
                others.append(want)
        found |= {user.id: rows[user.id] for user in group.users(those)}
    return found, others


_Found = dict[UserId, tuple[tuple[Any, ...], Candidate]]
"""Users with what they are ordered by."""


def _by_id(rows: Iterable[Row[Any]]) -> _Found:
    found = {}
    for row in rows:
        candidate = Candidate(*row[: len(CANDIDATE)])
        found[candidate.id] = (tuple(row[len(CANDIDATE) :]), candidate)
    return found


async def in_rotation_for(
    connection: AsyncConnection, wants: Collection[Want], *, limit: int
) -> list[Candidate]:
    """Users, free or not, that could meet any of the wants, in whichever order."""
    found, others = await _found_together(connection, wants, _ROTATING, {}, limit=limit)
    for want in others:
        given: dict[str, Any] = {"limit": limit}
        if _is_any_of_its_pool(want):
            query = _ROTATING_OF_POOL
            given |= {"asked_env": want.env, "asked_domain": want.domain}
        else:
            query = _ROTATING.where(_meets(connection, want))
        found |= _by_id(await connection.execute(query, given))
    return [candidate for _, candidate in found.values()]


async def count_in_rotation(connection: AsyncConnection, want: Want) -> int:
    """How many users, free or not, could meet the want."""
    query = select(func.count()).where(_IN_ROTATION, _meets(connection, want))
    found: int = (await connection.execute(query)).scalar_one()
    return found


async def quarantined_for(
    connection: AsyncConnection, wants: Collection[Want], *, limit: int
) -> Quarantined:
    """The users in quarantine that meet any of the wants, `limit` of them by name."""
    if not wants:
        return Quarantined()
    meets = or_(*(_meets(connection, want) for want in _distinct(wants)))
    query = (
        select(users.c.login, users.c.quarantine_reason, func.count().over())
        .where(users.c.quarantined_at.is_not(None), meets)
        .order_by(users.c.login)
        .limit(limit)
    )
    rows = (await connection.execute(query)).all()
    return Quarantined(
        rows[0][2] if rows else 0,
        tuple(QuarantinedUser(login, reason) for login, reason, _ in rows),
    )


def _is_any_of_its_pool(want: Want) -> bool:
    return want.project_id is None and want.user_id is None and not want.labels


def _distinct(wants: Collection[Want]) -> list[Want]:
    return list({want.criteria: want for want in wants}.values())


async def any_free_and_waited_for(
    connection: AsyncConnection,
    pools: Collection[Pool],
    *,
    now: datetime,
    besides: Collection[UserId] = (),
    projects: Collection[UUID | None] = (None,),
) -> bool:
    """Whether somebody waits for a pool of those given that has a free user.

    Users of other projects do not count, unless these are any, which `None` stands for.
    """
    if not pools:
        return False
    given: dict[str, Any] = {"now": now}
    if len(pools) == 1:
        (pool,) = pools
        query = _FREE_AND_WAITED_FOR
        given |= {"asked_env": pool.env, "asked_domain": pool.domain}
    else:
        query = _of_any(pools)
    if besides:
        query = query.where(users.c.id.not_in(list(besides)))
    if None not in projects:
        query = query.where(users.c.project_id.in_(projects))
    return (await connection.execute(query, given)).first() is not None


# Most users are free and nobody waits: then no user is read. The order is that of an
# index: in none, PostgreSQL may read the whole table for a pool with no free user.
_FREE_AND_WAITED_FOR = (
    select(users.c.id)
    .where(
        *_ASKED_POOL,
        select(literal(1))
        .where(
            queue_entries.c.env == bindparam("asked_env"),
            queue_entries.c.domain == bindparam("asked_domain"),
        )
        .exists(),
        _IS_FREE,
    )
    .order_by(*_PREFERENCE)
    .limit(1)
)


def _of_any(pools: Collection[Pool]) -> Select[Any]:
    waiter = select(literal(1)).where(
        queue_entries.c.env == users.c.env, queue_entries.c.domain == users.c.domain
    )
    return (
        select(users.c.id)
        .where(
            tuple_(users.c.env, users.c.domain).in_(
                [(pool.env, pool.domain) for pool in pools]
            ),
            waiter.exists(),
            _IS_FREE,
        )
        .limit(1)
    )


async def blocking(
    connection: AsyncConnection, wants: Collection[Want], *, limit: int
) -> list[HoldingRow]:
    """The held users that meet any of the wants, and who holds them.

    Those that are in quarantine by now are left out: nobody gets them next.
    """
    meets = or_(*(_meets(connection, want) for want in _distinct(wants)))
    return await holdings_where(connection, and_(_IN_ROTATION, meets), limit=limit)


async def count_by_state(
    connection: AsyncConnection,
    wants: Collection[Want],
    *,
    now: datetime,
    limit: int,
) -> dict[UserState, int] | None:
    """How many users meet any of the wants, by state; `None` if more than `limit` do.

    More are not read, so that a call that waits costs no more in a large pool.
    """
    of_each = [
        select(users.c.id, state_at(now))
        .where(_meets(connection, want))
        # That of an index: in none, PostgreSQL may read the whole table.
        .order_by(users.c.id)
        .limit(limit + 1)
        .subquery()
        for want in _distinct(wants)
    ]
    found = union(*map(select, of_each)).subquery()
    number = func.count().label("number")
    query = select(found.c.state, number).group_by(found.c.state)
    counts: dict[UserState, int] = dict.fromkeys(get_args(UserState), 0)
    counts |= {row.state: row.number for row in await connection.execute(query)}
    return None if sum(counts.values()) > limit else counts
