"""The clock that deadlines are kept by, and the chance that spreads retries."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from random import SystemRandom

# Linux's monotonic clock stands still while the machine sleeps, but the server's
# does not. And both are bound here inside a partial: tools that freeze time replace
# what the `time` module and other modules' globals name, not what an object holds.
clock: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else partial(time.monotonic)
)
"""Seconds since some fixed instant, through suspensions of the machine."""

_SINCE_1970 = time.time() - clock()


def wall_time(instant: float) -> float:
    """A reading of `clock` as seconds since 1970, whatever a test does to the time."""
    return _SINCE_1970 + instant


# Not the `random` module's own generator: tests seed it, and then all workers would
# repeat their calls at the same instants.
jitter: Callable[[float, float], float] = SystemRandom().uniform
