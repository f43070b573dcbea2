"""A failed test's accounts stay leased for a while, for a person to look at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from shlex import join
from typing import TYPE_CHECKING

from .client.clock import clock, wall_time

if TYPE_CHECKING:
    from .client.models import Lease, Outcome
    from .settings import Settings

# Bound here, before a test can freeze the time; see client/clock.py.
_local_time = partial(time.localtime)


@dataclass(frozen=True, slots=True)
class Keeping:
    """For how long accounts are kept, and how a person gives them back before."""

    seconds: float
    server: Sequence[str]
    """The options by which the command line finds the server."""

    def is_for(self, outcome: Outcome) -> bool:
        return outcome in {"failed", "error"}

    def intention(self, lease: Lease) -> str:
        """What is said of a lease while its test has not ended."""
        at_least = clock_time(wall_time(clock()) + self.seconds)
        return f"to be kept at least until {at_least}; {self._give_back(lease)}"

    def result(self, lease: Lease, test_id: str, until: float) -> str:
        """What is said of a lease that is kept until an instant, see `clock_time`."""
        names, told = names_of(lease), clock_time(until)
        return f"kept: {names} until {told} for {test_id}; {self._give_back(lease)}"

    def _give_back(self, lease: Lease) -> str:
        command = join(["botfarm", "leases", "break", str(lease.id), *self.server])
        return f"give it back with `{command}`"


def keeping_of(settings: Settings) -> Keeping | None:
    if not settings.keep_on_fail:
        return None
    server = (
        ["--pool", str(settings.pool)]
        if settings.url is None
        else ["--url", settings.url]
    )
    return Keeping(settings.keep_on_fail * 60, server)


def names_of(lease: Lease) -> str:
    return ", ".join(map(str, lease.users))


def clock_time(instant: float) -> str:
    """What the clock on the wall shows at an instant, in seconds since 1970."""
    today, then = _local_time(wall_time(clock())), _local_time(instant)
    is_today = today[:3] == then[:3]
    return time.strftime("%H:%M %Z" if is_today else "%Y-%m-%d %H:%M %Z", then)
