"""For how long a client found nobody, and whether the run's faults explain it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from pytest_botfarm.client.core import RELEASE_PATIENCE
from pytest_botfarm.client.exchange import FIRST_CONTACT, LONGEST_PAUSE, RECONNECT

from .evidence import Ask, Call, Evidence, Fault
from .violations import FOREVER, Stalls

BETWEEN = frozenset({"drop", "delay", "cut", "refuse"})
"""Faults between a client and a server."""
OF_SERVER = frozenset(
    {
        "kill-server",
        "pause-server",
        "exhaust-pool",
        "database-drop",
        "database-delay",
        "database-cut",
        "disk-full",
    }
)
OF_DATABASE = frozenset({"stop-database", "terminate-connections"})
RESTART = 20.0
"""Seconds in which a killed server serves again, on a machine that is busy."""


def is_trouble(call: Call) -> bool:
    return call.status is None or call.status == 429 or call.status >= 500


class Outages:
    """Judges the attempts that ended since nobody could be reached."""

    def __init__(self, evidence: Evidence) -> None:
        self._faults = evidence.faults
        self._calls: defaultdict[str, list[Call]] = defaultdict(list)
        for call in sorted(evidence.calls, key=lambda it: it.start):
            self._calls[call.process].append(call)

    def explains(self, ask: Ask) -> bool:
        """Whether the client bore it for its time, and each call met with a fault.

        A wait that has ended gives its place up before it says so, for less time.
        """
        assert ask.end is not None
        in_vain = [call for call in self._in_vain(ask) if call.failed is not None]
        silent_since = min((_began(call) for call in in_vain), default=ask.end)
        gave_up = any(it.lease == ask.lease and it.operation == "end" for it in in_vain)
        least = RELEASE_PATIENCE / 4 if gave_up else self._least_time(ask)
        return ask.end - silent_since >= least and all(
            any(_hits(fault, call) for fault in self._faults) for call in in_vain
        )

    def _in_vain(self, ask: Ask) -> Iterator[Call]:
        """The calls since it, or any conversation of its process, was last answered."""
        assert ask.end is not None
        heard_process = heard = -FOREVER
        for call in self._calls[ask.process]:
            if call.end is not None and call.end <= ask.end:
                heard_process = max(heard_process, call.end)
                if call.lease == ask.lease and not is_trouble(call):
                    heard = max(heard, call.end)
        for call in self._calls[ask.process]:
            if call.failed is not None and call.failed <= ask.end:
                is_own = call.lease == ask.lease
                if call.failed > (heard if is_own else heard_process):
                    yield call

    def _least_time(self, ask: Ask) -> float:
        """Seconds that it tries for, less the pauses that would not fit in."""
        assert ask.end is not None
        was_reached = any(
            call.end is not None and call.end < ask.end
            for call in self._calls[ask.process]
        )
        return RECONNECT - 2 * LONGEST_PAUSE if was_reached else FIRST_CONTACT / 4


def _began(call: Call) -> float:
    """From when on a call that failed should have been answered."""
    assert call.failed is not None
    return min(call.failed, call.start + call.waits)


def _hits(fault: Fault, call: Call) -> bool:
    """Whether a fault was at work on the way of a call that failed."""
    assert call.failed is not None
    end = FOREVER if fault.end is None else fault.end
    after = Stalls.AFTERMATH
    client = call.process.partition("-")[2].partition(".")[0]
    if fault.kind in BETWEEN:
        is_on_its_way = fault.target == f"{client}-{call.server}"
    elif fault.kind in OF_SERVER:
        is_on_its_way = fault.target == str(call.server)
        after = RESTART if fault.kind == "kill-server" else after
    elif fault.kind.startswith("failpoint"):
        # A crash has no end in the history of the process that it ends.
        end = fault.start if fault.end is None else end
        after = RESTART if fault.kind.endswith("crash") else after
        is_on_its_way = fault.target.startswith(f"server-{call.server}-")
    elif fault.kind == "pause-client":
        is_on_its_way = fault.target == client
    else:
        is_on_its_way = fault.kind in OF_DATABASE
    return is_on_its_way and fault.start <= call.failed and call.start <= end + after
