"""What it costs to read a body that comes in many small pieces."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import anyio
import pytest
from fastapi import Request
from starlette.types import Message

from botfarm_server.api import bodies
from botfarm_server.api.bodies import Bodies
from botfarm_server.domain.errors import BodyTimeoutError
from botfarm_server.services.lanes import Lanes

pytestmark = pytest.mark.anyio

HEADERS = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]


class Sender:
    """A client that sends a body in pieces, and not its end."""

    def __init__(self, *pieces: bytes, leaves: bool = True) -> None:
        self._pieces = list(pieces)
        self._leaves = leaves

    async def _receive(self) -> Message:
        if self._pieces:
            body = self._pieces.pop(0)
            return {"type": "http.request", "body": body, "more_body": True}
        if not self._leaves:
            await anyio.sleep_forever()
        return {"type": "http.disconnect"}

    async def send(self, to: Bodies, name: str = "one") -> None:
        request = Request({"type": "http", "headers": HEADERS}, self._receive)
        turn = Lanes().turn(name)
        with pytest.raises(BodyTimeoutError):
            await to.read(request, "any", sender=name, turn=turn, has_reserve=True)


async def test_a_piece_costs_as_much_beside_many_bodies_as_beside_few() -> None:
    async def steps(others: int) -> int:
        held = Bodies(maximum=1_000_000, timeout=300)
        counted = 0

        def note(frame: FrameType, event: str, _: Any) -> None:
            nonlocal counted
            is_here = frame.f_code.co_filename == bodies.__file__
            counted += event == "call" and is_here

        async with anyio.create_task_group() as calls:
            for number in range(others):
                waiting = Sender(b" ", leaves=False)
                calls.start_soon(waiting.send, held, f"sender {number}")
            await anyio.wait_all_tasks_blocked()
            before = sys.getprofile()
            sys.setprofile(note)
            try:
                await Sender(*[b" "] * 10).send(held)
            finally:
                sys.setprofile(before)
            calls.cancel_scope.cancel()
        return counted

    assert 0 < await steps(300) <= await steps(3)


async def test_what_is_held_is_what_has_come_of_those_that_are_there() -> None:
    """Whoever was ended for others, has left or was too large."""
    maximum = 10_000
    held = Bodies(maximum=maximum, timeout=300)
    room = bodies.MOST_BODIES * maximum
    staying = [Sender(b" " * maximum, leaves=False) for _ in range(10)]
    staying += [Sender(b" " * 1_000, b" " * 4_000, leaves=False) for _ in range(20)]
    async with anyio.create_task_group() as calls:
        for number, it in enumerate(staying):
            calls.start_soon(it.send, held, f"sender {number % 3}")
        calls.start_soon(Sender(b" " * maximum).send, held)
        await anyio.wait_all_tasks_blocked()
        assert held._in_all == sum(size for _, size in held._held.values())
        assert held._in_all == held._of_each.total()
        # As many were ended as had to be, and no more.
        assert room - 2 * maximum < held._in_all <= room
        calls.cancel_scope.cancel()
    assert (held._held, held._of_each, held._in_all) == ({}, {}, 0)


@pytest.mark.parametrize(
    ("pieces", "pauses"),
    [([b" "] * 40, 24), ([b" " * 200] * 20 + [b" " * 20_000] * 20, 4), ([b" "], 0)],
)
async def test_the_rest_of_a_body_in_small_pieces_is_looked_for_ever_so_often(
    pieces: list[bytes], pauses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def note(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(anyio, "sleep", note)
    held = Bodies(maximum=1_000_000, timeout=300)
    monkeypatch.setattr(bodies, "ORDINARY", 1_000_000)
    await Sender(*pieces).send(held)
    assert len(slept) == pauses
