"""The proxy does what its name says, and the wrapping of pieces is loud."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from . import proxy as proxies
from .laboratory import eventually
from .proxy import Proxy, Upstream
from .wrapping import replaced

pytestmark = pytest.mark.anyio

REQUEST = b"PUT /it HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Upstairs:
    """Answers each request, and counts them."""

    def __init__(self) -> None:
        self.requests = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while await reader.readexactly(len(REQUEST)):
                self.requests += 1
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def between() -> AsyncIterator[tuple[Proxy, Upstairs]]:
    upstairs = Upstairs()
    server = await asyncio.start_server(upstairs.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy = Proxy("pair", Upstream(port), random.Random(0), http=True)
    await proxy.start()
    try:
        yield proxy, upstairs
    finally:
        proxy.stop()
        server.close()


async def answer_through(proxy: Proxy, *, within: float = 10.0) -> bytes:
    """What comes back for a request that is sent in two pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(REQUEST[:30])
        await writer.drain()
        writer.write(REQUEST[30:])
        return await asyncio.wait_for(reader.read(len(ANSWER)), within)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_it_passes_all_on() -> None:
    async with between() as (proxy, upstairs):
        assert await answer_through(proxy) == ANSWER
        assert upstairs.requests == 1


async def test_pieces_keep_their_order_when_a_delay_ends() -> None:
    arrived = bytearray()

    async def collect(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while piece := await reader.read(100):
            arrived.extend(piece)
        writer.close()

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy = Proxy("pair", Upstream(port), random.Random(0), http=False)
    await proxy.start()
    proxy.disturb("delay", 0.2)
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    sent = [bytes([number]) for number in range(20)]
    for number, piece in enumerate(sent):
        if number == 10:
            proxy.heal()
        writer.write(piece)
        await asyncio.sleep(0.01)
        if number == 15:
            time.sleep(0.3)  # noqa: ASYNC251 - the loop is late, and so are its timers
    await eventually(lambda: len(arrived) == len(sent))
    assert bytes(arrived) == b"".join(sent)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)  # the other ends of it are closed
    proxy.stop()
    server.close()


@pytest.fixture
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "CUT_PART", 1.0)


@pytest.mark.usefixtures("_always")
async def test_a_cut_comes_after_the_request_was_forwarded() -> None:
    async with between() as (proxy, upstairs):
        proxy.disturb("cut")
        assert await answer_through(proxy) == b""
        await eventually(lambda: upstairs.requests == 1)
        proxy.heal()
        assert await answer_through(proxy) == ANSWER


@pytest.mark.usefixtures("_always")
async def test_a_duplicate_is_the_whole_request_again() -> None:
    async with between() as (proxy, upstairs):
        proxy.disturb("duplicate")
        assert await answer_through(proxy) == ANSWER
        await eventually(lambda: upstairs.requests == 2)


async def test_what_is_dropped_stays_lost_and_its_connection_with_it() -> None:
    async with between() as (proxy, upstairs):
        proxy.disturb("drop")
        asking = asyncio.create_task(answer_through(proxy))
        await eventually(lambda: any(link.has_lost for link in proxy.links))
        proxy.heal()
        assert await asking == b""
        assert upstairs.requests == 0


async def test_what_is_delayed_comes_in_its_order() -> None:
    async with between() as (proxy, upstairs):
        proxy.disturb("delay", 0.1)
        asking = asyncio.create_task(answer_through(proxy))
        await eventually(lambda: proxy.links)
        proxy.heal()
        assert await asking == ANSWER
        assert upstairs.requests == 1


async def test_nobody_can_connect_to_what_refuses() -> None:
    async with between() as (proxy, upstairs):
        proxy.disturb("refuse")
        assert await answer_through(proxy) == b""
        assert upstairs.requests == 0


def test_a_piece_that_is_gone_cannot_be_replaced() -> None:
    with pytest.raises(AttributeError):
        replaced(SimpleNamespace(), "gone")


def test_a_piece_whose_parameters_were_renamed_cannot_be_replaced() -> None:
    piece = replaced(SimpleNamespace(piece=lambda lease_id: None), "piece")
    with pytest.raises(AttributeError, match="lease_id"):
        piece.by(lambda user_id: None)
