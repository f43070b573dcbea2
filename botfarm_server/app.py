"""The composition root: `create_app` builds everything, importing builds nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from importlib.metadata import version
from types import FrameType

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from botfarm_server.api import (
    audit,
    errors,
    health,
    kept_states,
    leases,
    metrics,
    pages,
    pools,
    reservations,
    tokens,
    users,
)
from botfarm_server.api.auth import calls_with_reserve
from botfarm_server.api.bodies import Bodies
from botfarm_server.api.browsers import AllowedHosts, BrowserHeaders
from botfarm_server.api.document import DocumentedApp, operation_id
from botfarm_server.api.headers import NEXT_CURSOR_HEADER
from botfarm_server.api.lanes import InTurn
from botfarm_server.api.middleware import Counted, ProtocolHeader, TrailingSlash
from botfarm_server.api.state import AppState
from botfarm_server.domain.errors import UnavailableError
from botfarm_server.domain.lifecycle import LeaseTimes
from botfarm_server.domain.vocabulary import Vocabulary
from botfarm_server.logging import configure_logging
from botfarm_server.metrics import Metrics, Process
from botfarm_server.services.access import AccessService
from botfarm_server.services.acquiring import AcquireService
from botfarm_server.services.asking import AskService
from botfarm_server.services.audit import AuditService
from botfarm_server.services.census import CensusService
from botfarm_server.services.credentials import Credentials
from botfarm_server.services.expiry import ExpiryLoop
from botfarm_server.services.guessing import WrongTokens
from botfarm_server.services.importing import ImportService
from botfarm_server.services.kept_states import KeptStateService
from botfarm_server.services.known_tokens import KnownTokens
from botfarm_server.services.lanes import Lanes
from botfarm_server.services.leases import LeaseService
from botfarm_server.services.news import News
from botfarm_server.services.passwords import PasswordHasher
from botfarm_server.services.pools import PoolService
from botfarm_server.services.readiness import Readiness
from botfarm_server.services.reservations import ReservationService
from botfarm_server.services.rotation import Rotation
from botfarm_server.services.sealing import Sealer
from botfarm_server.services.sharing import OneByOne
from botfarm_server.services.throttle import Throttle
from botfarm_server.services.tokens import TokenService
from botfarm_server.services.turns import Turns
from botfarm_server.services.users import UserService
from botfarm_server.services.waiting import WaitingRoom
from botfarm_server.settings import Settings, SettingsError, load_settings, misspelt
from botfarm_server.store.dialects import database_url
from botfarm_server.store.engine import Database
from botfarm_server.store.wakeups import PostgresqlWakeups, SqliteWakeups, Wakeups

PREFIX = "/api/v1"
"""Of the paths of all resources."""
STOP_TIMEOUT = 5.0
"""Seconds that the loops have to end a round that is under way."""

_log = structlog.get_logger("botfarm")


def create_app(settings: Settings | None = None) -> FastAPI:
    """The server as an ASGI application.

    Without `settings` it reads them, and sets up logging, as `uvicorn --factory`
    expects; a wrong setting then ends the process with one line.
    """
    if settings is None:
        try:
            settings = load_settings()
        except SettingsError as error:
            sys.exit(f"botfarm: {error}")
        set_up_logging(settings)
    farm = _Farm(settings)
    app = DocumentedApp(
        title=settings.project_name,
        version=version("pytest-botfarm"),
        summary="Leases test accounts to tests: one holder at a time.",
        lifespan=farm.lifespan,
        redirect_slashes=False,
        openapi_url=None,  # api/pages.py has it, for those who may see it
        generate_unique_id_function=operation_id,
    )
    app.state.botfarm = farm.state
    # Without a router that has them all: FastAPI would work each route out once more.
    # The calls that tests wait for are looked for first.
    resources = (leases, users, pools, kept_states, reservations, tokens, audit)
    for resource in resources:
        app.include_router(resource.router, prefix=PREFIX)
    app.include_router(health.router)
    if settings.pages != "off":
        app.include_router(pages.router)
    if settings.board != "off":
        app.include_router(pages.board_router)
    if settings.metrics != "off":
        app.include_router(metrics.router)
    errors.install(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=[NEXT_CURSOR_HEADER, "Retry-After"],
        )
    if settings.allowed_hosts:
        app.add_middleware(AllowedHosts, hosts=settings.allowed_hosts)
    routers = [resource.router for resource in resources]
    app.add_middleware(InTurn, has_reserve=calls_with_reserve(routers, PREFIX))
    app.add_middleware(Counted, metrics=farm.state.metrics)
    app.add_middleware(TrailingSlash)  # before all that look at paths
    app.add_middleware(ProtocolHeader)
    app.add_middleware(BrowserHeaders)
    return app


def set_up_logging(settings: Settings) -> None:
    """Log as the settings say, and first what the environment seems to mean."""
    configure_logging(settings.log_level, settings.log_format)
    for name, meant in misspelt(os.environ).items():
        _log.warning(f"{name} is no setting and is ignored; did you mean {meant}?")


class _Farm:
    """The parts of one server, and their life."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        url = database_url(settings.database_url)
        self._database = Database(
            url,
            pool_size=settings.database_pool_size,
            pooler=settings.database_pooler == "transaction",
        )
        self._room = WaitingRoom(
            settings.max_waiting, per_token=settings.max_waiting_per_token
        )
        self._news = News(self._room, self._metrics())
        self._hasher = PasswordHasher(settings.bcrypt_cost)
        times = LeaseTimes(
            claim_window=settings.claim_window,
            poll_grace=settings.poll_grace,
            lock_delay=settings.lock_delay,
            patience=settings.patience,
            cooldown=settings.cooldown,
            quarantine_after=settings.quarantine_after,
        )
        sealer = Sealer(settings.sealing_keys())
        self._turns = Turns(self._database, self._news, sealer, times)
        self._expiry = ExpiryLoop(
            database=self._database,
            news=self._news,
            times=times,
            interval=settings.loop_interval,
            retention=timedelta(days=settings.retention_days),
            audit_retention=timedelta(days=settings.audit_retention_days),
        )
        readiness = Readiness(self._database, migrate=settings.migrate_at_start)
        vocabulary = Vocabulary(settings.envs, settings.domains)
        credentials = Credentials(self._hasher, sealer)
        self.state = AppState(
            users=UserService(
                self._database, self._news, credentials, times, vocabulary
            ),
            imports=ImportService(
                self._database, self._news, credentials, times, vocabulary
            ),
            acquiring=AcquireService(self._database, self._news, times),
            asking=AskService(self._database, self._news, sealer, times, self._turns),
            leases=LeaseService(self._database, self._news, times, self._turns),
            pools=PoolService(self._database, vocabulary),
            kept_states=KeptStateService(self._database, sealer),
            reservations=ReservationService(self._database, vocabulary),
            readiness=readiness,
            access=AccessService(
                self._database,
                readiness,
                settings.admin_token(),
                open_to_all=settings.insecure_no_auth,
            ),
            throttle=Throttle(settings.max_requests_per_second),
            lanes=Lanes(),
            known_tokens=KnownTokens(),
            bodies=Bodies(
                maximum=settings.max_body_bytes, timeout=settings.request_timeout
            ),
            tokens=TokenService(self._database),
            wrong_tokens=WrongTokens(),
            census=CensusService(self._database),
            metrics=self._news.metrics,
            public_pages=settings.pages == "public",
            public_metrics=settings.metrics == "public",
            audit=AuditService(self._database),
            listing=OneByOne(),
        )
        self._rotation = Rotation(self._database, sealer)

    def _metrics(self) -> Metrics:
        made = Metrics()
        made.watch(
            Process(
                version=version("pytest-botfarm"),
                database=self._database.url.get_backend_name(),
                connections=self._settings.database_pool_size,
                connections_in_use=self._database.checked_out,
                waiting_calls=self._room.occupancy,
            )
        )
        return made

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        if not self._rotation.sealer.can_seal:
            _log.warning(
                "BOTFARM_SECRET_KEYS is not set: passwords will not be handed out. "
                "`botfarm secrets generate-key` prints a key."
            )
        access = self.state.access
        if access.is_open:
            _log.warning(
                "--insecure-no-auth: until the first token is made, whoever reaches "
                "this server may read passwords, and change and remove everything"
            )
        stop = asyncio.Event()
        work = asyncio.create_task(self._run(stop), name="botfarm")
        try:
            with _on_stop_signal(self._room.close):
                yield
        finally:
            self._room.close()
            stop.set()
            # Cancelled in the middle, a driver would leave a thread or a connection.
            await asyncio.wait({work}, timeout=STOP_TIMEOUT)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await self._turns.close(STOP_TIMEOUT)
            await self.state.census.close(STOP_TIMEOUT)
            self._hasher.close()
            await self._database.dispose()

    async def _run(self, stop: asyncio.Event) -> None:
        await self.state.readiness.bring_up(stop)
        if self.state.readiness.refusal is None:
            with suppress(UnavailableError):  # each grant that is refused tells it too
                await self._rotation.tell_missing_keys()
        wakeups = self._wakeups()
        listening = asyncio.create_task(wakeups.run()) if wakeups else None
        try:
            await self._expiry.run(stop)
        finally:
            if listening is not None:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    def _wakeups(self) -> Wakeups | None:
        """What brings word of other processes' grants, beside the loop."""
        settings = self._settings
        if self._database.is_sqlite:
            return SqliteWakeups(
                str(self._database.url.database),
                until_occupied=self._room.until_occupied,
                look_again=self._expiry.wake_granted,
            )
        if settings.database_pooler == "transaction" and not settings.listen_url:
            _log.warning(
                "BOTFARM_LISTEN_URL is not set: behind a pooler, waiting calls learn "
                "of other servers' grants from the loop alone (BOTFARM_LOOP_INTERVAL)"
            )
            return None
        return PostgresqlWakeups(
            database_url(settings.listen_url or settings.database_url),
            on_granted=self._room.wake,
            look_again=self._expiry.wake_granted,
        )


@contextmanager
def _on_stop_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` as soon as the process is told to end.

    uvicorn waits for the calls under way before it ends the lifespan, so that waiting
    calls have to be sent away before that. Its own handler is called, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        previous = before[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)

    for name in before:
        signal.signal(name, handle)
    try:
        yield
    finally:
        for name, previous in before.items():
            signal.signal(name, previous)
