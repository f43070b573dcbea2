"""What follows the commit of a transaction that ended or granted leases."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from botfarm_server.domain.models import LeaseId
from botfarm_server.metrics import Metrics
from botfarm_server.services.ending import Ending
from botfarm_server.services.waiting import WaitingRoom


@dataclass(frozen=True, slots=True)
class News:
    """Brings it to the calls that wait here, to the log and to the metrics."""

    room: WaitingRoom
    metrics: Metrics

    def tell(
        self,
        endings: Sequence[Ending] = (),
        granted: Mapping[LeaseId, float] | None = None,
        others: Collection[LeaseId] = (),
        *,
        at_once: int = 0,
    ) -> None:
        """Wake the calls about these leases; log the ends, and count ends and grants.

        `granted` says how many seconds each waiter has waited, `others` are to be woken
        alone, and `at_once` is how many leases were granted without a wait.
        """
        granted = granted or {}
        self.room.wake([*(ending.lease.id for ending in endings), *granted, *others])
        for ending in endings:
            ending.log()
            self.metrics.ended(ending.state, ending.outcome)
        self.metrics.granted(granted.values(), at_once=at_once)
