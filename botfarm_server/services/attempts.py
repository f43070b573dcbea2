"""How often the passwords of users were compared of late, by this process."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from botfarm_server.domain.errors import TooManyAttemptsError
from botfarm_server.domain.models import UserId

LIMIT = 10
"""More than the workers of most runs, each of which compares what it was given once;
and too few to guess by."""
PERIOD = 60.0
"""Seconds."""


@dataclass
class Attempts:
    """Lets a user's password be compared `LIMIT` times within `PERIOD`.

    What other replicas allow adds to it.
    """

    clock: Callable[[], float] = time.monotonic
    _made: OrderedDict[UserId, deque[float]] = field(default_factory=OrderedDict)
    """When those were within the period that count, the oldest first; the users in the
    order of their newest."""

    def note(self, user_id: UserId) -> None:
        """Count one more, or raise TooManyAttemptsError."""
        self.check(user_id)
        self._made.setdefault(user_id, deque()).append(self.clock())
        self._made.move_to_end(user_id)

    def check(self, user_id: UserId) -> None:
        """Raise TooManyAttemptsError where one more would be too many."""
        now = self.clock()
        self._forget(now - PERIOD)
        made = self._made.get(user_id, deque())
        while made and made[0] <= now - PERIOD:
            made.popleft()
        if len(made) == LIMIT:
            raise TooManyAttemptsError(user_id, math.ceil(made[0] + PERIOD - now))

    def _forget(self, until: float) -> None:
        """Drop the users of whom none counts any more."""
        while self._made and next(iter(self._made.values()))[-1] <= until:
            self._made.popitem(last=False)
