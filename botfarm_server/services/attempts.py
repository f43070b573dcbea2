"""How often the passwords of users were compared of late, by this process."""

from __future__ import annotations

import math
import time
from collections import deque
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
    _made: dict[UserId, deque[float]] = field(default_factory=dict)

    def note(self, user_id: UserId) -> None:
        """Count one more, or raise TooManyAttemptsError."""
        now = self.clock()
        self._forget(now - PERIOD)
        made = self._made.setdefault(user_id, deque())
        if len(made) == LIMIT:
            raise TooManyAttemptsError(user_id, math.ceil(made[0] + PERIOD - now))
        made.append(now)

    def _forget(self, until: float) -> None:
        for user_id, made in list(self._made.items()):
            while made and made[0] <= until:
                made.popleft()
            if not made:
                del self._made[user_id]
