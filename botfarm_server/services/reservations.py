"""Places for users that suites make while they run, up to a limit.

A suite reserves a place before it makes an account on the system under test, so that
all suites together never make more than the limit, whatever they do at once and
however long each takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import structlog

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.errors import (
    PoolFullError,
    ReservationNotFoundError,
    TooManyPlacesError,
)
from botfarm_server.domain.models import Reservation, ReservationId, Want
from botfarm_server.domain.vocabulary import Vocabulary
from botfarm_server.store import reservations, users
from botfarm_server.store.engine import Connection, Database

RESERVED_FOR = 600.0
"""Seconds. Signing up through a web page and a mail takes minutes; a suite that died
while it did so is not to keep the place for long."""
MOST_PLACES = 100
"""Of one token at once, in all pools: a place of one is one less for others. Workers
reserve one at a time each, and wait for each other's accounts beyond this."""

_log = structlog.get_logger("botfarm.reservations")


@dataclass
class ReservationService:
    database: Database
    vocabulary: Vocabulary

    async def reserve(
        self,
        reservation_id: ReservationId,
        want: Want,
        *,
        limit: int,
        by: Caller = EVERYTHING,
    ) -> float:
        """Keep a place in the pool of a want; for how many seconds.

        Counted are the users of its env and domain, and of its project where it names
        one, in rotation or not, and the places reserved there. Labels do not count.
        Asking again with the same id gives the same place.

        Raises:
            InvalidRequestError: its env or domain is not in the vocabulary.
            ReservationNotFoundError: the id is that of a place of somebody else.
            PoolFullError: users and reserved places are as many as the limit.
            TooManyPlacesError: the caller has as many places as one may have.

        """
        self.vocabulary.check(want.env, want.domain)
        # Users are added behind the same lock, so nobody comes between look and leap.
        async with self.database.queue() as (connection, now):
            await reservations.remove_expired(connection, now)
            known = await _known(connection, reservation_id, by)
            if known is not None:
                return (known.expires_at - now).total_seconds()
            counts = [
                await it.count(connection, want.pool, want.project_id)
                for it in (users, reservations)
            ]
            if sum(counts) >= limit:
                raise PoolFullError(want, limit, *counts)
            if await reservations.count_of(connection, by.token_id) >= MOST_PLACES:
                raise TooManyPlacesError(MOST_PLACES)
            expires_at = now + timedelta(seconds=RESERVED_FOR)
            place = Reservation(
                *(reservation_id, want.env, want.domain, want.project_id),
                expires_at=expires_at,
                token_id=by.token_id,
            )
            await reservations.add(connection, place)
        _log.info(
            "place reserved",
            reservation_id=str(place.id),
            env=place.env,
            domain=place.domain,
        )
        return RESERVED_FOR

    async def give_back(
        self, reservation_id: ReservationId, by: Caller = EVERYTHING
    ) -> None:
        """Free a place; one that is not reserved, or no longer, is left alone.

        Raises:
            ReservationNotFoundError: it is somebody else's.

        """
        async with self.database.queue() as (connection, _):
            await _known(connection, reservation_id, by)
            await reservations.remove(connection, reservation_id)


async def _known(
    connection: Connection, reservation_id: ReservationId, by: Caller
) -> Reservation | None:
    """The place, if there is one. Raises ReservationNotFoundError as `give_back`."""
    place = await reservations.get(connection, reservation_id)
    if place is not None and not by.owns_place(place):
        raise ReservationNotFoundError(reservation_id)
    return place
