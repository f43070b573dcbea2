"""How many requests each token may send to this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import TooManyRequestsError
from botfarm_server.domain.models import TokenId

WINDOW = 10.0
"""Seconds over which requests are counted: the workers of a large run begin together,
and send in one second what they do not send in the next."""
RESERVE = 10.0
"""The same for calls that keep or end leases, beyond what all calls have: whatever else
a token sends, it loses no lease for it, and keeps none from others."""


@dataclass
class Throttle:
    """One bucket for each token, and one for all calls without a stored token.

    Each replica counts for itself, and forgets with its end: a count that all of them
    share would cost every call a statement of SQL.
    """

    per_second: int
    """0 for no limit."""
    clock: Callable[[], float] = time.monotonic
    _paid_until: dict[TokenId | None, float] = field(default_factory=dict)
    """For each token the instant at which its bucket is full again."""

    def count(self, by: Caller, *, has_reserve: bool = False) -> None:
        """Count a request of the caller, be it of those that have a reserve.

        Raises:
            TooManyRequestsError: its bucket is empty; the request is not counted.

        """
        if not self.per_second:
            return
        now = self.clock()
        until = max(self._paid_until.get(by.token_id, now), now) + 1 / self.per_second
        if until > now + WINDOW + (RESERVE if has_reserve else 0.0):
            raise TooManyRequestsError(self.per_second)
        self._paid_until[by.token_id] = until
