"""Load from processes of its own, and what it costs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from _http import ASKED, Client, Connection, expect

CLIENTS = 16

Pair = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Load:
    """What a load process did, and the processor seconds that it took for that."""

    pairs: int
    seconds: float
    cpu: float
    took: list[float]
    """Seconds of each pair."""

    @property
    def rate(self) -> float:
        return self.pairs / self.seconds


@contextmanager
def apart() -> Iterator[ProcessPoolExecutor]:
    """A process for the load: its processor time is its own, and so is its loop."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def botfarm_pairs(url: str, seconds: float, asked: str = ASKED) -> Load:
    """Acquire and release as fast as it goes, with `CLIENTS` at once."""

    async def new() -> Pair:
        client = await Client.of(url)

        async def pair() -> None:
            await client.release(await client.acquire(asked))

        return pair

    return drive(new, seconds)


def health_pairs(url: str, seconds: float) -> Load:
    """Two calls that do nothing, for each pair: what HTTP alone takes here."""

    async def new() -> Pair:
        connection = await Connection.to(url)

        async def pair() -> None:
            for _ in range(2):
                expect(200, await connection.call("GET", "/health"))

        return pair

    return drive(new, seconds)


def drive(new: Callable[[], Coroutine[Any, Any, Pair]], seconds: float) -> Load:
    """Let clients made by `new` do their pairs until time is up."""
    return asyncio.run(_drive(new, seconds))


async def _drive(new: Callable[[], Coroutine[Any, Any, Pair]], seconds: float) -> Load:
    pairs = [await new() for _ in range(CLIENTS)]
    took: list[float] = []
    cpu, began = time.process_time(), time.perf_counter()

    async def work(pair: Pair) -> None:
        now = time.perf_counter()
        while now < began + seconds:
            before = now
            await pair()
            now = time.perf_counter()
            took.append(now - before)

    await asyncio.gather(*map(work, pairs))
    return Load(len(took), time.perf_counter() - began, time.process_time() - cpu, took)
