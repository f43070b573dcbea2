"""What must hold of that which clients were told, believed and did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from .evidence import Belief, Call, Evidence, LeaseRow, Operation, Told
from .violations import FOREVER, TOLERANCE, Stalls, Violation

ALLOWED: Mapping[Operation, frozenset[tuple[int, str | None]]] = {
    "ask": frozenset(
        {
            (200, None),
            (202, None),
            (409, "deadlock"),
            (410, "lease_ended"),
            (429, "too_many_waiting"),
            (503, "database_unavailable"),
            (503, "shutting_down"),
        }
    ),
    "renew": frozenset({(200, None), (503, "database_unavailable")}),
    "end": frozenset(
        {(204, None), (410, "lease_ended"), (503, "database_unavailable")}
    ),
    "release": frozenset({(200, None), (503, "database_unavailable")}),
}
"""What the protocol allows where no request is malformed and no user is removed."""

ANSWER_LIMIT = 75.0
"""Seconds, beyond what it wanted to wait, within which a client's attempt comes to
something: 10 for an answer, 30 of trouble, 5 for giving up, and calls between."""


def beliefs_do_not_overlap(evidence: Evidence) -> Iterator[Violation]:
    by_user: defaultdict[str, list[Belief]] = defaultdict(list)
    for belief in evidence.beliefs:
        for user in belief.users:
            by_user[user].append(belief)
    for user, beliefs in by_user.items():
        beliefs.sort(key=lambda belief: belief.start)
        last: Belief | None = None
        for belief in beliefs:
            if belief.end <= belief.start:
                continue  # the answer came when the lease was over already
            if last is not None and belief.start < last.end:
                yield Violation(
                    "two clients believed",
                    f"user {user}: lease {last.lease} until {last.end:.6f} and lease "
                    f"{belief.lease} from {belief.start:.6f}",
                )
            if last is None or belief.end > last.end:
                last = belief


def beliefs_end_before_the_lease(evidence: Evidence) -> Iterator[Violation]:
    leases = _by_id(evidence)
    for belief in evidence.beliefs:
        lease = leases.get(belief.lease)
        if lease is None or lease.granted is None or belief.end <= belief.start:
            continue
        ended = FOREVER if lease.ended is None else lease.ended
        if belief.start < lease.granted - TOLERANCE or belief.end > ended + TOLERANCE:
            yield Violation(
                "believed without a lease",
                f"lease {lease.id} was held from {lease.granted:.6f} to {ended:.6f}, "
                f"its client believed from {belief.start:.6f} to {belief.end:.6f}",
            )


def uses_are_within_the_lease(evidence: Evidence) -> Iterator[Violation]:
    """A stamp is taken before the use is sent, so that no pause excuses a late one."""
    leases = _by_id(evidence)
    for use in evidence.uses:
        lease = leases.get(use.lease)
        if lease is None or lease.granted is None:
            yield Violation("used without a lease", f"{use} and its lease {lease}")
        elif not (
            lease.granted - TOLERANCE
            <= use.stamp
            <= (FOREVER if lease.ended is None else lease.ended) + TOLERANCE
        ):
            yield Violation(
                "used without a lease",
                f"user {use.user} was used at {use.stamp:.6f} under fence {use.fence}; "
                f"lease {lease.id} was held {lease.granted:.6f} to {lease.ended}",
            )


def no_old_fence_is_accepted(evidence: Evidence) -> Iterator[Violation]:
    newest: dict[str, int] = {}
    for seen in evidence.seen:
        if seen.accepted and seen.fence < newest.get(seen.user, 0):
            yield Violation(
                "old fence accepted",
                f"user {seen.user}: {seen.fence} after {newest[seen.user]}",
            )
        newest[seen.user] = max(newest.get(seen.user, 0), seen.fence)


def answers_are_allowed(evidence: Evidence) -> Iterator[Violation]:
    for call in evidence.calls:
        if (
            call.status is not None
            and (call.status, call.code) not in ALLOWED[call.operation]
        ):
            yield Violation(
                "answer not allowed",
                f"{call.operation} of {call.lease} by {call.process}: {call.status} "
                f"{call.code}",
            )


def answers_are_true(evidence: Evidence) -> Iterator[Violation]:
    """What an answer says of a lease was so at some instant of its call."""
    leases = _by_id(evidence)
    granted: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for grant in evidence.grants:
        granted[grant.lease][grant.user] = grant.fence
    for call in evidence.calls:
        if call.end is None or call.status is None:
            continue
        for told in call.told:
            lease = leases.get(told.lease)
            if lease is None:
                yield Violation("told what is not so", f"{told}: there is no lease")
                continue
            tells_users = call.operation == "ask" and told.state == "held"
            if tells_users and dict(told.users) != granted[told.lease]:
                yield Violation(
                    "told what is not so",
                    f"lease {told.lease} was granted {granted[told.lease]}, its client "
                    f"was told of {dict(told.users)}",
                )
            if not _was_so(lease, told, call):
                yield Violation(
                    "told what is not so",
                    f"{told.lease} was told {told.state} between {call.start:.6f} and "
                    f"{call.end:.6f}; it is {lease}",
                )


def _was_so(lease: LeaseRow, told: Told, call: Call) -> bool:
    start, end = call.start - TOLERANCE, (call.end or FOREVER) + TOLERANCE
    granted = FOREVER if lease.granted is None else lease.granted
    ended = FOREVER if lease.ended is None else lease.ended
    match told.state:
        case "waiting":
            return lease.created <= end and min(granted, ended) >= start
        case "held":
            return granted <= end and ended >= start
        case _:
            # It may be told as over once it has lapsed, before the loop ends it.
            lapsed = FOREVER if lease.expires is None else lease.expires
            return min(ended, lapsed) <= end


def grants_are_known(evidence: Evidence) -> Iterator[Violation]:
    """Every grant is of a lease that a client asked for, under the id it gave."""
    asked = {ask.lease for ask in evidence.asks}
    for lease in evidence.leases:
        if lease.granted is not None and lease.id not in asked:
            yield Violation("grant that nobody knows", f"lease {lease.id}")


def everyone_is_answered(evidence: Evidence) -> Iterator[Violation]:
    stalls = Stalls(evidence.faults)
    last = max((call.start for call in evidence.calls), default=0.0)
    for ask in evidence.asks:
        if ask.end is None and ask.process in evidence.killed:
            continue
        end = last if ask.end is None else ask.end
        took = end - ask.start - stalls.within(ask.start, end)
        if ask.end is None or took > ask.wait + ANSWER_LIMIT:
            yield Violation(
                "never answered",
                f"lease {ask.lease}, asked for at {ask.start:.3f} by {ask.process}: "
                f"{ask.outcome} after {took:.3f} s of {ask.wait:.3f}",
            )


def _by_id(evidence: Evidence) -> dict[str, LeaseRow]:
    return {lease.id: lease for lease in evidence.leases}
