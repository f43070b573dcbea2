"""Hashing passwords without stopping the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from botfarm_server.domain.errors import HashingBusyError
from botfarm_server.domain.models import TokenId

S = TypeVar("S")
T = TypeVar("T")

NICENESS = 15
"""How far hashing stands back behind the event loop and the database, where they share
cores: leases go on in an import. It has a thirtieth of a core that they keep busy."""
PENDING_EACH = 32
"""Passwords of one thread that are hashed or wait for it: some ten seconds of work."""
CALLS_EACH = 8
"""Calls of one token that hash, for each thread: a quarter of what is pending at most,
so that the passwords of others are hashed some three seconds later, and not refused."""


class PasswordHasher:
    """bcrypt in a bounded pool of threads; it lets go of the interpreter meanwhile.

    Cost 12 takes about a third of a second on one core, so that a large import keeps
    every core busy, but never more threads than there are cores.
    """

    def __init__(self, cost: int) -> None:
        self._cost = cost
        self._at_once = os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(
            max_workers=self._at_once,
            thread_name_prefix="botfarm-bcrypt",
            initializer=_stand_back,
        )
        self._places = threading.BoundedSemaphore(PENDING_EACH * self._at_once)
        self._calls: Counter[TokenId | None] = Counter()

    @contextlib.contextmanager
    def call_of(self, token_id: TokenId | None) -> Iterator[None]:
        """Count a call that hashes, one password or many, among those of its token.

        Raises:
            HashingBusyError: the token has as many under way as it may.

        """
        if self._calls[token_id] >= CALLS_EACH * self._at_once:
            raise HashingBusyError
        self._calls[token_id] += 1
        try:
            yield
        finally:
            self._calls[token_id] -= 1
            self._calls += Counter()  # those that have none left are forgotten

    async def hash(self, password: str) -> str:
        """The bcrypt hash of a password of 1 to 72 bytes in UTF-8.

        Raises:
            HashingBusyError: too many wait for theirs.

        """
        return await self._run(self._hash, password)

    async def verify(self, password: str, password_hash: str) -> bool:
        """Whether it is the password of the hash. Raises as `hash` does."""
        return await self._run(self._verify, password, password_hash)

    async def each(
        self, function: Callable[[S], Awaitable[T]], given: Iterable[S]
    ) -> list[T]:
        """What a function that hashes makes of many, as many at once as there are
        threads: who hashes a single password waits for no more of an import than that.
        """
        turns = asyncio.Semaphore(self._at_once)

        async def in_turn(one: S) -> T:
            async with turns:
                return await function(one)

        return await asyncio.gather(*map(in_turn, given))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _hash(self, password: str) -> str:
        return bcrypt.hashpw(password.encode(), bcrypt.gensalt(self._cost)).decode()

    @staticmethod
    def _verify(password: str, password_hash: str) -> bool:
        return bcrypt.checkpw(password.encode(), password_hash.encode())

    async def _run(self, function: Callable[..., T], *arguments: str) -> T:
        if not self._places.acquire(blocking=False):
            raise HashingBusyError
        work = self._threads.submit(function, *arguments)
        # Also where the caller has left: a hash that was begun is finished.
        work.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(work)


def _stand_back() -> None:
    # Only Linux has priorities of single threads; elsewhere it would be the process.
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
