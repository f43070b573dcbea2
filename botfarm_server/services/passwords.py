"""Hashing passwords without stopping the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

T = TypeVar("T")


class PasswordHasher:
    """bcrypt in a bounded pool of threads; it lets go of the interpreter meanwhile.

    Cost 12 takes about a third of a second on one core, so that a large import keeps
    every core busy, but never more threads than there are cores.
    """

    def __init__(self, cost: int) -> None:
        self._cost = cost
        self._threads = ThreadPoolExecutor(
            max_workers=os.cpu_count() or 1, thread_name_prefix="botfarm-bcrypt"
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
