"""What must hold of that which came of asking: no answer late, no refusal in vain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from .evidence import Ask, Call, Evidence, LeaseRow
from .outages import Outages, is_trouble
from .rules_of_database import time_of_the_loop
from .violations import TOLERANCE, Stalls, Violation

HOLDING_UP = frozenset(
    {
        "pause-client",
        "pause-server",
        "exhaust-pool",
        "drop",
        "database-drop",
        "database-delay",
        "stop-database",
        "disk-full",
    }
)
"""Faults that may keep one server's answer, or one client, beside the others."""
EXPECTED = frozenset({"held", "AcquireTimeoutError", "TimeoutError", "cancelled"})
"""Outcomes that need no excuse. The callers themselves leave by the last two."""
AFTER_TROUBLE = frozenset(
    {
        "DatabaseUnavailableError",
        "ShuttingDownError",
        "TooManyWaitingError",
    }
)
"""Outcomes of trouble that a client has borne for long enough."""
RECENT = 60.0
"""Seconds for which a client may have met trouble before it gives up."""


def outcomes_have_a_reason(evidence: Evidence) -> Iterator[Violation]:
    """An attempt that came to nothing has met trouble, or ended what it asked for."""
    leases = {lease.id: lease for lease in evidence.leases}
    about: defaultdict[str | None, list[Call]] = defaultdict(list)
    failed: defaultdict[str, list[Call]] = defaultdict(list)
    for call in evidence.calls:
        about[call.lease].append(call)
        if is_trouble(call):
            failed[call.process].append(call)
    holding_up = Stalls(evidence.faults, HOLDING_UP)
    outages = Outages(evidence)
    allowed = time_of_the_loop(evidence)
    for ask in evidence.asks:
        if ask.end is None or ask.outcome is None or ask.outcome in EXPECTED:
            continue
        calls = about[ask.lease]
        if ask.outcome == "DeadlockError":
            excused = any(call.code == "deadlock" for call in calls)
        elif ask.outcome == "ServerNotReachableError":
            excused = outages.explains(ask)
        elif ask.outcome in AFTER_TROUBLE:
            excused = _has_borne_trouble(ask, failed[ask.process])
        elif ask.outcome == "LeaseEndedError":
            disturbed = holding_up.within(ask.start, ask.end) > 0
            lease = leases.get(ask.lease)
            excused = _may_have_ended(ask, lease, calls, disturbed, allowed)
        else:
            excused = False
        if not excused:
            yield Violation(
                "came to nothing",
                f"lease {ask.lease}, asked for from {ask.start:.3f} to {ask.end:.3f} "
                f"by {ask.process}: {ask.outcome}; it is {leases.get(ask.lease)}",
            )


def _has_borne_trouble(ask: Ask, failed: Sequence[Call]) -> bool:
    """Whether it tried again, or its process had found out just before."""
    assert ask.end is not None
    recent = [it for it in failed if ask.end - RECENT <= it.start <= ask.end]
    return len(recent) > 1


def _may_have_ended(
    ask: Ask,
    lease: LeaseRow | None,
    calls: Sequence[Call],
    disturbed: bool,
    allowed: float,
) -> bool:
    """Whether the client ended the lease itself, or may not have heard in time."""
    if lease is None or lease.ended is None or ask.end is None:
        return False
    if lease.state in {"released", "cancelled"}:
        return any(
            call.operation in {"end", "release"} and call.start < ask.end
            for call in calls
        )
    # On a machine that is overloaded an answer may take longer than a claim window.
    waited_for = lease.created if lease.granted is None else lease.granted
    return (
        disturbed
        or lease.ended - waited_for <= allowed
        or any(is_trouble(call) for call in calls if call.operation == "ask")
    )


def waiters_are_kept(evidence: Evidence) -> Iterator[Violation]:
    """No waiter is abandoned sooner than the time of a re-poll after it was heard."""
    heard = {lease.id: lease.created for lease in evidence.leases}
    for call in evidence.calls:
        if call.operation == "ask" and call.status == 202 and call.lease in heard:
            heard[call.lease] = max(heard[call.lease], call.start)
    for lease in evidence.leases:
        if lease.state == "abandoned" and lease.ended is not None:
            after = lease.ended - heard[lease.id]
            if after < evidence.rules.poll_grace - TOLERANCE:
                yield Violation(
                    "abandoned too soon",
                    f"lease {lease.id} was abandoned {after:.3f} s after it was heard "
                    f"of; it keeps its place for {evidence.rules.poll_grace:.3f} s",
                )


def grants_are_told_in_time(evidence: Evidence) -> Iterator[Violation]:
    """A call that waits is answered when its lease is granted."""
    leases = {lease.id: lease for lease in evidence.leases}
    allowed = time_of_the_loop(evidence)
    holding_up = Stalls(evidence.faults, HOLDING_UP)
    for call in evidence.calls:
        lease = leases.get(call.lease or "")
        if (
            call.operation != "ask"
            or call.status != 200
            or call.end is None
            or lease is None
            or lease.granted is None
        ):
            continue
        since = max(call.start, lease.granted)
        took = call.end - since - holding_up.within(since, call.end)
        if took > allowed:
            yield Violation(
                "told late",
                f"lease {lease.id} was granted at {lease.granted:.6f}, and "
                f"{call.process} told {took:.3f} s later, beside what may have held "
                f"the answer up; {allowed:.3f} s are allowed",
            )


def nothing_is_revoked(evidence: Evidence) -> Iterator[Violation]:
    """No client of a run breaks a lease."""
    for lease in evidence.leases:
        if lease.state == "revoked":
            yield Violation("revoked by nobody", f"lease {lease.id}")
