"""Counting what there is for those who ask often, and at the worst of times."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from botfarm_server.domain.census import Census
from botfarm_server.domain.errors import DatabaseUnavailableError
from botfarm_server.store import census
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Database

MAXIMUM_AGE = 1.0
"""Seconds for which a count does: who asks more often costs the database nothing."""
PATIENCE = 2.0
"""Seconds that a caller waits for a count: what else it is told is worth more then."""


@dataclass
class CensusService:
    """Counts once for all who ask at the same time, with one connection at most."""

    database: Database
    _counting: asyncio.Task[Census | None] | None = None
    _begun: float = 0.0

    async def take(self) -> Census | None:
        """What there is, or was up to a second ago; `None` if that is not found out."""
        counting = self._counting
        now = time.monotonic()
        if counting is None or (counting.done() and now - self._begun >= MAXIMUM_AGE):
            # A task of its own: whoever asked first may leave, and others wait for it.
            counting = asyncio.create_task(self._count(), name="botfarm census")
            self._counting, self._begun = counting, now
        await asyncio.wait({counting}, timeout=PATIENCE)
        return counting.result() if counting.done() else None

    async def close(self, within: float) -> None:
        """Let the count under way end."""
        if self._counting is not None:
            await asyncio.wait({self._counting}, timeout=within)
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)

    async def _count(self) -> Census | None:
        try:
            async with self.database.read() as connection:
                return await census.count(connection, await read_clock(connection))
        except DatabaseUnavailableError:
            return None
