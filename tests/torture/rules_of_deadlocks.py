"""What must hold of knots: who is refused, and when.

A party is stuck if all that it could take is held by parties that wait themselves, and
that are stuck as well. Whatever could still happen is assumed to happen: who gets what
it waits for gives back what it has.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from .evidence import Evidence, LeaseRow, UserRow, WantRow
from .rules_of_database import (
    holdings_by_user,
    leaves_queue,
    matches,
    may_have_been_away,
    time_of_the_loop,
    waits_until,
)
from .rules_of_waiting import could_be_met, is_for_several
from .violations import Stalls, Violation

Met = Callable[[Sequence[WantRow], Collection[UserRow]], bool]


def refused_for_deadlock(evidence: Evidence) -> Sequence[LeaseRow]:
    """Whoever was, be it told or not."""
    told = {call.lease for call in evidence.calls if call.code == "deadlock"}
    return [
        lease
        for lease in evidence.leases
        if lease.reason == "deadlock" or lease.id in told
    ]


def deadlocks_are_true(evidence: Evidence) -> Iterator[Violation]:
    """Who is refused for a deadlock has users, and could have got what it wants from
    nobody, not even if all who can go on do so and give back what they have.
    """
    parties = _Parties(evidence)
    for lease in refused_for_deadlock(evidence):
        if lease.ended is None:
            yield Violation("no deadlock", f"lease {lease.id} was refused, and goes on")
            continue
        at = lease.ended
        owners = parties.owners(at)
        if lease.party not in owners.values() and not parties.is_impatient(at):
            yield Violation(
                "no deadlock",
                f"lease {lease.id} was refused, and {lease.party} has nothing",
            )
            continue
        # In doubt somebody waits, and what is free is kept for somebody else.
        waiting = parties.may_wait(at)
        free = [user for user in evidence.users if not parties.is_impatient(at, user)]
        within_reach = _obtainable(evidence.users, owners, waiting, free, could_be_met)
        if could_be_met(lease.wants, within_reach):
            yield Violation(
                "no deadlock",
                f"lease {lease.id} was refused at {at:.6f}, and could have had "
                f"{sorted(user.id for user in within_reach)}",
            )


def the_youngest_is_refused(evidence: Evidence) -> Iterator[Violation]:
    """Nobody in a knot has waited for less time than who is refused."""
    parties = _Parties(evidence)
    for lease in refused_for_deadlock(evidence):
        if lease.ended is None:
            continue
        at = lease.ended
        knots = _Knots(evidence, parties.owners(at), [lease, *parties.waiting(at)])
        for other in knots.of(lease):
            if other.number > lease.number:
                yield Violation(
                    "not the youngest",
                    f"lease {lease.id} (number {lease.number}) was refused at "
                    f"{at:.6f}, and lease {other.id} (number {other.number}) of the "
                    "same knot was not",
                )


def deadlocks_are_broken(evidence: Evidence) -> Iterator[Violation]:
    """No party is stuck for longer than the loop takes to find a knot.

    When one that it depends on is refused, the time begins anew: there may be several
    knots behind each other.
    """
    parties = _Parties(evidence)
    stalls = Stalls(evidence.faults)
    allowed = time_of_the_loop(evidence)
    for lease in parties.claims:
        until = waits_until(evidence, lease)
        if until - lease.created <= allowed:
            continue
        for start, end in _times_it_is_stuck(evidence, parties, lease, until):
            took = end - start - stalls.within(start, end)
            if took > allowed:
                yield Violation(
                    "knot was left",
                    f"lease {lease.id} waited for parties that wait as well from "
                    f"{start:.6f} to {end:.6f}, {took:.3f} s beside stalls; "
                    f"{allowed:.3f} s are allowed",
                )


def _times_it_is_stuck(
    evidence: Evidence, parties: _Parties, lease: LeaseRow, until: float
) -> Iterator[tuple[float, float]]:
    since: float | None = None
    before: Collection[LeaseRow] = ()
    for start, end in pairwise(parties.changes(lease.created, until)):
        at = (start + end) / 2
        knots = _Knots(evidence, parties.owners(at), parties.waiting(at))
        ahead = knots.ahead_of(lease)
        is_broken = any(it.id in parties.refused and it.ended == start for it in before)
        if since is not None and (is_broken or not ahead):
            yield since, start
            since = None
        if since is None and ahead:
            since = start
        before = ahead
    if since is not None:
        yield since, until


class _Parties:
    """Who has what and who waits for what, at any instant of a run."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._holdings = holdings_by_user(evidence)
        self._starts = {
            user: [holding.start for holding in holdings]
            for user, holdings in self._holdings.items()
        }
        self.refused = {lease.id for lease in refused_for_deadlock(evidence)}
        leases = Counter(it.party for it in evidence.leases if it.wants)
        self._waits = [
            lease
            for lease in evidence.leases
            if leases[lease.party] > 1 and leaves_queue(lease) > lease.created
        ]
        away = may_have_been_away(evidence)
        self.claims = [lease for lease in self._waits if lease.id not in away]
        """What parties wait for that may have something, in the queue for certain."""
        parties = {lease.party for lease in self._waits}
        instants = {
            at for it in self._waits for at in (it.created, leaves_queue(it))
        } | {
            at
            for holdings in self._holdings.values()
            for it in holdings
            if it.lease.party in parties
            for at in (it.start, it.end)
        }
        self._changes = sorted(instants)
        self._impatient = [
            lease
            for lease in evidence.leases
            if is_for_several(lease)
            and leaves_queue(lease) >= lease.created + evidence.rules.patience
        ]

    def owners(self, at: float) -> Mapping[str, str]:
        """The parties that have users, by these."""
        found = {}
        for user, starts in self._starts.items():
            index = bisect_right(starts, at) - 1
            if index >= 0 and at < self._holdings[user][index].end:
                found[user] = self._holdings[user][index].lease.party
        return found

    def may_wait(self, at: float) -> Sequence[LeaseRow]:
        """What is waited for, or was until this very instant."""
        return [it for it in self._waits if it.created <= at <= leaves_queue(it)]

    def waiting(self, at: float) -> Sequence[LeaseRow]:
        """What is waited for, for certain."""
        return [
            it
            for it in self.claims
            if it.created < at < waits_until(self._evidence, it)
        ]

    def is_impatient(self, at: float, user: UserRow | None = None) -> bool:
        """Whether a user, or any, may be kept for a waiter for several."""
        return any(
            lease.created + self._evidence.rules.patience <= at <= leaves_queue(lease)
            and (user is None or any(matches(want, user) for want in lease.wants))
            for lease in self._impatient
        )

    def changes(self, start: float, end: float) -> Sequence[float]:
        """The instants from start to end at which what is waited for or had changes."""
        first = bisect_right(self._changes, start)
        return [start, *self._changes[first : bisect_left(self._changes, end)], end]


class _Knots:
    """Who is stuck at one instant, and on whom these depend."""

    def __init__(
        self,
        evidence: Evidence,
        owners: Mapping[str, str],
        waiting: Sequence[LeaseRow],
    ) -> None:
        within_reach = _obtainable(
            evidence.users, owners, waiting, evidence.users, _might_be_met
        )
        having = set(owners.values())
        self._stuck = [
            lease
            for lease in waiting
            if lease.party in having and not _might_be_met(lease.wants, within_reach)
        ]
        stuck = {lease.party for lease in self._stuck}
        self._needed: defaultdict[str, set[str]] = defaultdict(set)
        for lease in self._stuck:
            self._needed[lease.party] |= {
                owners[user.id]
                for user in evidence.users
                if owners.get(user.id) in stuck
                and any(matches(want, user) for want in lease.wants)
            }

    def ahead_of(self, lease: LeaseRow) -> Sequence[LeaseRow]:
        """Those that a lease depends on, and itself, if it is stuck."""
        if lease.id not in {it.id for it in self._stuck}:
            return ()
        reached = self._reached(lease.party) | {lease.party}
        return [it for it in self._stuck if it.party in reached]

    def of(self, lease: LeaseRow) -> Sequence[LeaseRow]:
        """Those of its knot: it depends on them, and they on it."""
        return [
            it for it in self.ahead_of(lease) if lease.party in self._reached(it.party)
        ]

    def _reached(self, start: str) -> set[str]:
        found: set[str] = set()
        ahead = [start]
        while ahead:
            new = self._needed[ahead.pop()] - found
            found |= new
            ahead += new
        return found


def _obtainable(
    users: Sequence[UserRow],
    owners: Mapping[str, str],
    waiting: Sequence[LeaseRow],
    free: Collection[UserRow],
    is_met: Met,
) -> Sequence[UserRow]:
    """Users that are free, or that somebody has who need not wait for ever."""
    stuck = list(waiting)
    while True:
        parties = {lease.party for lease in stuck}
        found = [user for user in free if user.id not in owners]
        found += [
            it for it in users if it.id in owners and owners[it.id] not in parties
        ]
        going = {lease.party for lease in stuck if is_met(lease.wants, found)}
        if not going:
            return found
        stuck = [lease for lease in stuck if lease.party not in going]


def _might_be_met(wants: Sequence[WantRow], users: Collection[UserRow]) -> bool:
    """Whether the users might meet the wants: each of them alone, at least."""
    return all(
        sum(matches(want, user) for user in users) >= want.count for want in wants
    )
