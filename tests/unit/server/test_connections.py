"""Which connection is ended for a newcomer, at what cost, and what a call is told."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from botfarm_server import connections
from botfarm_server.connections import IdleConnections, ended_in_words
from botfarm_server.metrics import Metrics

pytestmark = pytest.mark.anyio

SOURCES = [f"192.0.2.{number}" for number in range(6)]


class Connection:
    """One of an address, and the transport of it as well."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.is_ended = False

    def abort(self) -> None:
        self.is_ended = True


def add(group: IdleConnections, connection: Connection) -> None:
    it: Any = connection
    group.add(it, it)


def test_it_is_the_first_of_an_address_that_has_most_whoever_came_and_went() -> None:
    draw = random.Random(8)
    most = 12
    group = IdleConnections(most)
    there: list[Connection] = []
    for _ in range(4_000):
        if there and draw.random() < 0.45:
            gone: Any = draw.choice(there)
            there.remove(gone)
            group.remove(gone)
            group.remove(gone)
        else:
            newcomer = Connection(draw.choice(SOURCES[: draw.randint(1, 6)]))
            before = [*there, newcomer]
            add(group, newcomer)
            there = [it for it in before if not it.is_ended]
            if len(before) > most:
                [ended] = [it for it in before if it.is_ended]
                of_each = Counter(it.source for it in before)
                assert of_each[ended.source] == max(of_each.values())
                assert ended is next(it for it in before if it.source == ended.source)
            assert len(before) - len(there) == (len(before) > most)
            for it in there:
                add(group, it)  # again, which does not make it a newcomer
        now: list[Any] = list(group)
        assert now == there


@pytest.mark.parametrize("addresses", [1, 500])
def test_a_newcomer_costs_as_much_where_there_are_many_as_where_there_are_few(
    addresses: int,
) -> None:
    def steps(most: int) -> int:
        group = IdleConnections(most)
        counted = 0

        def note(frame: FrameType, event: str, _: Any) -> None:
            nonlocal counted
            is_here = frame.f_code.co_filename == connections.__file__
            counted += event == "call" and is_here

        for number in range(most):
            add(group, Connection(f"address {number % addresses}"))
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            for number in range(10):
                add(group, Connection(f"address {number % addresses}"))
        finally:
            sys.setprofile(before)
        return counted

    assert 0 < steps(500) <= steps(5)


async def cut(*sent: Message) -> list[Message]:
    """What is sent for a call that is cancelled when its app has sent this."""
    told: list[Message] = []
    waits = asyncio.Event()

    async def app(_: Scope, __: Receive, send: Send) -> None:
        for message in sent:
            await send(message)
        waits.set()
        await asyncio.Event().wait()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        told.append(message)

    state = SimpleNamespace(botfarm=SimpleNamespace(metrics=Metrics()))
    app_of_state = SimpleNamespace(state=state)
    scope = {"type": "http", "headers": [], "app": app_of_state}
    call = asyncio.ensure_future(ended_in_words(app)(scope, receive, send))
    await waits.wait()
    call.cancel()
    await call
    return told


async def test_a_call_that_the_end_of_a_server_cuts_is_told_to_ask_again() -> None:
    start, body = await cut()
    assert start["status"] == 503
    assert dict(start["headers"])[b"botfarm-protocol"] == b"1"
    assert json.loads(body["body"])["error"] == "shutting_down"


async def test_an_answer_that_the_end_of_a_server_cuts_has_no_other_behind_it() -> None:
    begun: Message = {"type": "http.response.start", "status": 200, "headers": []}
    assert await cut(begun) == [begun]
