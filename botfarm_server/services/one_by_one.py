"""Work that one process does for one call at a time, of each token in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from botfarm_server.domain.access import Caller
from botfarm_server.domain.models import TokenId


class OneByOne:
    """Side by side such calls would hold all connections, or the processor."""

    def __init__(self) -> None:
        self._working = asyncio.Lock()
        self._first_of: WeakValueDictionary[TokenId | None, asyncio.Lock] = (
            WeakValueDictionary()
        )
        """By token: its first call alone waits for its turn beside those of others."""

    @asynccontextmanager
    async def turn_of(self, by: Caller) -> AsyncIterator[None]:
        first = self._first_of.setdefault(by.token_id, asyncio.Lock())
        # Both locks let in first who came first.
        async with first, self._working:
            yield
