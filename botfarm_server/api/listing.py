"""Lists over HTTP: read, told and encoded in parts, of one call at a time.

What is made of a row is many times as large as its text. So a page ends once its text
is long, however few its rows are, and other calls go on between two of its parts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi import Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from botfarm_server.api.headers import NEXT_CURSOR_HEADER
from botfarm_server.domain.access import Caller
from botfarm_server.services.sharing import OneByOne

PAGE_BYTES = 1_048_576
"""Bytes after which a page ends with the row that it has come to: a thousand leases of
a user each have half of it."""
JSON = "application/json"

Row = TypeVar("Row")
Key = TypeVar("Key")


@dataclass(frozen=True)
class Listing(Generic[Row, Key]):
    """A list, in the order of its keys."""

    read: Callable[[Key | None, int], Awaitable[Sequence[Row]]]
    """The rows behind a key, up to a number."""
    told: Callable[[Row], BaseModel]
    key_of: Callable[[Row], Key]
    rows_together: int
    """Rows of one part: while they are read and encoded no other call goes on."""

    async def page(
        self,
        turns: OneByOne,
        by: Caller,
        *,
        after: Key | None,
        limit: int,
        cursor_of: Callable[[Key], str] = str,
    ) -> Response:
        """The rows behind a key, up to `limit` or the end of a page."""
        texts: list[bytes] = []
        size, is_last = 0, False
        async with turns.turn_of(by):
            while not is_last and len(texts) < limit and size < PAGE_BYTES:
                number = min(self.rows_together, limit - len(texts))
                rows = await self.read(after, number)
                is_last = len(rows) < number
                for row in rows:
                    if size >= PAGE_BYTES:
                        is_last = False
                        break
                    texts.append(self._encoded(row))
                    size, after = size + len(texts[-1]), self.key_of(row)
        content = b"[%b]" % b",".join(texts)
        headers = (
            {} if is_last or after is None else {NEXT_CURSOR_HEADER: cursor_of(after)}
        )
        return Response(content, media_type=JSON, headers=headers)

    async def whole(
        self, turns: OneByOne, by: Caller, *, after: Key | None
    ) -> Response:
        """All rows, each part as soon as the client has taken the one before."""
        parts = self._parts(turns, by, after)
        first = await anext(parts)  # what fails here is answered, and not cut off

        async def all_parts() -> AsyncIterator[bytes]:
            yield first
            async for part in parts:
                yield part

        return StreamingResponse(all_parts(), media_type=JSON)

    async def _parts(
        self, turns: OneByOne, by: Caller, after: Key | None
    ) -> AsyncIterator[bytes]:
        start, is_last = b"[", False
        while not is_last:
            async with turns.turn_of(by):
                rows = await self.read(after, self.rows_together)
                text = b",".join(map(self._encoded, rows))
            is_last = len(rows) < self.rows_together
            if rows:
                after = self.key_of(rows[-1])
                yield start + text
                start = b","
        yield b"]" if start == b"," else b"[]"

    def _encoded(self, row: Row) -> bytes:
        return self.told(row).model_dump_json().encode()
