"""What must hold of those who wait: for what is free, and who may pass them."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from .evidence import Evidence, LeaseRow, UserRow, WantRow
from .rules_of_database import (
    holdings_by_user,
    leaves_queue,
    matches,
    may_have_been_away,
    rested_at,
    time_of_the_loop,
    waits_until,
)
from .violations import FOREVER, Stalls, Violation

Spans = Sequence[tuple[float, float]]


def nobody_waits_for_what_is_free(evidence: Evidence) -> Iterator[Violation]:
    """No waiter waits on while the users that would meet it are all free.

    Whether it was granted in the end does not matter: a farm that hands nothing on
    has no late hand-ons either.
    """
    stalls = Stalls(evidence.faults)
    allowed = time_of_the_loop(evidence)
    free = {
        user: [span for span in spans if span[1] - span[0] > allowed]
        for user, spans in free_times(evidence).items()
    }
    impatient = list(_impatient(evidence))
    for lease in _waiters(evidence):
        for start, end in _times_it_could_be_met(evidence, lease, free):
            took = end - start - stalls.within(start, end)
            if took > allowed and not _may_be_kept(evidence, lease, end, impatient):
                yield Violation(
                    "waited for what was free",
                    f"lease {lease.id} ({lease.state}) waited {took:.3f} s, beside "
                    f"stalls, while what it wants was free from {start:.6f} to "
                    f"{end:.6f}; {allowed:.3f} s are allowed",
                )


def free_times(evidence: Evidence) -> Mapping[str, Spans]:
    """When each user was neither held nor at rest, in order."""
    holdings = holdings_by_user(evidence)
    found: dict[str, Spans] = {}
    for user in evidence.users:
        free_since = 0.0
        spans = []
        for holding in holdings.get(user.id, ()):
            if holding.start > free_since:
                spans.append((free_since, holding.start))
            free_since = rested_at(evidence, holding)
        found[user.id] = [*spans, (free_since, FOREVER)]
    return found


def could_be_met(wants: Sequence[WantRow], users: Collection[UserRow]) -> bool:
    """Whether the users meet the wants for certain.

    Each want is counted with all others that could take some of its users.
    """
    for want in wants:
        matching = [user for user in users if matches(want, user)]
        competing = [
            other for other in wants if any(matches(other, user) for user in matching)
        ]
        if not matching or len(matching) < sum(other.count for other in competing):
            return False
    return True


def _waiters(evidence: Evidence) -> Iterator[LeaseRow]:
    away = may_have_been_away(evidence)
    for lease in evidence.leases:
        if lease.wants and lease.id not in away and leaves_queue(lease) > lease.created:
            yield lease


def _times_it_could_be_met(
    evidence: Evidence, lease: LeaseRow, free: Mapping[str, Spans]
) -> Iterator[tuple[float, float]]:
    until = waits_until(evidence, lease)
    spans: list[tuple[float, float, UserRow]] = []
    for user in evidence.users:
        if any(matches(want, user) for want in lease.wants):
            its = free[user.id]
            for start, end in its[bisect_right(its, lease.created, key=_end) :]:
                if start >= until:
                    break
                spans.append((max(start, lease.created), min(end, until), user))
    since: float | None = None
    for at in sorted({edge for start, end, _ in spans for edge in (start, end)}):
        users = [user for start, end, user in spans if start <= at < end]
        is_met = could_be_met(lease.wants, users)
        if is_met and since is None:
            since = at
        elif not is_met and since is not None:
            yield since, at
            since = None


def _end(span: tuple[float, float]) -> float:
    return span[1]


def is_for_several(lease: LeaseRow) -> bool:
    return sum(want.count for want in lease.wants) > 1


def _impatient(evidence: Evidence) -> Iterator[LeaseRow]:
    """Waiters for several whose patience came to its end."""
    for lease in evidence.leases:
        if (
            is_for_several(lease)
            and leaves_queue(lease) - lease.created >= evidence.rules.patience
        ):
            yield lease


def _may_be_kept(
    evidence: Evidence, lease: LeaseRow, at: float, impatient: Sequence[LeaseRow]
) -> bool:
    """Whether what is free may be kept for a waiter that came before this one."""
    return any(
        before.number < lease.number
        and before.created + evidence.rules.patience <= at
        and leaves_queue(before) > lease.created
        for before in impatient
    )


def patience_has_an_end(evidence: Evidence) -> Iterator[Violation]:
    """Nobody passes a waiter for several with a user that it lacks, once that has
    waited for as long as it may be passed: the user is kept for it.
    """
    free = free_times(evidence)
    users = {user.id: user for user in evidence.users}
    taken: defaultdict[float, list[tuple[LeaseRow, UserRow]]] = defaultdict(list)
    leases = {lease.id: lease for lease in evidence.leases}
    for grant in evidence.grants:
        lease = leases[grant.lease]
        if lease.granted is not None and grant.user in users:
            taken[lease.granted].append((lease, users[grant.user]))
    instants = sorted(taken)
    away = may_have_been_away(evidence)
    for waiter in _impatient(evidence):
        if waiter.id in away:
            continue
        until = waits_until(evidence, waiter)
        first = bisect_right(instants, waiter.created + evidence.rules.patience)
        for at in instants[first:]:
            if at >= until:
                break
            for lease, user in taken[at]:
                if lease.number > waiter.number and _lacks(
                    waiter, user, at, free, users
                ):
                    yield Violation(
                        "passed for too long",
                        f"lease {waiter.id} had waited {at - waiter.created:.3f} s "
                        f"for several users when lease {lease.id} was granted user "
                        f"{user.id} at {at:.6f}",
                    )


def _lacks(
    waiter: LeaseRow,
    user: UserRow,
    at: float,
    free: Mapping[str, Spans],
    users: Mapping[str, UserRow],
) -> bool:
    """Whether too few of a user's kind are left free for a waiter without it."""
    return any(
        matches(want, user)
        and sum(
            _is_free(free[other.id], at)
            for other in users.values()
            if matches(want, other)
        )
        < want.count
        for want in waiter.wants
    )


def _is_free(spans: Spans, at: float) -> bool:
    index = bisect_right(spans, at, key=_end)
    return index < len(spans) and spans[index][0] <= at
