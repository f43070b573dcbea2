"""One trip to the driver's thread for each SQLite statement.

aiosqlite runs every call in a thread of the connection's own. SQLAlchemy makes four
calls for a query: a cursor, the statement, its rows, the cursor's end. A trip takes
several times as long as a small statement, so here one does it all. Only documented
interfaces of sqlite3, aiosqlite and SQLAlchemy are built upon.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import aiosqlite


class _Answer(list[Any]):
    """The rows of a statement, and what its cursor told beside them."""

    description: Any
    rowcount: int
    lastrowid: int | None


class _WholeCursor(sqlite3.Cursor):
    def fetchall(self) -> _Answer:
        answer = _Answer(super().fetchall())
        answer.description = self.description
        answer.rowcount = self.rowcount
        answer.lastrowid = self.lastrowid
        self.close()
        return answer


class WholeConnection(sqlite3.Connection):
    """Its `execute` gives a cursor whose rows know what the cursor knew."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        return self.cursor(_WholeCursor).execute(sql, parameters)


class OneTripCursor:
    """The part of aiosqlite's cursor that SQLAlchemy uses, over a `WholeConnection`."""

    arraysize = 1

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._rows: Sequence[Any] = ()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    def __await__(self) -> Generator[Any, None, OneTripCursor]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> OneTripCursor:  # noqa: PYI034 - Self needs 3.11
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def execute(self, sql: str, parameters: Iterable[Any] = ()) -> OneTripCursor:
        answer = await self._connection.execute_fetchall(sql, parameters)
        if not isinstance(answer, _Answer):
            raise TypeError("the connection is not a WholeConnection")
        self._rows = answer
        self.description = answer.description
        self.rowcount = answer.rowcount
        self.lastrowid = answer.lastrowid
        return self

    async def executemany(
        self, sql: str, parameters: Iterable[Iterable[Any]]
    ) -> OneTripCursor:
        cursor = await self._connection.executemany(sql, parameters)
        self.description, self.rowcount = None, cursor.rowcount
        await cursor.close()
        return self

    async def fetchall(self) -> Sequence[Any]:
        rows, self._rows = self._rows, ()
        return rows

    async def close(self) -> None:
        self._rows = ()
