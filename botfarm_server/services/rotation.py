"""Which keys have sealed what is stored, and sealing it anew with the newest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.errors import NoSealingKeyError, SecretUnreadableError
from botfarm_server.domain.models import UserId
from botfarm_server.services import audit
from botfarm_server.services.sealing import MARK_BYTES, Sealer, name_of
from botfarm_server.store import sealed
from botfarm_server.store.engine import Connection, Database
from botfarm_server.store.sealed import Exchange, SealedUser

BATCH = 50
"""Users of one transaction. Leases wait for it, some ten milliseconds."""

_log = structlog.get_logger("botfarm.secrets")


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A key of the server's, or one that it lacks, and what is sealed with it."""

    name: str
    use: Literal["seals", "opens", "missing"]
    passwords: int
    secrets: int
    states: int

    @property
    def needed(self) -> int:
        """Values without which users cannot be leased: a state is made anew."""
        return self.passwords + self.secrets


@dataclass(frozen=True, slots=True)
class Resealed:
    """What became of some users."""

    users: int
    last: UserId
    unreadable: Sequence[SecretUnreadableError]


@dataclass
class Rotation:
    database: Database
    sealer: Sealer
    by: Caller = EVERYTHING
    _is_recorded: bool = False

    async def keys(self) -> list[KeyUse]:
        """The keys, the newest first, and behind them those that are missing."""
        async with self.database.read() as connection:
            counted = await sealed.count_by_mark(connection, MARK_BYTES)
        known = list(dict.fromkeys(self.sealer.marks))
        missing = sorted(counted.keys() - set(known))
        return [
            KeyUse(
                name_of(mark),
                self._use_of(mark),
                *(counted.get(mark, {}).get(kind, 0) for kind in sealed.COLUMNS),
            )
            for mark in [*known, *missing]
        ]

    def _use_of(self, mark: bytes) -> Literal["seals", "opens", "missing"]:
        if mark not in self.sealer.marks:
            return "missing"
        return "seals" if mark == self.sealer.marks[0] else "opens"

    async def tell_missing_keys(self) -> None:
        """Log which keys are missing: leases of the users concerned are refused."""
        for key in await self.keys():
            if key.use == "missing" and key.needed:
                _log.error(
                    f"key {key.name} is not among BOTFARM_SECRET_KEYS: users whose "
                    "secrets it sealed cannot be leased. `botfarm secrets status` "
                    "tells more.",
                    passwords=key.passwords,
                    secrets=key.secrets,
                )

    async def count_left(self) -> int:
        """How many users have a value that the newest key has not sealed.

        Raises:
            NoSealingKeyError: there is none.

        """
        async with self.database.read() as connection:
            return await sealed.count_users_not_under(connection, self._newest())

    async def reseal_some(self, after: UserId | None) -> Resealed | None:
        """Seal the values of some users anew, in the order of ids; `None` at the end.

        A value that is changed meanwhile stays as it was changed, and one that no key
        opens as it is. Each call is a transaction: it can be interrupted and repeated.
        The first that seals something is in the audit log.

        Raises:
            NoSealingKeyError: there is no key to seal with.

        """
        async with self.database.read() as connection:
            found = await sealed.users_not_under(
                connection, self._newest(), after=after, limit=BATCH
            )
        if not found:
            return None
        exchanges: defaultdict[str, list[Exchange]] = defaultdict(list)
        unreadable = []
        for user in found:
            for kind, before in user.sealed.items():
                try:
                    exchanges[kind].append(self._anew(user, kind, before))
                except SecretUnreadableError as error:
                    unreadable.append(error)
        is_first = any(exchanges.values()) and not self._is_recorded
        # Behind the queue lock, as all that changes users, so that no two wait for
        # each other's rows.
        async with self.database.queue() as (connection, now):
            await _exchange_all(connection, exchanges)
            if is_first:
                mark = self._newest()
                begun = audit.key_used(mark, name_of(mark))
                await audit.record(connection, self.by, now, begun)
        self._is_recorded |= is_first
        return Resealed(len(found), found[-1].id, unreadable)

    def _newest(self) -> bytes:
        if not self.sealer.can_seal:
            raise NoSealingKeyError
        return self.sealer.marks[0]

    def _anew(self, user: SealedUser, kind: str, before: bytes) -> Exchange:
        text = self.sealer.open(user.id, kind, before)
        after = self.sealer.seal(user.id, kind, text)
        if after is None:
            raise NoSealingKeyError
        return Exchange(user.id, before, after)


async def _exchange_all(
    connection: Connection, exchanges: Mapping[str, Sequence[Exchange]]
) -> None:
    for kind, its in exchanges.items():
        await sealed.exchange(connection, kind, its)
