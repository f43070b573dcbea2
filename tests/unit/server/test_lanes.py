"""So many calls of a lane are worked on, so many wait, and the next is refused."""

from __future__ import annotations

import anyio
import pytest

from botfarm_server.domain.errors import TooManyRequestsError
from botfarm_server.services import lanes
from botfarm_server.services.lanes import Lanes

WORKERS = 200
"""Of a large run; each may send a renewal, a release, and either once more."""


@pytest.mark.anyio
async def test_a_lane_refuses_whom_it_has_no_place_to_wait_for() -> None:
    every, begun = Lanes(), list[lanes.Turn]()

    async def begin(turn: lanes.Turn) -> None:
        await turn.begin()
        begun.append(turn)

    async with anyio.create_task_group() as calls:
        for _ in range(lanes.MOST_AT_ONCE + lanes.MOST_IN_LINE):
            calls.start_soon(begin, every.turn("one"))
        await anyio.wait_all_tasks_blocked()
        assert len(begun) == lanes.MOST_AT_ONCE
        assert not any(turn.has_waited for turn in begun)
        with pytest.raises(TooManyRequestsError, match=str(lanes.MOST_IN_LINE)):
            await every.turn("one").begin()
        await every.turn("another").begin()
        calls.start_soon(begin, every.turn("one", has_reserve=True))
        await anyio.wait_all_tasks_blocked()
        for turn in begun:
            turn.end()
            await anyio.wait_all_tasks_blocked()
        # The loop has met those that began meanwhile as well.
        assert len(begun) == lanes.MOST_AT_ONCE + lanes.MOST_IN_LINE + 1
        assert begun[-1].has_waited


@pytest.mark.anyio
async def test_no_renewal_and_no_release_of_a_large_run_is_refused() -> None:
    every = Lanes()
    async with anyio.create_task_group() as calls:
        for _ in range(4 * WORKERS):
            calls.start_soon(every.turn("one", has_reserve=True).begin)
        await anyio.wait_all_tasks_blocked()
        calls.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_place_of_strangers_rests_when_it_was_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "REST", 3_600.0)
    every, begun = Lanes(), list[lanes.Turn]()

    async def begin() -> None:
        turn = every.turn_of_stranger("here")
        await turn.begin()
        begun.append(turn)

    async with anyio.create_task_group() as calls:
        for _ in range(lanes.STRANGERS_AT_ONCE + 2):
            calls.start_soon(begin)
        await anyio.wait_all_tasks_blocked()
        assert len(begun) == lanes.STRANGERS_AT_ONCE
        for turn in begun[1:]:
            turn.end()
        await anyio.wait_all_tasks_blocked()
        assert len(begun) == lanes.STRANGERS_AT_ONCE
        await every.turn_of_stranger("elsewhere").begin()
        begun[0].leave()
        begun[0].end()
        await anyio.wait_all_tasks_blocked()
        assert len(begun) == lanes.STRANGERS_AT_ONCE + 1
        calls.cancel_scope.cancel()
