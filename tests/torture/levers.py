"""Faults that are made within a server process: files in its control folder move them.

- `skew.number`: seconds that the process's clock is wrong by,
- `exhausted.on`: every connection of the pool is taken,
- `full.on`: the SQLite file may not grow.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from botfarm_server.store.engine import Database

from .wrapping import replaced

PAUSE = 0.05
LONGEST_TAKING = 0.5
"""Seconds to wait for one more connection before the switch is looked at again."""
UNLIMITED_PAGES = 1_073_741_823
"""SQLite's own default for `max_page_count`."""

_true_time = time.time


class _Skew:
    seconds = 0.0


class _AnyDatetime(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, dt.datetime)


class SkewedDatetime(dt.datetime, metaclass=_AnyDatetime):
    """A `datetime` whose `now` is wrong, in place of the real one in a module."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        return dt.datetime.fromtimestamp(_skewed_time(), tz)


def _skewed_time() -> float:
    return _true_time() + _Skew.seconds


def skew_clocks() -> None:
    """Have this process, and the server's modules, read the skewed clock."""
    time.time = _skewed_time
    for name, module in list(sys.modules.items()):
        if name.startswith("botfarm_server."):
            for attribute, value in list(vars(module).items()):
                if value is dt.datetime:
                    setattr(module, attribute, SkewedDatetime)


def watch_databases() -> list[Database]:
    """Every `Database` that is built from now on, in a list that grows."""
    built: list[Database] = []
    init = replaced(Database, "__init__")

    def remember(
        self: Database, url: Any, *, pool_size: int, pooler: bool = False
    ) -> None:
        init.original(self, url, pool_size=pool_size, pooler=pooler)
        built.append(self)

    init.by(remember)
    return built


async def watch(control: Path, databases: list[Database]) -> None:
    """Obey the files in the control folder for as long as the server runs."""
    skew_clocks()
    for database in databases:
        if database.is_sqlite:
            _limit_pages(database, control / "full.on")
    while True:
        _read_skew(control / "skew.number")
        for database in databases:
            await _exhaust(database, (control / "exhausted.on").exists)
        await asyncio.sleep(PAUSE)


def _read_skew(number: Path) -> None:
    if number.exists():
        _Skew.seconds = float(number.read_text(encoding="utf-8"))


async def _exhaust(database: Database, is_on: Callable[[], bool]) -> None:
    """Hold all the connections of the pool while the switch is on."""
    async with AsyncExitStack() as taken:
        while is_on():
            try:
                taking = taken.enter_async_context(database.engine.connect())
                await asyncio.wait_for(taking, LONGEST_TAKING)
            except (SQLAlchemyError, OSError, asyncio.TimeoutError):
                await asyncio.sleep(PAUSE)  # all are taken, or the database is away


def _limit_pages(database: Database, switch: Path) -> None:
    """Let no transaction add a page while the switch is on."""

    @event.listens_for(database.engine.sync_engine, "begin")
    def limit(connection: Any) -> None:
        full = switch.exists()
        if connection.info.get("full", False) != full:
            pages: Any = UNLIMITED_PAGES
            if full:
                pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            connection.info["full"] = full
