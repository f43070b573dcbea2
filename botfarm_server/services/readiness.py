"""Bringing the server into service, and whether it can serve now."""

from __future__ import annotations

import asyncio

import structlog

from botfarm_server.domain.errors import (
    BotfarmError,
    DatabaseUnavailableError,
    SchemaMismatchError,
)
from botfarm_server.services.waiting import wait_up_to
from botfarm_server.store import migrations
from botfarm_server.store.engine import Database

RETRY_PAUSE = 1.0
"""Seconds between two looks for a database that is away."""

_log = structlog.get_logger("botfarm.readiness")


class Readiness:
    """Why the server does not serve; nothing of it before its schema is right."""

    def __init__(self, database: Database, *, migrate: bool) -> None:
        self._database = database
        self._migrate = migrate
        self.refusal: BotfarmError | None = DatabaseUnavailableError(
            "it was not reached yet"
        )

    async def bring_up(self, stop: asyncio.Event) -> None:
        """Return once the database is reachable and has the schema; migrate it."""
        told: str | None = None
        while not stop.is_set():
            self.refusal = await self._attempt()
            if self.refusal is None:
                _log.info("ready", database=self._database.url.get_backend_name())
                return
            if told != self.refusal.detail:
                told = self.refusal.detail
                _log.warning("not ready", why=told)
            await wait_up_to(RETRY_PAUSE, stop)

    async def _attempt(self) -> BotfarmError | None:
        refusal = await self._look()
        if not isinstance(refusal, SchemaMismatchError) or not self._migrate:
            return refusal
        try:
            await asyncio.to_thread(migrations.upgrade, self._database.url)
        except BotfarmError as error:
            return error
        return await self._look()

    async def _look(self) -> BotfarmError | None:
        try:
            async with self._database.read() as connection:
                found = await migrations.current_revision(connection)
        except DatabaseUnavailableError as error:
            return error
        if found != migrations.HEAD:
            return SchemaMismatchError(found, migrations.HEAD)
        return None

    async def check(self) -> BotfarmError | None:
        """What keeps the server from serving at this moment."""
        return self.refusal or await self._look()
