"""Hashing passwords without stopping the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

T = TypeVar("T")

NICENESS = 5
"""How far hashing stands back behind the event loop: leases go on in an import."""


class PasswordHasher:
    """bcrypt in a bounded pool of threads; it lets go of the interpreter meanwhile.

    Cost 12 takes about a third of a second on one core, so that a large import keeps
    every core busy, but never more threads than there are cores.
    """

    def __init__(self, cost: int) -> None:
        self._cost = cost
        self._threads = ThreadPoolExecutor(
            max_workers=os.cpu_count() or 1,
            thread_name_prefix="botfarm-bcrypt",
            initializer=_stand_back,
        )

    async def hash(self, password: str) -> str:
        """The bcrypt hash of a password of 1 to 72 bytes in UTF-8."""
        return await self._run(self._hash, password)

    async def verify(self, password: str, password_hash: str) -> bool:
        return await self._run(self._verify, password, password_hash)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _hash(self, password: str) -> str:
        return bcrypt.hashpw(password.encode(), bcrypt.gensalt(self._cost)).decode()

    @staticmethod
    def _verify(password: str, password_hash: str) -> bool:
        return bcrypt.checkpw(password.encode(), password_hash.encode())

    async def _run(self, function: Callable[..., T], *arguments: str) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)


def _stand_back() -> None:
    # Only Linux has priorities of single threads; elsewhere it would be the process.
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
