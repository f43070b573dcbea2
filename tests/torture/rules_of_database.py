"""What must hold of the database's own history: leases, grants and users."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .evidence import Evidence, GrantRow, LeaseRow, UserRow, WantRow
from .violations import FOREVER, TOLERANCE, Stalls, Violation

USUAL = 0.9
"""The part of releases whose time counts as usual."""
LOOP_JITTER = 1.2
"""The loop pauses up to so many times its interval."""

ROUNDING = 0.0001
"""Seconds: sums of instants of one clock."""


@dataclass(frozen=True, slots=True)
class Holding:
    """One grant of one user, with its lease's times."""

    user: str
    lease: LeaseRow
    fence: int
    start: float
    end: float
    lapsed: bool
    """Whether its holder vanished."""


def holdings_by_user(evidence: Evidence) -> Mapping[str, Sequence[Holding]]:
    """Each user's grants in the order of their fences."""
    leases = {lease.id: lease for lease in evidence.leases}
    found: defaultdict[str, list[Holding]] = defaultdict(list)
    for grant in evidence.grants:
        lease = leases[grant.lease]
        if lease.granted is not None:
            end = FOREVER if lease.ended is None else lease.ended
            lapsed = lease.state == "expired"
            found[grant.user].append(
                Holding(grant.user, lease, grant.fence, lease.granted, end, lapsed)
            )
    for undone in evidence.taken_back:
        lease = leases[undone.lease]
        for user, fence in undone.users.items():
            found[user].append(
                Holding(user, lease, fence, undone.start, undone.end, lapsed=False)
            )
    for holdings in found.values():
        holdings.sort(key=lambda holding: holding.fence)
    return found


def rested_at(evidence: Evidence, holding: Holding) -> float:
    """From when the user may be handed on: not at once if its holder vanished."""
    delay = evidence.rules.lock_delay if holding.lapsed else 0.0
    return holding.end + delay


def one_holder_at_a_time(evidence: Evidence) -> Iterator[Violation]:
    for user, holdings in holdings_by_user(evidence).items():
        last: Holding | None = None
        for holding in sorted(holdings, key=lambda it: (it.start, it.fence)):
            if last is not None and holding.start < last.end:
                yield Violation(
                    "two holders",
                    f"user {user} was granted to lease {holding.lease.id} at "
                    f"{holding.start:.6f}, while lease {last.lease.id} had it from "
                    f"{last.start:.6f} to {last.end:.6f}",
                )
            if last is None or holding.end > last.end:
                last = holding


def users_rest(evidence: Evidence) -> Iterator[Violation]:
    """A user whose holder vanished is not handed on before its rest is over.

    Unless somebody knew, when its lease lapsed, that the holder was dead.
    """
    swept = _sweeps(evidence)
    for user, holdings in holdings_by_user(evidence).items():
        for before, after in pairwise(holdings):
            early = rested_at(evidence, before) - after.start
            holder_is_dead = any(
                start - TOLERANCE <= before.end <= end + TOLERANCE
                for start, end in swept.get(before.lease.party, ())
            )
            if before.lapsed and not holder_is_dead and early > ROUNDING:
                yield Violation(
                    "no rest",
                    f"user {user} of lease {before.lease.id}, which expired at "
                    f"{before.end:.6f}, was granted {early:.3f} s too soon",
                )


def fences_grow(evidence: Evidence) -> Iterator[Violation]:
    for user, holdings in holdings_by_user(evidence).items():
        for before, after in pairwise(holdings):
            if after.fence <= before.fence or after.start < before.start:
                yield Violation(
                    "fence did not grow",
                    f"user {user}: fence {before.fence} at {before.start:.6f}, then "
                    f"{after.fence} at {after.start:.6f}",
                )
    newest = _newest_fences(evidence)
    for row in evidence.users:
        if row.id in newest and row.fence != newest[row.id]:
            yield Violation(
                "fence did not grow",
                f"user {row.id} has fence {row.fence}, its last grant {newest[row.id]}",
            )
    of_lease: defaultdict[str, list[GrantRow]] = defaultdict(list)
    for grant in evidence.grants:
        of_lease[grant.lease].append(grant)
    for lease in evidence.leases:
        given = [grant.fence for grant in of_lease[lease.id]]
        if lease.granted is not None and (not given or lease.fence != max(given)):
            yield Violation(
                "fence did not grow",
                f"lease {lease.id} has fence {lease.fence}, its grants {given}",
            )


def _newest_fences(evidence: Evidence) -> Mapping[str, int]:
    """The fence of each user's last grant."""
    newest: dict[str, int] = {}
    for grant in evidence.grants:
        newest[grant.user] = max(grant.fence, newest.get(grant.user, 0))
    for undone in evidence.taken_back:
        for user, fence in undone.users.items():
            newest[user] = max(fence, newest.get(user, 0))
    return newest


def ends_in_their_time(evidence: Evidence) -> Iterator[Violation]:
    """No lease ends as expired before its time, or as released after it."""
    stalls = Stalls(evidence.faults)
    patience = time_of_the_loop(evidence)
    swept = _sweeps(evidence)  # of these it does not matter whether they had lapsed
    for lease in evidence.leases:
        if lease.expires is None or lease.ended is None:
            continue
        late = lease.ended - lease.expires
        if lease.state == "expired" and late < 0:
            yield Violation(
                "expired before its time",
                f"lease {lease.id} ended {-late:.6f} s before its expiry",
            )
        if lease.state == "released" and late > 0 and lease.party not in swept:
            yield Violation(
                "released after its expiry",
                f"lease {lease.id} was released {late:.6f} s after its expiry",
            )
        if lease.state == "expired":
            allowed = patience
            late -= stalls.within(lease.expires, lease.ended)
            if late > allowed:
                yield Violation(
                    "held after its expiry",
                    f"lease {lease.id} was ended {late:.3f} s after its expiry, "
                    f"beside stalls; {allowed:.3f} s are allowed",
                )


def _sweeps(evidence: Evidence) -> Mapping[str, Sequence[tuple[float, float]]]:
    """By holders that were told to be dead, from when until when that was settled."""
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for call in evidence.calls:
        if call.operation == "release":
            end = FOREVER if call.end is None else call.end
            found[f"{call.process} {call.lease}"].append((call.start, end))
    return found


def time_of_the_loop(evidence: Evidence) -> float:
    """Seconds within which the loop comes to what is due.

    Its transaction takes its turn among those of the calls: as long as releases take,
    of which most are in no fault's way, so may it.
    """
    took = sorted(
        call.end - call.start
        for call in evidence.calls
        if call.operation == "end" and call.end is not None and call.status is not None
    )
    turn = took[int(len(took) * USUAL)] if took else 0.0
    rules = evidence.rules
    return rules.loop_interval * LOOP_JITTER + 2 * turn + rules.slack


def nothing_is_left(evidence: Evidence) -> Iterator[Violation]:
    """The farm had more than TTL, lock delay and loop interval to come to rest."""
    for lease in evidence.leases:
        if lease.ended is None:
            yield Violation("left behind", f"lease {lease.id} is {lease.state} still")
    for user in evidence.users:
        if user.lease is not None:
            yield Violation("left behind", f"user {user.id} is in {user.lease} still")


def nobody_is_overtaken(evidence: Evidence) -> Iterator[Violation]:
    """No waiter saw a later one take a user with which it could have been met.

    Decided for waiters for one user, whom any matching user would have met in full. A
    waiter for several may be passed, for as long as it cannot be met, and one whose
    connection was lost is granted nothing until it asks again.
    """
    users = {user.id: user for user in evidence.users}
    taken: defaultdict[str, list[UserRow]] = defaultdict(list)
    for grant in evidence.grants:
        if grant.user in users:
            taken[grant.lease].append(users[grant.user])
    waiting: dict[str, LeaseRow] = {}
    for at, what, lease in _comings_and_goings(evidence):
        if what == _LEAVES:
            waiting.pop(lease.id, None)
        elif what == _ARRIVES:
            waiting[lease.id] = lease
        else:
            for other in waiting.values():
                if other.number < lease.number and any(
                    matches(other.wants[0], user) for user in taken[lease.id]
                ):
                    yield Violation(
                        "overtaken",
                        f"lease {other.id} (number {other.number}) waited while lease "
                        f"{lease.id} (number {lease.number}) was granted at {at:.6f}",
                    )


def leaves_queue(lease: LeaseRow) -> float:
    """When a lease waits no more."""
    if lease.granted is not None:
        return lease.granted
    return FOREVER if lease.ended is None else lease.ended


def waits_until(evidence: Evidence, lease: LeaseRow) -> float:
    """Until when it is granted what it wants; who is not heard of is passed over."""
    unheard = time_of_the_loop(evidence) if lease.state == "abandoned" else 0.0
    return leaves_queue(lease) - unheard


_LEAVES, _IS_GRANTED, _ARRIVES = 0, 1, 2
"""In the order of one instant: who came or went at the very instant of a grant is
given the benefit.
"""


def may_have_been_away(evidence: Evidence) -> set[str | None]:
    """Leases of which some call got no answer: the server may have seen it leave."""
    unanswered = {
        call.lease
        for call in evidence.calls
        if call.operation == "ask" and call.status is None
    }
    return unanswered | {undone.lease for undone in evidence.taken_back}


def _comings_and_goings(evidence: Evidence) -> Sequence[tuple[float, int, LeaseRow]]:
    """Arrivals and departures of waiters for one user, and the grants of all."""
    events: list[tuple[float, int, LeaseRow]] = []
    away = may_have_been_away(evidence)
    for lease in evidence.leases:
        leaves = waits_until(evidence, lease)
        waited = leaves > lease.created and lease.id not in away
        if waited and len(lease.wants) == 1 and lease.wants[0].count == 1:
            events.append((lease.created, _ARRIVES, lease))
            events.append((leaves, _LEAVES, lease))
        if lease.granted is not None:
            events.append((lease.granted, _IS_GRANTED, lease))
    return sorted(events, key=lambda it: (it[0], it[1]))


def matches(want: WantRow, user: UserRow) -> bool:
    return (
        user.env == want.env
        and user.domain == want.domain
        and all(user.labels.get(name) == value for name, value in want.labels.items())
    )


@dataclass(frozen=True, slots=True)
class HandOn:
    """From when a waiter's users were all free to when it was granted."""

    lease: LeaseRow
    free_since: float
    granted: float


def hand_ons(evidence: Evidence) -> Iterator[HandOn]:
    """Hand-ons of single users; for several, others may rightly have come between."""
    away = may_have_been_away(evidence)
    for holdings in holdings_by_user(evidence).values():
        for before, after in pairwise(holdings):
            wants = after.lease.wants
            if len(wants) != 1 or wants[0].count != 1 or after.lease.id in away:
                continue
            free_since = max(rested_at(evidence, before), after.lease.created)
            if after.start > free_since:
                yield HandOn(after.lease, free_since, after.start)


def longest_hand_on(evidence: Evidence) -> float:
    return max((it.granted - it.free_since for it in hand_ons(evidence)), default=0.0)


def handed_on_in_time(evidence: Evidence) -> Iterator[Violation]:
    stalls = Stalls(evidence.faults)
    allowed = time_of_the_loop(evidence)
    for it in hand_ons(evidence):
        took = it.granted - it.free_since - stalls.within(it.free_since, it.granted)
        if took > allowed:
            yield Violation(
                "handed on late",
                f"lease {it.lease.id} was granted {took:.3f} s after its user was "
                f"free, beside stalls; {allowed:.3f} s are allowed",
            )
