"""Lists are read and told in parts, up to a page's end, of one call at a time."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence

import anyio
import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from botfarm_server.api.headers import NEXT_CURSOR_HEADER
from botfarm_server.api.listing import PAGE_BYTES, Listing
from botfarm_server.domain.access import Caller
from botfarm_server.domain.models import TokenId
from botfarm_server.services.sharing import OneByOne

pytestmark = pytest.mark.anyio

TOGETHER = 4
ONE, OTHER = (
    Caller("read", token_id=TokenId(uuid.UUID(int=number)), kind="token")
    for number in (1, 2)
)


class Told(BaseModel):
    number: int
    text: str


class Numbers:
    """A list of the numbers from 1 on, and which parts of it were read."""

    def __init__(self, count: int, *, size: int = 1) -> None:
        self.numbers = range(1, count + 1)
        self.parts: list[int] = []
        self.listing = Listing[int, int](
            read=self._read,
            told=lambda number: Told(number=number, text="x" * size),
            key_of=lambda number: number,
            rows_together=TOGETHER,
        )

    async def _read(self, after: int | None, limit: int) -> Sequence[int]:
        self.parts.append(limit)
        return [it for it in self.numbers if after is None or it > after][:limit]

    async def page(self, limit: int, after: int | None = None) -> Response:
        return await self.listing.page(OneByOne(), ONE, after=after, limit=limit)


def numbers_of(content: bytes | memoryview) -> list[int]:
    return [row["number"] for row in json.loads(bytes(content))]


async def test_a_page_is_read_in_parts_and_says_how_to_go_on() -> None:
    numbers = Numbers(10)
    page = await numbers.page(limit=6)
    assert numbers_of(page.body) == [1, 2, 3, 4, 5, 6]
    assert numbers.parts == [4, 2]
    last = await numbers.page(limit=6, after=int(page.headers[NEXT_CURSOR_HEADER]))
    assert numbers_of(last.body) == [7, 8, 9, 10]
    assert NEXT_CURSOR_HEADER not in last.headers
    assert (await Numbers(0).page(limit=6)).body == b"[]"


async def test_a_page_ends_when_its_text_is_long() -> None:
    numbers = Numbers(30, size=PAGE_BYTES // 5)
    told: list[int] = []
    after: int | None = None
    while after is not None or not told:
        page = await numbers.page(limit=1_000, after=after)
        assert len(page.body) < PAGE_BYTES * 1.3
        told += numbers_of(page.body)
        cursor = page.headers.get(NEXT_CURSOR_HEADER)
        after = None if cursor is None else int(cursor)
    assert told == list(numbers.numbers)
    assert len(numbers.parts) > 6


@pytest.mark.parametrize("count", [0, 3, 4, 9])
async def test_a_whole_list_is_read_as_far_as_its_client_has_taken_it(
    count: int,
) -> None:
    numbers = Numbers(count)
    whole = await numbers.listing.whole(OneByOne(), ONE, after=None)
    assert isinstance(whole, StreamingResponse)
    content = b""
    async for part in whole.body_iterator:
        assert isinstance(part, bytes)
        assert len(numbers.parts) <= count // TOGETHER + 1
        content += part
        assert content.count(b"number") <= len(numbers.parts) * TOGETHER
    assert numbers_of(content) == list(numbers.numbers)


async def test_pages_are_made_one_at_a_time_and_of_each_token_in_turn() -> None:
    turns, goes_on = OneByOne(), anyio.Event()
    made: list[Caller] = []

    async def read(after: int | None, limit: int) -> Sequence[int]:
        made.append(callers.pop(0))
        await goes_on.wait()
        return []

    listing = Listing[int, int](read, lambda it: Told(number=it, text=""), int, 1)
    callers = [ONE, OTHER, ONE, ONE]

    async def ask(by: Caller) -> None:
        await listing.page(turns, by, after=None, limit=1)
        answered.append(by)

    answered: list[Caller] = []
    async with anyio.create_task_group() as calls:
        for by in (ONE, ONE, ONE, OTHER):
            calls.start_soon(ask, by)
            await anyio.wait_all_tasks_blocked()
        assert made == [ONE]
        goes_on.set()
    assert answered == [ONE, OTHER, ONE, ONE]
