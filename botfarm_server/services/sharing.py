"""How the calls of several senders share what a process has little of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import anyio

from botfarm_server.domain.access import Caller


class OneByOne:
    """Work that is done for one call at a time, of each sender in turn.

    Side by side such calls would hold all connections, or the processor.
    """

    def __init__(self) -> None:
        self._working = asyncio.Lock()
        self._first_of: WeakValueDictionary[Hashable, asyncio.Lock] = (
            WeakValueDictionary()
        )
        """By sender: its first call alone waits for its turn beside those of others."""

    @asynccontextmanager
    async def turn_of(self, by: Caller) -> AsyncIterator[None]:
        first = self._first_of.setdefault(by.sender, asyncio.Lock())
        # Both locks let in first who came first.
        async with first, self._working:
            yield


class FewOfEach:
    """Work that is done for a few calls of each sender at a time.

    For what calls do outside of their lanes, or what a whole lane would do to the same
    rows: one sender is not to have all connections.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # A sender is remembered for as long as a call of it is here.
        self._places: WeakValueDictionary[Hashable, anyio.Semaphore] = (
            WeakValueDictionary()
        )

    @asynccontextmanager
    async def place_of(self, by: Caller) -> AsyncIterator[None]:
        """Whoever of the sender came first has it first."""
        places = self._places.get(by.sender)
        if places is None:
            places = anyio.Semaphore(self._most, fast_acquire=True)
            self._places[by.sender] = places
        async with places:
            yield
