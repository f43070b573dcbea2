"""A farm in this process, without HTTP, over each database."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.errors import HashingBusyError
from botfarm_server.domain.lifecycle import LeaseTimes
from botfarm_server.domain.models import Holder, LeaseId, User, UserId, Want
from botfarm_server.domain.vocabulary import Vocabulary
from botfarm_server.metrics import Metrics
from botfarm_server.services.acquiring import AcquireService
from botfarm_server.services.answers import Held, Waiting
from botfarm_server.services.asking import AskService
from botfarm_server.services.audit import AuditService
from botfarm_server.services.calls import Asked
from botfarm_server.services.credentials import Credentials, UserDraft
from botfarm_server.services.expiry import ExpiryLoop
from botfarm_server.services.importing import ImportService
from botfarm_server.services.kept_states import KeptStateService
from botfarm_server.services.leases import LeaseService
from botfarm_server.services.news import News
from botfarm_server.services.passwords import PasswordHasher
from botfarm_server.services.reservations import ReservationService
from botfarm_server.services.sealing import Sealer
from botfarm_server.services.tokens import TokenService
from botfarm_server.services.turns import Turns
from botfarm_server.services.users import UserService
from botfarm_server.services.waiting import WaitingRoom
from botfarm_server.store.dialects import database_url as parsed_url
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Database

STAGE = Want("stage", "regular")


@dataclass
class Farm:
    """The services over one database, as the app builds them."""

    database: Database
    room: WaitingRoom
    users: UserService
    imports: ImportService
    acquiring: AcquireService
    asking: AskService
    leases: LeaseService
    kept_states: KeptStateService
    reservations: ReservationService
    tokens: TokenService
    audit: AuditService
    expiry: ExpiryLoop
    sealer: Sealer
    names: Any = field(default_factory=lambda: iter(range(1_000_000)))

    async def add_user(
        self,
        login: str | None = None,
        *,
        env: str = "stage",
        domain: str = "regular",
        labels: Mapping[str, str] | None = None,
        project_id: uuid.UUID | None = None,
    ) -> User:
        return await self.users.create(
            UserDraft(
                login=login or f"user-{next(self.names)}",
                password="password",
                env=env,
                domain=domain,
                labels=labels or {},
                project_id=project_id,
            )
        )

    async def ask(
        self,
        *wants: Want,
        lease_id: LeaseId | None = None,
        wait: float = 0.0,
        ttl: float | None = 60.0,
        holder: Holder | None = None,
        prefer: Sequence[UserId] = (),
        by: Caller = EVERYTHING,
    ) -> Held | Waiting:
        return await self.asking.ask(
            Asked(
                lease_id or LeaseId(uuid.uuid4()),
                wants or [STAGE],
                ttl=ttl,
                wait=wait,
                holder=holder or Holder(),
                prefer=prefer,
                by=by,
            )
        )

    async def held(self, *wants: Want, **others: Any) -> Held:
        answer = await self.ask(*wants, **others)
        assert isinstance(answer, Held)
        return answer

    async def waiting(self, *wants: Want, **others: Any) -> Waiting:
        answer = await self.ask(*wants, **others)
        assert isinstance(answer, Waiting)
        return answer

    async def release(self, answer: Held | Waiting) -> None:
        await self.leases.end(answer.lease.id)

    async def now(self) -> datetime:
        async with self.database.read() as connection:
            return await read_clock(connection)

    async def set_time(
        self, table: str, column: str, row_id: uuid.UUID, ago: float
    ) -> None:
        """Let a stored time be `ago` seconds in the past, instead of waiting."""
        from botfarm_server.store.tables import metadata  # noqa: PLC0415

        target = metadata.tables[table]
        moved = await self.now() - timedelta(seconds=ago)
        async with self.database.write() as connection:
            await connection.execute(
                target.update().where(target.c.id == row_id).values({column: moved})
            )

    async def let_lapse(self, answer: Held | Waiting) -> None:
        column = "expires_at" if isinstance(answer, Held) else "poll_by"
        await self.set_time("leases", column, answer.lease.id, ago=1.0)

    async def end_rest(self, user_id: UserId) -> None:
        await self.set_time("users", "rest_until", user_id, ago=1.0)

    async def count(self, statement: str) -> int:
        async with self.database.read() as connection:
            return int((await connection.execute(text(statement))).scalar_one())


def build_farm(database_url: str, *, keys: list[bytes] | None = None) -> Farm:
    database = Database(parsed_url(database_url), pool_size=10)
    room = WaitingRoom(limit=100, per_token=100)
    times = LeaseTimes()
    sealer = Sealer([b"k" * 32] if keys is None else keys)
    credentials = Credentials(PasswordHasher(4), sealer)
    news = News(room, Metrics())
    turns = Turns(database, news, sealer, times)
    vocabulary = Vocabulary(("prod", "preprod", "stage"), ("canary", "regular"))
    return Farm(
        database=database,
        room=room,
        users=UserService(database, news, credentials, times, vocabulary),
        imports=ImportService(database, news, credentials, times, vocabulary),
        acquiring=AcquireService(database, news, times),
        asking=AskService(database, news, sealer, times, turns),
        leases=LeaseService(database, news, times, turns),
        kept_states=KeptStateService(database, sealer),
        reservations=ReservationService(database, vocabulary),
        tokens=TokenService(database),
        audit=AuditService(database),
        expiry=ExpiryLoop(
            database, news, times, 60.0, timedelta(days=30), timedelta(days=365)
        ),
        sealer=sealer,
    )


@contextmanager
def hashing_all_it_may(farm: Farm, by: Caller) -> Iterator[None]:
    """While as many calls of the caller's token hash as may at once."""
    hasher = farm.users.credentials.hasher
    with ExitStack() as calls:
        with suppress(HashingBusyError):
            while True:
                calls.enter_context(hasher.call_of(by.token_id))
        yield


@pytest.fixture
async def farm(database_url: str) -> AsyncIterator[Farm]:
    built = build_farm(database_url)
    yield built
    await built.database.dispose()
