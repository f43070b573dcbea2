"""Hashing has bounds, and so has guessing."""

from __future__ import annotations

import asyncio
import threading
import uuid

import pytest

from botfarm_server.domain.errors import HashingBusyError, TooManyAttemptsError
from botfarm_server.domain.models import UserId
from botfarm_server.services.attempts import LIMIT, Attempts
from botfarm_server.services.passwords import PENDING_EACH, PasswordHasher

ALICE, BOB = UserId(uuid.UUID(int=1)), UserId(uuid.UUID(int=2))


@pytest.mark.anyio
async def test_too_many_hashes_at_once_are_refused_and_those_that_end_make_room() -> (
    None
):
    hasher, go_on = PasswordHasher(4), threading.Event()
    waiting = [
        asyncio.ensure_future(hasher._run(go_on.wait))
        for _ in range(PENDING_EACH * hasher._at_once)
    ]
    await asyncio.sleep(0)  # each has taken its place
    with pytest.raises(HashingBusyError):
        await hasher.hash("x")
    waiting[-1].cancel()  # whose caller has left before its turn
    await asyncio.sleep(0)
    left = asyncio.ensure_future(hasher.hash("x"))
    go_on.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await hasher.verify("x", await left)
    assert not await hasher.verify("y", await left)
    hasher.close()


@pytest.mark.anyio
async def test_many_are_hashed_in_order_by_no_more_than_there_are_threads() -> None:
    hasher, working, most = PasswordHasher(4), 0, 0

    async def work(number: int) -> int:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(0)
        working -= 1
        return number

    assert await hasher.each(work, range(500)) == list(range(500))
    assert most == hasher._at_once
    hasher.close()


def test_a_users_password_is_compared_so_many_times_a_minute_and_no_others() -> None:
    now = 0.0
    attempts = Attempts(clock=lambda: now)
    attempts.note(ALICE)
    now = 30.5
    for _ in range(LIMIT - 1):
        attempts.note(ALICE)
    with pytest.raises(TooManyAttemptsError) as refused:
        attempts.note(ALICE)
    assert refused.value.retry_after == 30
    attempts.note(BOB)
    now = 60.0
    attempts.note(ALICE)
    with pytest.raises(TooManyAttemptsError):
        attempts.note(ALICE)
