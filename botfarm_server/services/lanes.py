"""How many calls of one caller are worked on at once: the others wait in a lane.

Who sends many calls at a time has them wait for each other, and those of others pass.
A bound of requests per second alone would not do: a server may be slower than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from weakref import WeakValueDictionary

import anyio

from botfarm_server.domain.errors import TooManyRequestsError

MOST_AT_ONCE = 32
"""Calls of one lane: enough for a turn of `services/turns.py` to settle many together,
and few enough for the calls of another caller to come soon."""
MOST_IN_LINE = 512
"""Calls of one lane that wait for a place, each of which takes some 70 KB."""
MOST_IN_RESERVE = 2_048
"""The same where the call keeps or ends leases: ten times the workers of a large run,
each of which sends one or two such calls at once."""
STRANGERS_AT_ONCE = 8
"""Calls of the lane that strangers of an address share."""
REST = 0.02
"""Seconds for which a stranger's place is left empty when it ends: a refusal takes the
server longer than its sender, and a hundred senders as long as all other calls."""


class _Lane:
    def __init__(self, most_at_once: int, rest: float = 0.0) -> None:
        self.places = anyio.Semaphore(most_at_once, fast_acquire=True)
        self.rest = rest


class Turn:
    """The turn of one call. One that waits for something far off ends it before."""

    def __init__(self, lane: _Lane, *, has_reserve: bool = False) -> None:
        self._lane = lane
        self.has_reserve = has_reserve
        """Whether it is of a call that keeps or ends leases."""
        self._most_in_line = MOST_IN_RESERVE if has_reserve else MOST_IN_LINE
        self._has_place = False
        self.has_waited = False
        """Whether it did not begin at once, so that its client may have left."""

    async def begin(self) -> None:
        """Wait for a place: whoever came first has it first. Again is no error.

        Raises:
            TooManyRequestsError: too many others wait.

        """
        if self._has_place:
            return
        places = self._lane.places
        try:
            places.acquire_nowait()
        except anyio.WouldBlock:
            if places.statistics().tasks_waiting >= self._most_in_line:
                raise TooManyRequestsError(self._most_in_line, at_once=True) from None
            self.has_waited = True
            await places.acquire()
        self._has_place = True

    def end(self) -> None:
        """Leave the place to the next, once it has rested; again is no error."""
        if self._has_place and self._lane.rest:
            self._has_place = False
            # By way of this turn: the lane is there for as long as a place rests.
            asyncio.get_running_loop().call_later(self._lane.rest, self._release)
        self.leave()

    def leave(self) -> None:
        """Leave the place, which was not used, to the next at once."""
        if self._has_place:
            self._has_place = False
            self._release()

    def _release(self) -> None:
        self._lane.places.release()


class Lanes:
    """The lanes of one process."""

    def __init__(self) -> None:
        # A lane is there for as long as a call is in it.
        self._lanes: WeakValueDictionary[Hashable, _Lane] = WeakValueDictionary()

    def turn(self, lane: Hashable, *, has_reserve: bool = False) -> Turn:
        """A turn in the lane of this name, which has not begun.

        `has_reserve` lets it wait where others are too many.
        """
        found = self._lanes.get(lane)
        if found is None:
            found = self._lanes[lane] = _Lane(MOST_AT_ONCE)
        return Turn(found, has_reserve=has_reserve)

    def turn_of_stranger(self, source: str) -> Turn:
        """A turn in the lane of all strangers from there, which has not begun."""
        found = self._lanes.get(source)
        if found is None:
            found = self._lanes[source] = _Lane(STRANGERS_AT_ONCE, REST)
        return Turn(found)
