"""Which tokens that this process does not know are right: looked for together.

After a restart all right tokens are such, and wrong ones of the right form can be sent
without end: each of them for itself would cost the database a statement, and the right
ones would wait behind the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import anyio

from botfarm_server.domain.models import Token
from botfarm_server.store import tokens
from botfarm_server.store.engine import Database

PAUSE = 0.05
"""Seconds between the looks that find that a token is wrong, and the next."""
MOST_AT_ONCE = 1_000
"""Tokens of one look: those beyond are strangers, whatever they are."""

Found = Mapping[str, tuple[Token, datetime]]


class _Look:
    def __init__(self) -> None:
        self.digests: set[str] = set()
        self.found: Found = {}
        self.is_over = anyio.Event()


@dataclass
class Recognition:
    """Looks for tokens by their digests: one look at a time, for all that have come."""

    database: Database
    _next: _Look | None = None
    _one_at_a_time: anyio.Lock = field(default_factory=anyio.Lock)
    _not_before: float = 0.0

    async def find(self, digest: str) -> tuple[Token, datetime] | None:
        """The token with this digest, be it revoked or expired, and the time.

        Raises:
            DatabaseUnavailableError: it cannot be looked for, and this was the first.

        """
        look = self._next
        if look is None:
            look = self._next = _Look()
            look.digests.add(digest)
            await self._take(look)
        elif len(look.digests) < MOST_AT_ONCE:
            look.digests.add(digest)
            await look.is_over.wait()
        return look.found.get(digest)

    async def _take(self, look: _Look) -> None:
        try:
            async with self._one_at_a_time:
                await anyio.sleep_until(self._not_before)
                self._next = None
                async with self.database.glance() as connection:
                    look.found = await tokens.all_known_by(
                        connection, sorted(look.digests)
                    )
                if len(look.found) < len(look.digests):
                    self._not_before = anyio.current_time() + PAUSE
        finally:
            if self._next is look:
                self._next = None
            look.is_over.set()
